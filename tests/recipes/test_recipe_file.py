"""Recipes as TOML files: those of the package, those of users, and files that are wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ctenrich.errors import UsageError
from ctenrich.recipes.recipe import Crop, Recipe, recipe_sha256, restrict_to
from ctenrich.recipes.recipe_file import read_recipes
from ctenrich.recipes.totalsegmentator import TaskOptions, task_book, task_recipe

OWN = """
format = 1
family = "ours"
version = "3"
[weights.organs]
folder = "Dataset042_Organs"
[weights.vessels]
folder = "Dataset043_Vessels"
folds = [0, 1]
[recipes.chest]
labels = { heart = 1, aorta = 2 }
spacing = [1.5, 1.5, 2]
axes = "LPS"
step = 0.6
[[recipes.chest.parts]]
weights = "organs"
labels = { heart = 4 }
[[recipes.chest.parts]]
weights = "vessels"
labels = { aorta = 1 }
mirror = true
"""


def own(tmp_path: Path, text: str = OWN) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return path


def test_a_recipe_of_a_user_is_read(tmp_path: Path) -> None:
    recipe = read_recipes(own(tmp_path)).find("chest")
    assert (recipe.family, recipe.version, recipe.axes, recipe.spacing) == ("ours", "3", "LPS", (1.5, 1.5, 2.0))
    organs, vessels = recipe.parts
    assert (organs.labels, organs.step, organs.mirror, organs.weights.folds) == ({4: 1}, 0.6, False, ("0",))
    assert (vessels.labels, vessels.mirror, vessels.weights.folds) == ({1: 2}, True, ("0", "1"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", "format 2 is not known"),
        ("format = 1", "format = ", "it is not TOML"),
        ('family = "ours"', "", "family is missing"),
        ("step = 0.6", "stride = 0.6", "no key 'stride'.*did you mean step"),
        ("step = 0.6", "step = 0", "step 0 is not between 0 and 1"),
        ('axes = "LPS"', 'axes = "XYZ"', "not three directions"),
        ("[1.5, 1.5, 2]", "[1.5, 1.5]", "spacing .* is not a number of mm"),
        ('weights = "organs"', 'weights = "organ"', "no weights 'organ'.*did you mean organs"),
        ("{ heart = 4 }", "{ liver = 4 }", "no class 'liver'"),
        ("{ heart = 1, aorta = 2 }", "{ heart = 1, aorta = 1 }", "labels are not different numbers"),
        ("step = 0.6", 'crop = { recipe = "chest", classes = ["heart"] }', "chest need each other"),
        ("step = 0.6", 'split = "often"', "'often' is not one of never, large, always"),
        ("step = 0.6", 'after = [{ rule = "erode" }]', "'erode' is not one of"),
        ("{ heart = 4 }", "{ heart = 0 }", "labels are not different numbers from 1.*0 is the background"),
        ("{ heart = 4 }", "{ heart = 4, aorta = 4 }", "labels are not different numbers"),
        ("{ heart = 4 }", '{ heart = "4" }', "labels are not different numbers"),
        ("{ heart = 1, aorta = 2 }", "{ heart = true, aorta = 2 }", "labels are not different numbers"),
        ("mirror = true", 'mirror = "false"', "mirror 'false' is not true or false"),
        ("folds = [0, 1]", "folds = 0", "folds 0 are not a list of folds"),
        ("folds = [0, 1]", "plans = 8", "plans is not a text"),
        ("step = 0.6", 'keep = "heart"', "keep is not a list of classes"),
        ("step = 0.6", 'rules = [{ rule = "small_components", classes = ["heart"], amount = "9" }]', "amount '9'"),
        ("step = 0.6", 'rules = [{ rule = "largest_component" }]', "the classes of largest_component are not"),
        ("step = 0.6", 'rules = [{ rule = "relabel_vertebrae", classes = ["heart"] }]', "the first and the last"),
        ("step = 0.6", 'after = [{ rule = "inside", classes = ["heart"] }]', "inside needs a recipe"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in OWN
    with pytest.raises(UsageError, match=message) as raised:
        read_recipes(own(tmp_path, OWN.replace(old, new)))
    assert raised.value.message.startswith("own.toml")


def test_a_file_that_is_missing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="NOT_FOUND"):
        read_recipes(tmp_path / "none.toml")


# ---------------------------------------------------------------- TotalSegmentator


def test_numbers_of_totalsegmentator() -> None:
    """Against the published table: data sets, spacings, crops, and the margin in effect."""
    book = task_book("2.18")
    total = book.find("total")
    assert [p.weights.name for p in total.parts] == ["291", "292", "293", "294", "295"]
    assert {p.step for p in total.parts} == {0.8}
    assert not any(p.mirror for recipe in book.recipes.values() for p in recipe.all_parts)
    assert sorted(v for p in total.parts for v in p.labels.values()) == list(range(1, 118))
    assert total.parts[3].labels[23] == total.labels["skull"] == 91
    spacings = {name: book.find(name).spacing for name in ("total-fast", "total-fastest", "body-fast", "liver_vessels")}
    assert spacings == {
        "total-fast": (3.0,) * 3, "total-fastest": (6.0,) * 3, "body-fast": (6.0,) * 3, "liver_vessels": None
    }  # fmt: skip
    teeth = book.find("teeth").crop
    assert teeth is not None
    assert (teeth.rough.name, teeth.margin) == ("craniofacial_structures", 10)
    assert {r.crop.margin for n, r in book.recipes.items() if r.crop is not None and n != "teeth"} == {20}
    assert book.find("kidney_cysts").parts[0].labels == {1: 1, 2: 2, 3: 0, 4: 0}
    pleural, robust = book.find("pleural_pericard_effusion"), book.find("heartchambers_highres")
    assert pleural.parts[0].weights.folds == ()
    assert [p.weights.name for p in robust.all_parts] == ["297", "301"]


def test_every_open_weights_have_an_address_and_every_other_has_none() -> None:
    weights = {p.weights.name: p.weights for r in task_book("2.18").recipes.values() for p in r.all_parts}
    for item in weights.values():
        if item.licence == "Apache-2.0":
            assert item.url.endswith(f"-weights/{item.folder}.zip")
        else:
            assert item.licence.startswith("key, ")
            assert item.url == ""


@pytest.mark.parametrize(
    ("task", "mode", "options", "message"),
    [
        ("totl", None, {}, "no recipe 'totl'.*did you mean total"),
        ("total", "quick", {}, "no mode 'quick'.*fast and fastest"),
        ("breasts", "fast", {}, "one resolution only"),
        ("total", None, {"roi": ("livr",)}, "no class 'livr'.*did you mean liver"),
        ("total_v3", None, {"roi": ("vertebrae_L6",)}, "total-fastest .* has no class 'vertebrae_L6'"),
        ("body", None, {"roi": ("body_trunc",)}, "roi is not possible with body"),
        ("body", None, {"robust_crop": True}, "has no crop"),
        ("total", None, {"version": "2.0"}, "2.0 are not known.*2.18"),
    ],
)
def test_what_does_not_exist_is_refused(task: str, mode: str | None, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=f"BAD_PARAMETER.*{message}"):
        task_recipe(task, mode, TaskOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["total_mr", "brain_aneurysm"])
def test_tasks_for_mr_are_named_as_such(task: str) -> None:
    with pytest.raises(UsageError, match=f"WRONG_MODALITY: {task} of TotalSegmentator segments MR"):
        task_recipe(task, None, TaskOptions())


def test_a_roi_takes_the_parts_that_it_needs() -> None:
    name, recipe = task_recipe("total", None, TaskOptions(roi=("spleen", "liver", "liver")))
    assert name == "total-roi-liver-spleen"
    assert [p.weights.name for p in recipe.parts] == ["291"]
    assert recipe.kept == {"spleen": 1, "liver": 5}
    assert recipe.crop is not None
    assert (recipe.crop.rough.name, recipe.crop.margin) == ("total-fastest", 20)
    _, robust = task_recipe("total", "fast", TaskOptions(roi=("liver",), robust_crop=True))
    assert robust.crop is not None
    assert robust.crop.rough.name == "total-fast"


def test_a_task_without_fastest_takes_its_fast() -> None:
    assert task_recipe("body", "fastest", TaskOptions())[0] == "body-fast"


def test_names_of_products_differ_and_stay_short() -> None:
    many = tuple(task_book("2.18").find("total").labels)
    chosen = [{}, {"roi": many[:4]}, {"roi": many[:9]}, {"roi": many[:10]}, {"split": True}, {"small": 200.0}]
    names = [task_recipe("total", None, TaskOptions(**o))[0] for o in chosen]  # type: ignore[arg-type]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 60


# ---------------------------------------------------------------- hash


def test_the_hash_holds_what_decides_the_answer(tmp_path: Path) -> None:
    recipe = read_recipes(own(tmp_path)).find("chest")
    organs, vessels = recipe.parts
    rough = Crop(rough=replace(recipe, name="rough"), classes=("heart",), margin=20)
    changed: list[Recipe] = [
        replace(recipe, spacing=(1.5, 1.5, 1.5)),
        replace(recipe, axes="RAS"),
        replace(recipe, version="4"),
        replace(recipe, parts=(vessels, organs)),
        replace(recipe, parts=(replace(organs, step=0.5), vessels)),
        replace(recipe, parts=(replace(organs, weights=replace(organs.weights, folds=("1",))), vessels)),
        replace(recipe, crop=rough),
        replace(recipe, crop=replace(rough, margin=21)),
        restrict_to(recipe, ("heart",), rough),
    ]
    digests = {recipe_sha256(recipe), *map(recipe_sha256, changed)}
    assert len(digests) == len(changed) + 1
    elsewhere = replace(organs, weights=replace(organs.weights, url="https://example.org/x.zip", licence="MIT"))
    assert recipe_sha256(replace(recipe, parts=(elsewhere, vessels), citation="X")) == recipe_sha256(recipe)
