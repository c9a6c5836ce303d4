"""The page "From TotalSegmentator to ctenrich" says what becomes of every option of TotalSegmentator 2.18.0."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "totalsegmentator.md"
OPTIONS = """
-i -o -ot --ml --nr_thr_resamp --resampling_order --nr_thr_saving --fast --fastest --save_lowres --nora_tag --preview
-ta --model_size --roi_subset --roi_subset_robust --robust_crop --higher_order_resampling --statistics --radiomics
--report --stats_include_incomplete --stats_aggregation --statistics_extra --crop_path --body_seg --force_split
--skip_saving --no_derived_masks --v1_order --remove_small_blobs --device --quiet --save_probabilities --verbose
--debug --license_number --list-tasks --list-classes
"""
"""Of its argument parser, but for --test and --version, by the names that the page uses."""


def test_every_option_has_its_row() -> None:
    table = PAGE.read_text().partition("## Options")[2].partition("\n## ")[0]
    first_columns = " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `"))
    named = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", first_columns))
    assert set(OPTIONS.split()) - named == set()
