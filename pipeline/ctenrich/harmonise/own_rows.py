"""Codes that come with others' segments: rows of a segments.csv of the run, where the package's rows have others."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from ctenrich.codes.mappings import Code, codes_of, find_segment, load_segments, normalise_label
from ctenrich.dicom.seg import DecodedSegment
from ctenrich.evaluate.other_segs import structure_name
from ctenrich.harmonise.dcmqi import DescribedSegment
from ctenrich.workspace import write_bytes

__all__ = ["GivenCodes", "OwnRows"]

_PARTS = ("category", "type", "laterality", "region", "region_modifier", "finding")
_COLUMNS = (
    *("name", "labels"),
    *(f"{part}_{column}" for part in _PARTS for column in ("scheme", "code", "meaning")),
    *("colour", "revision", "system"),
)
_GREY = "#9AA0A6"


@dataclass(frozen=True, kw_only=True)
class GivenCodes:
    """Label and codes of a segment, as another program wrote them."""

    label: str
    category: Code | None
    type: Code | None
    laterality: Code | None
    region: Code | None
    region_modifier: Code | None
    colour: tuple[int, int, int] | None = None

    @classmethod
    def of_seg(cls, segment: DecodedSegment) -> GivenCodes:
        """Of a segment of a SEG."""
        s = segment
        return cls(
            label=s.label,
            category=s.category,
            type=s.type,
            laterality=s.laterality,
            region=s.region,
            region_modifier=s.region_modifier,
        )

    @classmethod
    def of_description(cls, segment: DescribedSegment) -> GivenCodes:
        """Of a segment of dcmqi's JSON."""
        s = segment
        return cls(
            label=s.label,
            category=s.category,
            type=s.type,
            laterality=s.modifier,
            region=s.region,
            region_modifier=s.region_modifier,
            colour=s.colour,
        )


@dataclass
class OwnRows:
    """Finds the row of each segment, and collects rows for those whose codes no row has."""

    rows: list[dict[str, str]] = field(default_factory=list)
    _names: dict[GivenCodes, str] = field(default_factory=dict)

    def name_of(self, given: GivenCodes) -> str | None:
        """Name of the row with the codes of a segment; None for one without codes whose label no row knows."""
        if given.type is None or given.category is None:
            row = find_segment(given.label)
            return row.name if row else None
        found = structure_name(_as_decoded(given))
        known = codes_of(found)
        if known is not None and not found.startswith("roi:") and _agree(given, known.type, known.laterality):
            return found
        if given not in self._names:
            self._names[given] = self._add(given, given.category, given.type)
        return self._names[given]

    def save(self, folder: Path, base: str) -> Path | None:
        """Write the collected rows as a folder of mappings, after the rows of the user's own folder.

        Parameters
        ----------
        folder : Path
            To write to.
        base : str
            The user's own folder of mappings; empty: none.

        Returns
        -------
        Path or None
            None if no row was collected.
        """
        if not self.rows:
            return None
        before: list[dict[str, str]] = []
        if base and (Path(base) / "segments.csv").is_file():
            with (Path(base) / "segments.csv").open(encoding="utf-8-sig", newline="") as file:
                before = [dict(row) for row in csv.DictReader(file)]
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*before, *self.rows])
        write_bytes(folder / "segments.csv", text.getvalue().encode())
        if base and (Path(base) / "rois.csv").is_file():
            shutil.copyfile(Path(base) / "rois.csv", folder / "rois.csv")
        return folder

    def _add(self, given: GivenCodes, category: Code, kind: Code) -> str:
        taken = {*load_segments(), *(row["name"] for row in self.rows)}
        start = normalise_label(given.label) or normalise_label(kind.meaning) or "segment"
        name, number = start[:60], 2
        while name in taken or find_segment(name) is not None:
            name, number = f"{start[:56]}_{number}", number + 1
        codes = {
            "category": category,
            "type": kind,
            "laterality": given.laterality,
            "region": given.region,
            "region_modifier": given.region_modifier,
            "finding": category,
        }
        row = {"name": name, "labels": ""}
        for part, code in codes.items():
            values = (code.scheme, code.value, code.meaning) if code else ("", "", "")
            row |= {f"{part}_{c}": v for c, v in zip(("scheme", "code", "meaning"), values, strict=True)}
        row["colour"] = "#{:02X}{:02X}{:02X}".format(*given.colour) if given.colour else _GREY
        self.rows.append(row)
        return name


def _agree(given: GivenCodes, kind: Code, laterality: Code | None) -> bool:
    from pydicom.sr.coding import Code as PydicomCode

    pairs = ((given.type, kind), (given.laterality, laterality))
    for theirs, own in pairs:
        if theirs is None or own is None:
            if theirs is not own:
                return False
        elif PydicomCode(theirs.value, theirs.scheme, theirs.meaning) != PydicomCode(
            own.value, own.scheme, own.meaning
        ):
            return False
    return True


def _as_decoded(given: GivenCodes) -> DecodedSegment:
    return DecodedSegment(
        number=1,
        label=given.label,
        description="",
        category=given.category,
        type=given.type,
        laterality=given.laterality,
        region=given.region,
        region_modifier=given.region_modifier,
        algorithm_type="",
        algorithm_name="",
        tracking_id="",
        tracking_uid="",
        voxels=0,
    )
