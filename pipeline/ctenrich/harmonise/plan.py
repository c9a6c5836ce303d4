"""Make the request of a harmonised product: find the files, name every segment, refuse what is not known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctenrich.codes.mappings import find_segment, numbered_name
from ctenrich.codes.tasks import TaskClass
from ctenrich.contours.rtstruct import load_contours
from ctenrich.dicom.objects import header, quiet
from ctenrich.dicom.references import read_object_header
from ctenrich.dicom.seg import read_seg
from ctenrich.dicom.sop_classes import RT_STRUCTURE_SET, SEGMENTATION_CLASSES
from ctenrich.errors import InputError, UsageError, count
from ctenrich.harmonise.dcmqi import DescribedSegment, read_seg_description
from ctenrich.harmonise.images import IMAGE_SUFFIXES, LabelName, image_stem, label_names
from ctenrich.harmonise.names import LabelTable, names_beside, read_labels, task_of
from ctenrich.harmonise.own_rows import GivenCodes, OwnRows
from ctenrich.harmonise.request import HarmoniseRequest, MaskForm, RequestedSegment
from ctenrich.inference.kinds import ALGORITHM_TYPES
from ctenrich.reasons import Reason
from ctenrich.settings import Settings
from ctenrich.workspace import input_files

__all__ = ["HarmoniseOptions", "PlannedRequest", "plan_request"]


@dataclass(frozen=True, kw_only=True)
class HarmoniseOptions:
    """What the user states about the masks."""

    maker: str = ""
    """``totalsegmentator``, ``moose`` or ``lungmask``, with ``:TASK`` if it is not the usual one."""
    labels: Path | None = None
    """Table of labels, see :func:`ctenrich.harmonise.names.read_labels`."""
    meta: Path | None = None
    """Description of the segments in dcmqi's JSON."""
    measurements: tuple[Path, ...] = ()
    name: str = ""
    """Name of the product; empty: that of the task, or of the folder."""
    algorithm_type: str = ""
    """Segment Algorithm Type; empty: what the files or the task state."""
    algorithm_name: str = ""
    algorithm_version: str = ""
    incomplete: bool = False
    """Whether masks of the table may be missing."""
    resample: bool = False
    accept_position: bool = False


@dataclass(frozen=True, kw_only=True)
class PlannedRequest:
    """A request, and the rows that its segments need beside the package's."""

    request: HarmoniseRequest
    rows: OwnRows


@dataclass(frozen=True, kw_only=True)
class _Named:
    """A segment before it is numbered."""

    name: str
    """Empty for a label that is left out."""
    source: str
    file: str
    value: int = 0
    layer: int = 0


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The segments of the files, and what the files state about their making."""

    form: MaskForm
    segments: Sequence[_Named]
    title: str = ""
    learned: bool = False
    types: frozenset[str] = frozenset()
    algorithms: frozenset[str] = frozenset()


def plan_request(folder: Path, options: HarmoniseOptions, settings: Settings) -> PlannedRequest:
    """Make the request for masks in a folder, or in one file.

    Parameters
    ----------
    folder : Path
        Label maps or masks (NIfTI, NRRD, MetaImage), SEGs, or an RT Structure Set; other files are left out.
    options : HarmoniseOptions
        What the user states.
    settings : Settings
        Limits of SEGs and of unpacked objects.

    Returns
    -------
    PlannedRequest

    Raises
    ------
    UsageError
        NOT_FOUND without any masks; BAD_PARAMETER for several forms at once, options that exclude each other, or a type
        or program that nothing states; UNMAPPED_LABEL for a name in the table that no row has.
    InputError
        UNMAPPED_LABEL for labels that are not known; MISSING_MASKS for masks of the table that are not there;
        BAD_DESCRIPTION; the errors of a file that cannot be read.
    """
    if sum(map(bool, (options.maker, options.labels, options.meta))) > 1:
        raise UsageError(Reason.BAD_PARAMETER, "give one of --as, --labels and --meta")
    top = folder if folder.is_dir() else folder.parent
    kinds = _files_by_kind(folder)
    forms = [kind for kind, paths in kinds.items() if paths]
    if not forms:
        message = f"there is no image of masks, SEG or RT Structure Set in {folder}"
        raise UsageError(Reason.NOT_FOUND, message, f"images end in {', '.join(IMAGE_SUFFIXES)}")
    if len(forms) > 1:
        held = ", ".join(f"{len(kinds[kind])} {kind}" for kind in forms)
        raise UsageError(Reason.BAD_PARAMETER, f"{folder.name} holds {held}", "name the files of one form")
    rows = OwnRows()
    paths = [path.relative_to(top).as_posix() for path in kinds[forms[0]]]
    if forms[0] == "image":
        found = _images(top, paths, options, rows)
    elif forms[0] == "SEG":
        found = _segs(top, paths, options, rows, settings)
    else:
        found = _structure_set(top, paths, options, settings)
    return PlannedRequest(request=_request(top, folder, found, options), rows=rows)


def _files_by_kind(folder: Path) -> dict[str, list[Path]]:
    files = input_files(folder)
    kinds: dict[str, list[Path]] = {"image": [], "SEG": [], "RT Structure Set": []}
    for path in files:
        if path.name.startswith("."):
            continue
        if path.name.lower().endswith(IMAGE_SUFFIXES):
            kinds["image"].append(path)
            continue
        head = read_object_header(path)
        if head is not None and head.sop_class in SEGMENTATION_CLASSES:
            kinds["SEG"].append(path)
        elif head is not None and head.sop_class == RT_STRUCTURE_SET:
            kinds["RT Structure Set"].append(path)
    return kinds


# ---------------------------------------------------------------- images


def _images(top: Path, paths: list[str], options: HarmoniseOptions, rows: OwnRows) -> _Found:
    if options.meta is not None:
        return _described(paths, read_seg_description(options.meta), rows)
    if options.maker:
        title, classes = task_of(options.maker)
        if len(paths) == 1 and image_stem(Path(paths[0]).name) not in {c.class_name for c in classes}:
            _check_own_names(top / paths[0], classes, title)
            named = [_Named(name=c.segment, source=c.class_name, file=paths[0], value=c.label) for c in classes]
            return _Found(form=MaskForm.LABEL_MAP, segments=named, title=title, learned=True, types=_AUTOMATIC)
        named = _task_masks(paths, classes, title, options)
        return _Found(form=MaskForm.MASKS, segments=named, title=title, learned=True, types=_AUTOMATIC)
    table = read_labels(options.labels) if options.labels else None
    if len(paths) == 1 and (found := _one_label_map(top, paths[0], table)) is not None:
        return found
    if table is not None:
        return _Found(form=MaskForm.MASKS, segments=_table_masks(paths, table, options))
    return _Found(form=MaskForm.MASKS, segments=_masks_by_name(paths))


_AUTOMATIC = frozenset({"AUTOMATIC"})


def _check_own_names(path: Path, classes: Sequence[TaskClass], title: str) -> None:
    """Refuse a label map whose own label table is another than that of the task."""
    known = {c.label: c.class_name for c in classes}
    other = [n for n in label_names(path) if n.value and known.get(n.value) != n.name]
    if other:
        text = f"{path.name} itself calls label {other[0].value} {other[0].name!r}, {title}'s table has "
        text += repr(known[other[0].value]) if other[0].value in known else "no such label"
        raise InputError(Reason.UNMAPPED_LABEL, text, "name the task: --as MAKER:TASK, or give --labels")


def _one_label_map(top: Path, file: str, table: LabelTable | None) -> _Found | None:
    """One image as a label map; None if it is the mask of one structure."""
    own = label_names(top / file)
    stem = image_stem(Path(file).name)
    if table is not None:
        if stem in table.names and not table.values:
            return None
        if own and not table.values:
            return _by_own_names(file, own, table)
        if not table.values:
            text = f"{table.place} has no label values, and {file} is a label map"
            raise UsageError(Reason.BAD_PARAMETER, text, "its labels are whole numbers")
        named = [_Named(name=name, source=str(v), file=file, value=v) for v, name in table.values.items() if v]
        return _Found(form=MaskForm.LABEL_MAP, segments=named)
    if own:
        return _by_own_names(file, own, None)
    beside = names_beside((top / file).parent)
    if beside:
        labels = tuple(LabelName(value=value, name=name) for value, name in beside.items())
        return _by_own_names(file, labels, None)
    if find_segment(stem) is not None:
        return None
    hint = "give --as MAKER, or --labels with a CSV of label values and names"
    raise InputError(Reason.UNMAPPED_LABEL, f"nothing names the labels of {file}", hint)


def _by_own_names(file: str, own: Sequence[LabelName], table: LabelTable | None) -> _Found:
    labels = [n for n in own if n.value or n.layer]
    names = _names_of([n.name for n in labels], table, file)
    named = [_Named(name=names[n.name], source=n.name, file=file, value=n.value, layer=n.layer) for n in labels]
    return _Found(form=MaskForm.LABEL_MAP, segments=named)


def _names_of(labels: Sequence[str], table: LabelTable | None, where: str) -> dict[str, str]:
    """Row of each label; empty for those that the table leaves out."""
    found: dict[str, str] = {}
    unknown = []
    for label in labels:
        row = find_segment(label)
        if table is not None and label in table.names:
            found[label] = table.names[label]
        elif table is None and row is not None:
            found[label] = row.name
        else:
            unknown.append(label)
    if unknown:
        shown = ", ".join(map(repr, unknown[:8])) + (", ..." if unknown[8:] else "")
        source = f"{table.place} does not have" if table is not None else "mappings/segments.csv does not know"
        hint = "name them in --labels, with an empty name for those to be left out"
        raise InputError(Reason.UNMAPPED_LABEL, f"{where}: {source} {shown}", hint)
    return found


def _stems(paths: list[str]) -> dict[str, str]:
    """Name of the structure -> file; two files of one name are refused."""
    stems: dict[str, str] = {}
    for path in paths:
        stem = image_stem(Path(path).name)
        if stem in stems:
            raise UsageError(Reason.BAD_PARAMETER, f"{stems[stem]} and {path} have one name", "name one folder")
        stems[stem] = path
    return stems


def _task_masks(paths: list[str], classes: Sequence[TaskClass], title: str, options: HarmoniseOptions) -> list[_Named]:
    stems = _stems(paths)
    unknown = [stem for stem in stems if stem not in {c.class_name for c in classes}]
    if unknown:
        shown = ", ".join(unknown[:8]) + (", ..." if unknown[8:] else "")
        hint = "name the task: --as MAKER:TASK; remove files that are no masks, or give --labels"
        raise InputError(Reason.UNMAPPED_LABEL, f"{title}'s table does not have {shown}", hint)
    missing = [c.class_name for c in classes if c.class_name not in stems]
    _check_missing(missing, len(classes), options)
    return [
        _Named(name=c.segment, source=c.class_name, file=stems[c.class_name]) for c in classes if c.class_name in stems
    ]


def _table_masks(paths: list[str], table: LabelTable, options: HarmoniseOptions) -> list[_Named]:
    stems = _stems(paths)
    names = _names_of(list(stems), table, "the folder")
    missing = [label for label, name in table.names.items() if name and label not in stems]
    _check_missing(missing, len(table.names), options)
    return [_Named(name=names[label], source=label, file=stems[label]) for label in table.names if label in stems]


def _masks_by_name(paths: list[str]) -> list[_Named]:
    stems = {re.sub(r"^\d+_", "", stem): path for stem, path in _stems(paths).items()}
    if len(stems) < len(paths):
        raise UsageError(Reason.BAD_PARAMETER, "two files have one name but for their numbers", "give --labels")
    names = _names_of(list(stems), None, "the folder")
    return [_Named(name=names[stem], source=stem, file=path) for stem, path in stems.items()]


def _check_missing(missing: Sequence[str], planned: int, options: HarmoniseOptions) -> None:
    if missing and not options.incomplete:
        shown = ", ".join(missing[:8]) + (", ..." if missing[8:] else "")
        message = f"{len(missing)} of {planned} masks are missing: {shown}"
        raise InputError(Reason.MISSING_MASKS, message, "for a part that was asked for, add --incomplete")


def _described(paths: list[str], segments: Sequence[DescribedSegment], rows: OwnRows) -> _Found:
    """Images with dcmqi's description, whose lists are in the order of the images."""
    images = 1 + max(s.file_index for s in segments)
    if len(paths) != images:
        message = f"the description has {count(images, 'list')} of segments, and there are {count(len(paths), 'image')}"
        raise InputError(Reason.MISSING_MASKS, message)
    ordered = paths
    if images > 1:
        numbers = [re.search(r"(\d+)$", image_stem(Path(p).name)) for p in paths]
        if any(n is None for n in numbers) or len({int(n[1]) for n in numbers if n}) < images:
            message = "the description does not name its images, and their names do not end in their numbers"
            raise InputError(Reason.BAD_DESCRIPTION, message, "name them NAME-1, NAME-2 ... in the order of its lists")
        ordered = [p for _, p in sorted(zip((int(n[1]) for n in numbers if n), paths, strict=True))]
    named = [
        _Named(
            name=rows.name_of(GivenCodes.of_description(s)) or "",
            source=s.label,
            file=ordered[s.file_index],
            value=s.label_id,
        )
        for s in segments
    ]
    form = MaskForm.LABEL_MAP if images == 1 else MaskForm.MASKS
    return _Found(
        form=form,
        segments=named,
        types=frozenset(s.algorithm_type for s in segments),
        algorithms=frozenset(s.algorithm_name for s in segments),
    )


# ---------------------------------------------------------------- DICOM


def _segs(top: Path, paths: list[str], options: HarmoniseOptions, rows: OwnRows, settings: Settings) -> _Found:
    if options.maker or options.meta:
        message = "a SEG describes its segments itself"
        raise UsageError(Reason.BAD_PARAMETER, message, "give --labels to name them otherwise, or nothing")
    table = read_labels(options.labels) if options.labels else None
    named: list[_Named] = []
    types, algorithms = set(), set()
    limits = settings.seg
    for path in paths:
        seg = read_seg(top / path, max_voxels=limits.max_voxels, max_bytes=limits.max_bytes)
        names = _names_of([s.label for s in seg.segments], table, path) if table is not None else {}
        for segment in seg.segments:
            name = names[segment.label] if table is not None else rows.name_of(GivenCodes.of_seg(segment))
            if name is None:
                message = f"{path}: segment {segment.number} has no codes, and no row knows {segment.label!r}"
                raise InputError(Reason.UNMAPPED_LABEL, message, "name it in --labels")
            named.append(_Named(name=name, source=segment.label, file=path, value=segment.number))
            types.add(segment.algorithm_type)
            algorithms.add(segment.algorithm_name)
    return _Found(form=MaskForm.SEG, segments=named, types=frozenset(types), algorithms=frozenset(algorithms))


def _structure_set(top: Path, paths: list[str], options: HarmoniseOptions, settings: Settings) -> _Found:
    if options.maker or options.meta:
        raise UsageError(Reason.BAD_PARAMETER, "the ROIs of a structure set are named by --labels")
    if len(paths) > 1:
        raise UsageError(Reason.BAD_PARAMETER, f"there are {len(paths)} RT Structure Sets", "name one of them")
    structures = load_contours(top / paths[0], limit=settings.convert.max_unpacked)
    table = read_labels(options.labels) if options.labels else None
    names = _names_of([roi.name for roi in structures.rois], table, paths[0])
    named = [
        _Named(name=names[roi.name], source=roi.name, file=paths[0], value=position)
        for position, roi in enumerate(structures.rois)
    ]
    with quiet():
        items = header(top / paths[0], ("StructureSetROISequence",)).get("StructureSetROISequence") or ()
        types = frozenset(str(item.get("ROIGenerationAlgorithm", "") or "") for item in items)
    return _Found(form=MaskForm.RTSTRUCT, segments=named, types=types)


# ---------------------------------------------------------------- request


def _request(top: Path, folder: Path, found: _Found, options: HarmoniseOptions) -> HarmoniseRequest:
    kept = [s for s in found.segments if s.name]
    if not kept:
        raise UsageError(Reason.BAD_PARAMETER, "no label is to become a segment", "see --labels")
    kind = options.algorithm_type.upper() or _only(found.types)
    if kind not in ALGORITHM_TYPES:
        message = "nothing states how the masks were made"
        raise UsageError(Reason.BAD_PARAMETER, message, "add --made-by automatic, semiautomatic or manual")
    algorithm = options.algorithm_name or found.title or _only(found.algorithms)
    if not algorithm and kind != "MANUAL":
        raise UsageError(Reason.BAD_PARAMETER, "nothing names the program that made the masks", "add --algorithm NAME")
    seen: Counter[str] = Counter()
    segments = []
    for number, s in enumerate(kept, 1):
        seen[s.name] += 1
        name = numbered_name(s.name, seen[s.name])
        segments.append(
            RequestedSegment(number=number, name=name, source_label=s.source, file=s.file, value=s.value, layer=s.layer)
        )
    return HarmoniseRequest(
        name=_product_name(folder, options),
        folder=str(top.resolve()),
        form=found.form,
        segments=tuple(segments),
        ignored=tuple(s.value for s in found.segments if not s.name),
        algorithm_type=kind,
        algorithm_name=algorithm or "manual contours",
        algorithm_version=options.algorithm_version,
        learned=found.learned,
        resample=options.resample,
        accept_position=options.accept_position,
        measurements=tuple(str(path.resolve()) for path in options.measurements),
    )


def _only(values: frozenset[str]) -> str:
    return next(iter(values)) if len(values) == 1 else ""


def _product_name(folder: Path, options: HarmoniseOptions) -> str:
    text = options.name or options.maker.replace(":", "-") or image_stem(folder.name) or folder.name
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-._+")[:100]
    if options.name and name != options.name:
        raise UsageError(
            Reason.BAD_PARAMETER, f"{options.name!r} cannot name a product", "use letters, digits, _ . + -"
        )
    return name or "masks"
