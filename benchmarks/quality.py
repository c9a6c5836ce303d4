"""Faults planted in the masks of phantoms and of experts: how many the quality checks find, and their false alarms.

    python -m benchmarks.quality                      # phantoms
    CTENRICH_TEST_DATA=... python -m benchmarks.quality # and expert masks of LUNG1-001, LUNG1-002 and LUNG1-005
    python -m benchmarks.quality --write docs/validation.md

The limits were set on phantoms of other seeds (`--development` runs those) and on LUNG1-002. Recall is the share of
faulty cases in the first tenth of the ranked list, where there is one faulty case for twenty clean ones; averaged over
seeded draws.
"""

from __future__ import annotations

import argparse
import os
import random
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctenrich import steps
from ctenrich.phantom.anatomy import SEGMENTS
from ctenrich.phantom.options import PhantomOptions
from ctenrich.phantom.volume import make_phantom
from ctenrich.quality.case import QualityCase, organ_mask
from ctenrich.quality.limits import load_limits
from ctenrich.quality.ranking import score_of
from ctenrich.quality.registry import run_checks
from ctenrich.quality.run import cases_of_series

Masks = dict[str, NDArray[np.bool_]]
Fault = Callable[[Masks, QualityCase, random.Random, Masks], Masks]

START, END = "<!-- planted faults -->", "<!-- end of planted faults -->"
REAL = ("LUNG1-001", "LUNG1-002-RT", "LUNG1-005")
DEVELOPMENT = ("LUNG1-002",)
"""Patients on whom limits were set."""
CLEAN_PHANTOMS, FAULTY_PHANTOMS, COPIES, FAULTS_OF_REAL, MIXES = 120, 12, 20, 4, 300


# ---------------------------------------------------------------- cases


def phantom_case(seed: int) -> QualityCase:
    """A phantom of 3.2 x 3.2 x 4 mm with its truth as the masks of a product."""
    spacing = (4.0, 3.2, 3.2)
    options = PhantomOptions(seed=seed, rows=126, columns=126, pixel_spacing=spacing[1:], slices=84, slice_spacing=4.0)
    made = make_phantom(options)
    masks = {name: made.labels == number for number, name in enumerate(SEGMENTS, 1)}
    return with_masks(_case(f"phantom {seed}", made.array, spacing), masks)


def _case(name: str, ct: NDArray[np.int16], spacing: tuple[float, float, float]) -> QualityCase:
    return QualityCase(series_instance_uid=name, product="planted", shape=ct.shape, spacing=spacing, ct=ct)


def with_masks(case: QualityCase, masks: Masks) -> QualityCase:
    organs = {name: organ_mask(name, mask, case.spacing) for name, mask in masks.items()}
    return case.with_organs(
        {n: o for n, o in organs.items() if o is not None}, [n for n, o in organs.items() if o is None]
    )


def masks_of(case: QualityCase) -> Masks:
    out = {}
    for name, organ in case.organs.items():
        out[name] = np.zeros(case.shape, bool)
        out[name][organ.box] = organ.mask
    return out


def real_cases(folder: Path) -> list[QualityCase]:
    """Expert masks of the three patients, every second row and column."""
    data = Path(os.environ["CTENRICH_TEST_DATA"]) / "data"
    for name in REAL:
        with tarfile.open(data / f"{name}.tar.xz") as tar:
            tar.extractall(folder / name, filter="data")
    steps.index([folder / name for name in REAL], folder / "catalog.duckdb")
    steps.select("select_ct_series", f"folder:{folder / 'catalog.duckdb'}", folder / "cohort.parquet")
    run = steps.start(folder / "cohort.parquet", folder / "run", segmenters=["expert"])
    for stage in (steps.fetch, steps.sort, steps.convert, steps.segment):
        stage(run)
    out = []
    for entry in run.cohort.series:
        for case in cases_of_series(run.workspace, entry.series_instance_uid, entry.facts):
            assert case.ct is not None
            spacing = (case.spacing[0], 2 * case.spacing[1], 2 * case.spacing[2])
            coarse = _case(entry.patient_id, np.ascontiguousarray(case.ct[:, ::2, ::2]), spacing)
            kept = {n: m[:, ::2, ::2] for n, m in masks_of(case).items() if not n.startswith(("gtv", "roi:"))}
            out.append(with_masks(coarse, kept))
    return out


def varied(case: QualityCase, seed: int) -> QualityCase:
    """A clean copy: noise, other ends of the scan, another size of voxels, masks a voxel larger or smaller."""
    from scipy import ndimage

    dice = random.Random(f"{case.series_instance_uid} {seed}")
    assert case.ct is not None
    low, high = dice.randint(0, 4), case.shape[0] - dice.randint(0, 4)
    noise = np.random.default_rng(seed).normal(0, dice.uniform(0, 25), case.ct[low:high].shape).astype(np.int16)
    factor = dice.uniform(0.95, 1.05)
    spacing = (case.spacing[0] * factor, case.spacing[1] * factor, case.spacing[2] * factor)
    grow = dice.choice((ndimage.binary_dilation, ndimage.binary_erosion, None))
    cross = ndimage.generate_binary_structure(2, 1)[None]
    masks = {}
    for name, organ in case.organs.items():
        whole = np.zeros(case.shape, bool)
        crop = np.pad(organ.mask, ((0, 0), (1, 1), (1, 1)))
        z, y, x = organ.box
        whole[z, y.start - 1 : y.stop + 1, x.start - 1 : x.stop + 1] = crop if grow is None else grow(crop, cross)
        masks[name] = whole[low:high]
    copy = _case(f"{case.series_instance_uid}, copy {seed}", case.ct[low:high] + noise, spacing)
    return with_masks(copy, masks)


# ---------------------------------------------------------------- faults


def _moved(mask: NDArray[np.bool_], steps_: Sequence[int]) -> NDArray[np.bool_]:
    """A mask moved by voxels; what leaves the volume is lost."""
    out = np.zeros_like(mask)
    target, source = [], []
    for step, size in zip(steps_, mask.shape, strict=True):
        target.append(slice(max(step, 0), size + min(step, 0)))
        source.append(slice(max(-step, 0), size - max(step, 0)))
    out[tuple(target)] = mask[tuple(source)]
    return out


def _choose(masks: Masks, dice: random.Random, names: Sequence[str] = ()) -> str:
    return dice.choice([name for name in sorted(masks) if not names or name in names])


def shift(masks: Masks, case: QualityCase, dice: random.Random, _: Masks) -> Masks:
    axis, sign = dice.randrange(3), dice.choice((-1, 1))
    steps_ = [0, 0, 0]
    steps_[axis] = sign * round(30 / case.spacing[axis])
    return {name: _moved(mask, steps_) for name, mask in masks.items()}


def flip(masks: Masks, _: QualityCase, dice: random.Random, __: Masks) -> Masks:
    axis = dice.randrange(3)
    return {name: np.flip(mask, axis) for name, mask in masks.items()}


def swap(masks: Masks, _: QualityCase, dice: random.Random, __: Masks) -> Masks:
    first, second = dice.sample(sorted(masks), 2)
    return masks | {first: masks[second], second: masks[first]}


def half(masks: Masks, _: QualityCase, dice: random.Random, __: Masks) -> Masks:
    name, axis, side = _choose(masks, dice), dice.randrange(3), dice.choice((0, 1))
    mask = np.moveaxis(masks[name].copy(), axis, 0)
    sums = np.cumsum(mask.sum(axis=(1, 2)))
    middle = int(np.searchsorted(sums, sums[-1] / 2)) + 1
    mask[middle:] &= side == 0
    mask[:middle] &= side == 1
    return masks | {name: np.moveaxis(mask, 0, axis)}


def island(masks: Masks, case: QualityCase, dice: random.Random, _: Masks) -> Masks:
    """A ball of 1 to 10 mL, 20 mm or more from the organ."""
    from scipy import ndimage

    name, volume = _choose(masks, dice), dice.uniform(1, 10)
    radius = (volume * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    z, y, x = np.ogrid[tuple(slice(0, n) for n in case.shape)]
    for _try in range(200):
        centre = [dice.uniform(radius, n * s - radius) for n, s in zip(case.shape, case.spacing, strict=True)]
        place = [c / s for c, s in zip(centre, case.spacing, strict=True)]
        reach = [(20 + radius) / s for s in case.spacing]
        box = tuple(slice(max(0, int(p - r)), int(p + r) + 2) for p, r in zip(place, reach, strict=True))
        if masks[name][box].any():
            continue
        squares = [((a - p) * s) ** 2 for a, p, s in zip((z, y, x), place, case.spacing, strict=True)]
        return masks | {name: masks[name] | (squares[0] + squares[1] + squares[2] <= radius**2)}
    return masks | {name: ndimage.binary_dilation(masks[name], iterations=9)}


def empty(masks: Masks, _: QualityCase, dice: random.Random, __: Masks) -> Masks:
    name = _choose(masks, dice)
    return masks | {name: np.zeros_like(masks[name])}


def wrong_series(masks: Masks, case: QualityCase, _: random.Random, other: Masks) -> Masks:
    out = {}
    for name in masks:
        source = other.get(name, next(iter(other.values())) & False)
        out[name] = np.zeros(case.shape, bool)
        part = tuple(slice(0, min(a, b)) for a, b in zip(case.shape, source.shape, strict=True))
        out[name][part] = source[part]
    return out


def one_slice_off(masks: Masks, _: QualityCase, dice: random.Random, __: Masks) -> Masks:
    step = dice.choice((-1, 1))
    return {name: _moved(mask, (step, 0, 0)) for name, mask in masks.items()}


def wrong_side(masks: Masks, _: QualityCase, dice: random.Random, __: Masks) -> Masks:
    name = _choose(masks, dice, ("lung_left", "lung_right", "heart"))
    return masks | {name: np.flip(masks[name], 2)}


def other_labels(masks: Masks, _: QualityCase, dice: random.Random, __: Masks) -> Masks:
    """The names of another model's labels: every organ has the mask of another one."""
    names = sorted(masks)
    step = dice.randrange(1, len(names))
    return {name: masks[names[(n + step) % len(names)]] for n, name in enumerate(names)}


FAULTS: Mapping[str, Fault] = {
    "all masks 30 mm off along one axis": shift,
    "all masks flipped along one axis": flip,
    "labels of two organs exchanged": swap,
    "half of an organ": half,
    "island of 1 to 10 mL": island,
    "empty mask": empty,
    "masks of another series": wrong_series,
    "all masks one slice off": one_slice_off,
    "organ on the wrong side": wrong_side,
    "another model's labels": other_labels,
}


# ---------------------------------------------------------------- judging


@dataclass(frozen=True)
class Judged:
    """Score of one case; the fault is empty for a clean one."""

    group: str
    fault: str
    name: str
    score: float
    first: str
    """Its gravest finding."""


def judge(case: QualityCase, group: str, fault: str = "") -> Judged:
    found = run_checks(case, load_limits())
    first = next((f"{f.check}: {f.sentence}" for f in found if f.weight > 0), "")
    return Judged(group, fault, case.series_instance_uid, score_of(found), first)


def planted(case: QualityCase, group: str, other: QualityCase, seed: int, count: int = 1) -> Iterator[Judged]:
    """One case for each fault."""
    for kind, fault in FAULTS.items():
        for number in range(count):
            dice = random.Random(f"{case.series_instance_uid} {kind} {seed} {number}")
            masks = fault(masks_of(case), case, dice, masks_of(other))
            yield judge(with_masks(case, masks), group, kind)


def judge_phantoms(first: int, clean: int, faulty: int) -> list[Judged]:
    out: list[Judged] = []
    before = phantom_case(first - 1)
    for seed in range(first, first + clean):
        case = phantom_case(seed)
        out.append(judge(case, "phantoms"))
        if seed < first + faulty:
            out += planted(case, "phantoms", before, seed)
        before = case
    return out


def judge_real(cases: Sequence[QualityCase]) -> list[Judged]:
    out: list[Judged] = []
    for number, case in enumerate(cases):
        copies = [case, *(varied(case, seed) for seed in range(1, COPIES))]
        group = "LUNG1-002 (development)" if case.series_instance_uid in DEVELOPMENT else "LUNG1-001, -005"
        out += [judge(copy, group) for copy in copies]
        out += planted(case, group, cases[number - 1], 0, FAULTS_OF_REAL)
    return out


def recall_in_mixes(judged: Sequence[Judged], seed: int = 19) -> dict[str, float]:
    """Share of each fault in the first tenth of lists with one faulty case to twenty clean ones, over many draws."""
    clean = [j for j in judged if not j.fault]
    faulty = [j for j in judged if j.fault]
    hits: dict[str, list[bool]] = defaultdict(list)
    dice = random.Random(seed)
    count = max(1, len(clean) // 20)
    for _ in range(MIXES):
        mix = [*clean, *dice.sample(faulty, count)]
        dice.shuffle(mix)  # equal scores are in no order
        mix.sort(key=lambda j: -j.score)
        top = mix[: max(1, len(mix) // 10)]
        for j in mix:
            if j.fault:
                hits[j.fault].append(any(j is t for t in top))
                hits["all"].append(hits[j.fault][-1])
    return {fault: float(np.mean(found)) for fault, found in hits.items()}


def table(judged: Sequence[Judged]) -> str:
    """The table of the documentation."""
    groups = list(dict.fromkeys(j.group for j in judged))
    recalls = {group: recall_in_mixes([j for j in judged if j.group == group]) for group in groups}
    head = "".join(f" | {group}: cases | found | recall in the first tenth" for group in groups)
    lines = [f"| planted fault{head} |", "|---" * (1 + 3 * len(groups)) + "|"]
    for fault in (*FAULTS, "all"):
        cells = []
        for group in groups:
            mine = [j for j in judged if j.group == group and (j.fault == fault or (fault == "all" and j.fault))]
            found = sum(j.score > 0 for j in mine)
            cells.append(f"{len(mine)} | {found} | {recalls[group].get(fault, 0.0):.3f}")
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    clean = []
    for group in groups:
        mine = [j for j in judged if j.group == group and not j.fault]
        alarms = sum(j.score > 0 for j in mine)
        clean.append(f"{len(mine)} | {alarms} ({alarms / len(mine):.1%}) | ")
    lines.append(f"| none: false alarms | {' | '.join(clean)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--development", action="store_true", help="phantoms of the seeds on which limits were set")
    parser.add_argument("--quick", action="store_true", help="sixty phantoms, no real series")
    parser.add_argument("--write", type=Path, help="page with the marks of the table")
    parser.add_argument("--missed", action="store_true", help="list faults without a finding, and false alarms")
    given = parser.parse_args()
    if given.development:
        judged = judge_phantoms(1001, 39, 12)
    elif given.quick:
        judged = judge_phantoms(1, 60, 3)
    else:
        judged = judge_phantoms(1, CLEAN_PHANTOMS, FAULTY_PHANTOMS)
        if os.environ.get("CTENRICH_TEST_DATA"):
            with tempfile.TemporaryDirectory() as folder:
                judged += judge_real(real_cases(Path(folder)))
    text = table(judged)
    print(text)
    if given.missed:
        for j in judged:
            if bool(j.fault) != (j.score > 0):
                print(f"{j.group}, {j.name}: {j.fault or 'clean'}: {j.first or 'nothing found'}")
    if given.write:
        page = given.write.read_text("utf-8")
        before, _, rest = page.partition(START)
        _, _, after = rest.partition(END)
        given.write.write_text(f"{before}{START}\n{text}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
