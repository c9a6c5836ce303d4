"""The page "From TotalSegmentator to ctenrich" says what becomes of every option of TotalSegmentator 2.18.0."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "totalsegmentator.md"
OPTIONS = """
-h -i -o -ot --ml --nr_thr_resamp --resampling_order --nr_thr_saving --fast --fastest --save_lowres --nora_tag --preview
-ta --model_size --roi_subset --roi_subset_robust --robust_crop --higher_order_resampling_LEGACY
--higher_order_resampling --statistics --radiomics
--report --stats_include_incomplete --stats_aggregation --statistics_extra --crop_path --body_seg --force_split
--skip_saving --no_derived_masks --v1_order --remove_small_blobs --device --quiet --save_probabilities --verbose
--debug --license_number --test --list-tasks --list-classes --version
"""
"""Of its argument parser, by the names that the page uses."""

ARGUMENTS = """
input output ml nr_thr_resamp nr_thr_saving fast nora_tag preview task roi_subset statistics radiomics crop_path
body_seg
force_split output_type quiet verbose test skip_saving device license_number statistics_exclude_masks_at_border
no_derived_masks v1_order fastest roi_subset_robust stats_aggregation remove_small_blobs
statistics_normalized_intensities robust_crop higher_order_resampling_LEGACY higher_order_resampling save_probabilities
debug report statistics_extra save_lowres resampling_order plans model_size
"""
"""Of its Python function ``totalsegmentator``."""

PROGRAMS = """
crop_to_body totalseg_aorta_report totalseg_combine_masks totalseg_download_weights totalseg_evans_index
totalseg_get_body_stats totalseg_get_modality totalseg_get_phase totalseg_import_weights totalseg_info totalseg_mcp
totalseg_pulmonary_report totalseg_set_license totalseg_setup_manually totalseg_spine_report
"""
"""Its entry points beside ``TotalSegmentator``."""


def _first_columns() -> str:
    table = PAGE.read_text().partition("## Options")[2].partition("\n## ")[0]
    return " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `"))


def test_every_option_has_its_row() -> None:
    named = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", _first_columns()))
    assert set(OPTIONS.split()) - named == set()


def test_every_argument_and_program_has_its_row() -> None:
    """Arguments that have the name of an option are covered by its row."""
    columns = _first_columns()
    short = {"output": "-o FOLDER", "input": "-i FOLDER", "task": "-ta TASK", "output_type": "-ot"}
    lost = [
        name
        for name in ARGUMENTS.split()
        if not re.search(rf"\b{name}\b", columns) and short.get(name, name) not in columns
    ]
    assert lost == []
    assert [name for name in PROGRAMS.split() if f"`{name}`" not in columns] == []
