"""Recipes in TOML files: those of the package and those of users, in one format."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, TypeGuard, TypeVar

from ctenrich.codes.tasks import task_classes, task_parts
from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason
from ctenrich.recipes.recipe import (
    SPLIT_VOXELS,
    Crop,
    Part,
    Recipe,
    Resampling,
    Rule,
    RuleName,
    Split,
    Weights,
)

__all__ = ["FORMAT", "RecipeBook", "read_recipes"]

E = TypeVar("E", bound=StrEnum)

FORMAT = 1
"""Version of the file format."""
_MAX_BYTES = 4 * 1024**2
_TOP = {"format", "family", "version", "citation", "source", "weights", "recipes"}
_WEIGHTS = {"folder", "trainer", "plans", "configuration", "folds", "url", "licence", "version", "own_names"}
_RECIPE = {
    *("task", "labels", "parts", "axes", "spacing", "resampling", "step", "mirror", "split", "split_voxels"),
    *("crop", "roi", "rules", "after", "keep"),
}
_PART = {"weights", "labels", "step", "mirror"}
_CROP = {"recipe", "robust", "classes", "margin", "slices_only", "uncropped"}
_RULE = {"rule", "classes", "amount", "recipe"}
_OF_OTHERS = frozenset({RuleName.INSIDE, RuleName.BAND, RuleName.REFINE_VERTEBRAE})
"""Rules by the classes of another recipe."""


@dataclass(frozen=True, kw_only=True)
class RecipeBook:
    """The recipes of one file."""

    family: str
    version: str
    recipes: Mapping[str, Recipe]
    roi: Mapping[str, Crop | None]
    """Recipe -> the crop with which it is restricted to some classes, without classes; None: it is not cropped."""
    robust: Mapping[str, Recipe]
    """Rough recipe of a crop (by name) -> the finer one that takes its place on request."""

    def find(self, name: str) -> Recipe:
        """Return a recipe by its name.

        Raises
        ------
        UsageError
            BAD_PARAMETER, with the names that are alike.
        """
        if name not in self.recipes:
            known = ", ".join(self.recipes)
            hint = did_you_mean(name, self.recipes, f"it has: {known[:400]}")
            raise UsageError(Reason.BAD_PARAMETER, f"{self.family} {self.version} has no recipe {name!r}", hint)
        return self.recipes[name]

    def with_robust_crop(self, crop: Crop) -> Crop:
        """Return a crop with the finer rough recipe, where the file names one."""
        return replace(crop, rough=self.robust.get(crop.rough.name, crop.rough))


def read_recipes(path: Path) -> RecipeBook:
    """Read a file of recipes.

    Parameters
    ----------
    path : Path
        TOML, see docs/totalsegmentator.md.

    Returns
    -------
    RecipeBook

    Raises
    ------
    UsageError
        NOT_FOUND if there is no such file; BAD_SETTINGS, naming the place, if it is not a file of recipes.
    """
    if not path.is_file():
        raise UsageError(Reason.NOT_FOUND, f"there is no recipe file {path.name}")
    if path.stat().st_size > _MAX_BYTES:
        _refuse(path.name, "it is too large")
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(path.name, f"it is not TOML: {str(error)[:100]}")
    return _Reader(path.name, data).book()


def _refuse(place: str, problem: str, hint: str = "") -> NoReturn:
    raise UsageError(Reason.BAD_SETTINGS, f"{place}: {problem}", hint)


class _Reader:
    """Makes the records of one file; recipes that name each other are resolved first."""

    def __init__(self, file: str, data: Mapping[str, Any]) -> None:
        self.file = file
        self.data = _table(data, _TOP, file)
        if data.get("format") != FORMAT:
            _refuse(file, f"format {data.get('format')!r} is not known", f"this version reads format = {FORMAT}")
        self.family = _text(data, "family", file)
        self.version = _text(data, "version", file)
        self.weights = {name: self._weights(name, row) for name, row in self._rows("weights").items()}
        self.made: dict[str, Recipe] = {}
        self.making: list[str] = []
        self.robust: dict[str, Recipe] = {}

    def book(self) -> RecipeBook:
        rows = self._rows("recipes")
        if not rows:
            _refuse(self.file, "it has no recipe")
        recipes = {name: self.recipe(name, self.file) for name in rows}
        roi = {name: self._roi(name, row["roi"]) for name, row in rows.items() if "roi" in row}
        return RecipeBook(family=self.family, version=self.version, recipes=recipes, roi=roi, robust=self.robust)

    def _roi(self, name: str, row: Any) -> Crop | None:
        """How a recipe is restricted to some classes: by a crop, or (an empty table) by its parts alone."""
        return self._crop(f"{name}.roi", row, ()) if row else None

    def _rows(self, key: str) -> Mapping[str, Mapping[str, Any]]:
        rows = self.data.get(key, {})
        if not isinstance(rows, Mapping) or not all(isinstance(row, Mapping) for row in rows.values()):
            _refuse(self.file, f"{key} is not a table of tables")
        return rows

    def _weights(self, name: str, row: Mapping[str, Any]) -> Weights:
        place = f"{self.file}: weights.{name}"
        values = dict(_table(row, _WEIGHTS, place))
        _text(values, "folder", place)
        for key in _WEIGHTS - {"folds", "version", "own_names"}:
            if not isinstance(values.get(key, ""), str):
                _refuse(place, f"{key} is not a text")
        if "folds" in values:
            folds = values["folds"]
            if not isinstance(folds, list) or not all(str(fold).isdigit() or fold == "all" for fold in folds):
                _refuse(place, f"folds {folds!r} are not a list of folds", 'such as [0, 1] or ["all"]')
            values["folds"] = tuple(str(fold) for fold in folds)
        values["own_names"] = _switch(values, "own_names", place)
        if values.get("version", 2) not in (1, 2):
            _refuse(place, f"version {values['version']!r} is not a version of nnU-Net", "1 or 2")
        return Weights(name=name, **values)

    def recipe(self, name: str, place: str) -> Recipe:
        if name in self.making:
            _refuse(place, f"the recipes {' and '.join(self.making)} need each other")
        if name not in self.made:
            rows = self._rows("recipes")
            if name not in rows:
                _refuse(place, f"there is no recipe {name!r}")
            self.making.append(name)
            self.made[name] = self._recipe(name, rows[name])
            self.making.pop()
        return self.made[name]

    def _recipe(self, name: str, row: Mapping[str, Any]) -> Recipe:
        place = f"{self.file}: recipes.{name}"
        _table(row, _RECIPE, place)
        labels, segments, removed = _labels(row, place)
        parts = self._parts(row, labels, removed, place)
        crop = row.get("crop")
        if crop is not None and not _names(_table(crop, _CROP, f"{place}.crop"), "classes", place):
            _refuse(f"{place}.crop", "classes is missing")
        return Recipe(
            name=name,
            family=self.family,
            version=self.version,
            labels=labels,
            segments=segments,
            parts=parts,
            axes=_axes(row.get("axes", "RAS"), place),
            spacing=_spacing(row.get("spacing"), place),
            resampling=_choice(Resampling, row.get("resampling", "linear"), f"{place}.resampling"),
            crop=None if crop is None else self._crop(f"{name}.crop", crop, _names(crop, "classes", place)),
            split=_choice(Split, row.get("split", "never"), f"{place}.split"),
            split_voxels=_count(row.get("split_voxels", SPLIT_VOXELS), f"{place}.split_voxels"),
            rules=self._rules(row.get("rules", ()), labels, f"{place}.rules"),
            after=self._rules(row.get("after", ()), labels, f"{place}.after"),
            keep=_known(_names(row, "keep", place), labels, f"{place}.keep"),
            citation=str(self.data.get("citation", "")),
            source=str(self.data.get("source", "")),
        )

    def _parts(
        self, row: Mapping[str, Any], labels: Mapping[str, int], removed: frozenset[int], place: str
    ) -> tuple[Part, ...]:
        rows = row.get("parts", ())
        if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
            _refuse(place, "parts names no network")
        tables = task_parts(str(row["task"])) if "task" in row else {}
        defaults = {"step": row.get("step", 0.5), "mirror": row.get("mirror", False)}
        out = []
        for n, given in enumerate(rows):
            where = f"{place}.parts[{n}]"
            part = dict(_table(given if isinstance(given, Mapping) else {"weights": given}, _PART, where))
            name = _text(part, "weights", where)
            if name not in self.weights:
                _refuse(where, f"there are no weights {name!r}", did_you_mean(name, self.weights))
            table = self._part_labels(part.get("labels"), tables, name, labels, where)
            table = table or {value: 0 if value in removed else value for value in (*labels.values(), *removed)}
            chosen = defaults | part
            step, mirror = _step(chosen["step"], where), _switch(chosen, "mirror", where)
            weights = _with_class_names(self.weights[name], table, labels)
            out.append(Part(weights=weights, labels=table, step=step, mirror=mirror))
        return tuple(out)

    @staticmethod
    def _part_labels(
        given: object,
        tables: Mapping[int, Mapping[int, int]],
        name: str,
        labels: Mapping[str, int],
        place: str,
    ) -> dict[int, int]:
        """Label table of a part: its own, or that of the task's networks; empty: the numbers are the answer's."""
        if given is not None:
            if not isinstance(given, Mapping):
                _refuse(place, "labels is not a table of class and number")
            unknown = [key for key in given if key not in labels]
            if unknown:
                _refuse(place, f"the recipe has no class {unknown[0]!r}")
            if not given or not _are_label_numbers(given.values()):
                _refuse(place, "labels are not different numbers from 1", "0 is the background of the network")
            return {value: labels[key] for key, value in given.items()}
        number = name.split("-", maxsplit=1)[0]  # 831-small has the labels of 831
        return dict(tables.get(int(number), {})) if number.isdigit() else {}

    def _crop(self, name: str, row: Mapping[str, Any], classes: tuple[str, ...]) -> Crop:
        place = f"{self.file}: recipes.{name}"
        _table(row, _CROP, place)
        rough = self.recipe(_text(row, "recipe", place), place)
        if "robust" in row:
            self.robust[rough.name] = self.recipe(str(row["robust"]), place)
        margin = row.get("margin", 0)
        if not _is_number(margin) or not 0 <= margin <= 1000:
            _refuse(place, f"margin {margin!r} is not a number of mm")
        return Crop(
            rough=rough,
            classes=_known(classes, rough.labels, place),
            margin=float(margin),
            slices_only=_switch(row, "slices_only", place),
            uncropped=_switch(row, "uncropped", place),
        )

    def _rules(self, rows: Any, labels: Mapping[str, int], place: str) -> tuple[Rule, ...]:
        out = []
        if not isinstance(rows, Sequence) or isinstance(rows, str):
            _refuse(place, "it is not a list of rules")
        for row in rows:
            _table(row, _RULE, place)
            other = self.recipe(str(row["recipe"]), place) if "recipe" in row else None
            classes = _known(_names(row, "classes", place), other.labels if other is not None else labels, place)
            name = _choice(RuleName, row.get("rule"), place)
            amount = row.get("amount", 0)
            if not _is_number(amount) or not 0 <= amount <= 1e9:
                _refuse(place, f"amount {amount!r} is not a number of mm or mm3")
            if len(classes) != 2 if name is RuleName.RELABEL_VERTEBRAE else not classes:
                wanted = "the first and the last vertebra" if name is RuleName.RELABEL_VERTEBRAE else "classes"
                _refuse(place, f"the classes of {name.value} are not {wanted}")
            if (other is not None) != (name in _OF_OTHERS):
                _refuse(place, f"{name.value} {'needs a' if other is None else 'takes no'} recipe")
            out.append(Rule(name=name, classes=classes, amount=float(amount), other=other))
        return tuple(out)


def _with_class_names(weights: Weights, table: Mapping[int, int], labels: Mapping[str, int]) -> Weights:
    """Weights of nnU-Net v1 with the names of their classes, which their own files do not have."""
    if weights.version == 2:
        return weights
    names = {value: name for name, value in labels.items()}
    return replace(weights, class_names={names[made]: value for value, made in table.items() if made})


# ---------------------------------------------------------------- values


def _table(row: Any, known: set[str], place: str) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        _refuse(place, "it is not a table")
    for key in row:
        if key not in known:
            _refuse(place, f"there is no key {key!r}", did_you_mean(str(key), known))
    return row


def _text(row: Mapping[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        _refuse(place, f"{key} is missing")
    return value


def _names(row: Mapping[str, Any], key: str, place: str) -> tuple[str, ...]:
    value = row.get(key, ())
    if isinstance(value, str) or not isinstance(value, Sequence):
        _refuse(place, f"{key} is not a list of classes")
    return tuple(str(name) for name in value)


def _known(names: tuple[str, ...], labels: Mapping[str, int], place: str) -> tuple[str, ...]:
    for name in names:
        if name not in labels:
            _refuse(place, f"there is no class {name!r}", did_you_mean(name, labels))
    return names


def _choice(kind: type[E], value: object, place: str) -> E:
    try:
        return kind(str(value))
    except ValueError:
        _refuse(place, f"{value!r} is not one of {', '.join(kind)}")


def _step(value: object, place: str) -> float:
    if _is_number(value) and 0 < value <= 1:
        return float(value)
    _refuse(place, f"step {value!r} is not between 0 and 1")


def _count(value: object, place: str) -> int:
    if isinstance(value, int) and value > 0:
        return value
    _refuse(place, f"{value!r} is not a number of voxels")


def _axes(value: object, place: str) -> str:
    text = str(value)
    if len(text) == 3 and text[0] in "LR" and text[1] in "AP" and text[2] in "IS":
        return text
    _refuse(place, f"axes {text!r} are not three directions", "such as RAS, LAS or LPS")


def _spacing(value: object, place: str) -> tuple[float, float, float] | None:
    if value is None:
        return None
    numbers = [value] * 3 if isinstance(value, int | float) else value
    if isinstance(numbers, list) and len(numbers) == 3:
        x, y, z = numbers
        if all(isinstance(v, int | float) and 0.05 <= v <= 50 for v in numbers):
            return float(x), float(y), float(z)
    _refuse(place, f"spacing {value!r} is not a number of mm, or three (x, y, z)")


def _labels(row: Mapping[str, Any], place: str) -> tuple[dict[str, int], dict[str, str], frozenset[int]]:
    """Labels of the answer, their rows of segments.csv, and the values that are removed from the answer."""
    if "task" in row:
        classes = task_classes(str(row["task"]))
        wanted = [item for item in classes if not item.auxiliary]
        labels = {item.class_name: item.label for item in wanted}
        segments = {item.class_name: item.segment for item in wanted}
        return labels, segments, frozenset(item.label for item in classes if item.auxiliary)
    given = row.get("labels")
    if not isinstance(given, Mapping) or not given:
        _refuse(place, "labels is missing", "a table of class and number, or the task of a known label table")
    if not _are_label_numbers(given.values()):
        _refuse(place, "labels are not different numbers from 1")
    return {str(name): value for name, value in given.items()}, {}, frozenset()


def _are_label_numbers(given: Iterable[object]) -> bool:
    values = list(given)
    return all(type(v) is int and 0 < v < 65536 for v in values) and len(set(values)) == len(values)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _switch(row: Mapping[str, Any], key: str, place: str) -> bool:
    value = row.get(key, False)
    if not isinstance(value, bool):
        _refuse(place, f"{key} {value!r} is not true or false")
    return value
