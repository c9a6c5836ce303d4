"""Link radiotherapy objects with one another: by UID, else by frame of reference and study, else by frame of reference.

In many archives the UIDs between dose, plan and structure set lead nowhere, because de-identification or an export
changed them on one side only. The frame of reference then shows what belongs together, and each link states by which
method it was made. A UID that resolves is never overruled; two candidates of one method leave a link inconclusive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from ctenrich.treatments.objects import CatalogObject, RadiotherapyObjects
from ctenrich.treatments.records import LinkMethod, LinkState, ObjectLink

__all__ = ["link_objects"]


class _Target(NamedTuple):
    uid: str
    patient_id: str
    study_instance_uid: str
    frames: tuple[str, ...]


class _Targets:
    """Objects of one kind to which others refer, found by UID and by frame of reference."""

    def __init__(self, targets: Iterable[_Target], unnamed: Iterable[_Target] | None = None) -> None:
        found = list(targets)
        self._by_uid = {one.uid: one for one in found}
        self._by_frame: dict[str, list[_Target]] = defaultdict(list)
        for one in found if unnamed is None else unnamed:
            for frame in one.frames:
                self._by_frame[frame].append(one)

    def named(self, uid: str) -> _Target | None:
        """The object of a UID."""
        return self._by_uid.get(uid)

    def near(self, source: CatalogObject) -> tuple[LinkMethod | None, list[_Target]]:
        """Objects of the same patient in the frame of reference of another, those of its study before all."""
        found = {one.uid: one for frame in source.frames for one in self._by_frame.get(frame, ())}
        own = [one for one in found.values() if one.patient_id == source.patient_id]
        of_study = [one for one in own if one.study_instance_uid == source.study_instance_uid]
        if of_study:
            return LinkMethod.FRAME_AND_STUDY, of_study
        return (LinkMethod.FRAME, own) if own else (None, [])


def link_objects(objects: RadiotherapyObjects) -> tuple[ObjectLink, ...]:
    """Link every dose and record to its plan, every plan to its structure set, every structure set to its images.

    Parameters
    ----------
    objects : RadiotherapyObjects
        The objects of a catalog.

    Returns
    -------
    tuple of ObjectLink
        In the order of the objects. A dose that refers to a structure set has a link to it besides the one to its plan.
    """
    plans = _Targets(map(_target, objects.plans))
    sets = _Targets(map(_target, objects.structure_sets))
    series = [_Target(s.series_instance_uid, s.patient_id, s.study_instance_uid, (s.frame,)) for s in objects.images]
    volumes = {s.series_instance_uid for s in objects.images if s.modality == "CT" and s.is_volume}
    images = _Targets(series, [one for one in series if one.uid in volumes])
    modality = {s.series_instance_uid: s.modality for s in objects.images}
    links: list[ObjectLink] = []
    for source in objects.structure_sets:
        for link in _links(source, source.images, images, "CT"):
            kinds = {modality[uid] for uid in link.targets}
            links.append(link if kinds <= {"CT"} else _with_modality(link, min(kinds - {"CT"})))
    for source in objects.plans:
        links += _links(source, source.structure_sets, sets, "RTSTRUCT")
    for source in objects.doses:
        links += _links(source, source.plans, plans, "RTPLAN")
        if source.structure_sets:
            links += _links(source, source.structure_sets, sets, "RTSTRUCT")
    for source in objects.records:
        links += _links(source, source.plans, plans, "RTPLAN")
    return tuple(links)


def _target(one: CatalogObject) -> _Target:
    return _Target(one.uid, one.patient_id, one.study_instance_uid, one.frames)


def _with_modality(link: ObjectLink, modality: str) -> ObjectLink:
    return replace(link, target_modality=modality)


def _links(source: CatalogObject, stated: Sequence[str], targets: _Targets, modality: str) -> list[ObjectLink]:
    """One link per stated UID that resolves; where none does, one by frame of reference per UID (or without one)."""
    named = [(uid, one) for uid in dict.fromkeys(stated) if (one := targets.named(uid)) is not None]
    if named:
        return [_link(source, modality, uid, LinkMethod.UID, [one]) for uid, one in named]
    method, near = targets.near(source)
    return [_link(source, modality, uid, method, near) for uid in dict.fromkeys(stated)] or [
        _link(source, modality, "", method, near)
    ]


def _link(
    source: CatalogObject, modality: str, stated: str, method: LinkMethod | None, targets: Sequence[_Target]
) -> ObjectLink:
    if targets:
        state = LinkState.RESOLVED if len(targets) == 1 else LinkState.INCONCLUSIVE
    else:
        state = LinkState.BROKEN if stated else LinkState.ABSENT
    return ObjectLink(
        patient_id=source.patient_id,
        source=source.uid,
        source_modality=source.modality,
        target_modality=modality,
        referenced=stated,
        targets=tuple(sorted(one.uid for one in targets)),
        method=method,
        state=state,
        other_patient=any(one.patient_id != source.patient_id for one in targets),
    )
