"""The example of docs/extending.md is a segmenter that works, registered as its page says."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from ctenrich import resources
from ctenrich.inference.kinds import segmenter_kinds
from ctenrich.inference.products import parse_segmenter
from ctenrich.phantom import PhantomOptions, as_records, make_phantom
from ctenrich.settings import Settings
from ctenrich.stages.table import check_kind
from ctenrich.workspace import Workspace, load_array

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the page as if it were installed."""
    blocks = dict(re.findall(r"```(python|toml)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
    package = tmp_path / "site" / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "threshold.py").write_text(blocks["python"])
    monkeypatch.syspath_prepend(tmp_path / "site")
    groups = tomllib.loads(blocks["toml"])["project"]["entry-points"]
    entries = [EntryPoint(name, value, group) for group, named in groups.items() for name, value in named.items()]
    monkeypatch.setattr(resources, "entry_points", lambda group: [e for e in entries if e.group == group])


@pytest.mark.usefixtures("_installed")
def test_the_example_segments_a_phantom(tmp_path: Path) -> None:
    assert parse_segmenter("threshold").kind == "threshold"
    kind = segmenter_kinds()["threshold"]
    check_kind(kind)
    workspace = Workspace(tmp_path / "run")
    phantom = make_phantom(PhantomOptions(seed=3))
    volume, series = as_records(phantom, workspace)
    segmenter = kind.open(parse_segmenter("threshold"), Settings())
    masks = segmenter.segment({"CT": volume}, series, settings=Settings(), workspace=workspace)
    assert str(masks.product) == "threshold"
    assert masks.algorithm_type == kind.algorithm_type == "AUTOMATIC"
    assert masks.label_map_path is not None
    found = load_array(workspace.resolve(series.series_instance_uid, masks.label_map_path))
    truth = phantom.masks["lung_left"] | phantom.masks["lung_right"]
    assert found[truth].mean() > 0.9
    assert masks.segments[0].voxels == np.count_nonzero(found)


def test_the_page_lists_every_entry_point_group() -> None:
    package = Path(resources.__file__).parent
    code = "\n".join(path.read_text("utf-8") for path in package.rglob("*.py"))
    groups = set(re.findall(r'^GROUP = "(ctenrich\.\w+)"', code, re.MULTILINE))
    assert groups == set(re.findall(r"`(ctenrich\.\w+)` \| an? ", PAGE.read_text("utf-8")))
