"""Write docs/columns.md from the result tables' schema, the pages below docs/api, and the index of the decisions.

python scripts/write_docs_pages.py
"""

from __future__ import annotations

from pathlib import Path

from ctenrich.results.schema import LATER_TABLES, OBJECT_TABLES, RUN_TABLES, STRICT_TABLES, columns

DOCS = Path(__file__).resolve().parents[1] / "docs"
INTERFACE = {
    "steps": ("Stage by stage", ["steps"]),
    "records": ("Records and their files", ["records", "series_store", "workspace"]),
    "errors": ("Errors, reasons, settings", ["errors", "reasons", "settings"]),
    "select": (
        "Catalogs and selection",
        ["catalog.base", "catalog.queries", "catalog.folder", "catalog.idc_index", "catalog.parquet",
         "catalog.bigquery", "select.selection", "select.files", "select.cohort_file", "select.sizes",
         "select.series_list", "select.sources", "select.compare", "select.consort"],
    ),
    "volumes": (
        "From files to a volume",
        ["storage.base", "stages.stage", "stages.table", "stages.fetch", "stages.sort", "stages.convert", "geometry",
         "dicom.series"],
    ),
    "models": (
        "Models and segmenters",
        ["inference.segmenter", "inference.kinds", "inference.products", "inference.registry", "models.library",
         "models.parity", "nnunet.plans", "nnunet.segmenter", "recipes.recipe", "recipes.recipe_file",
         "recipes.totalsegmentator", "recipes.executor", "recipes.segmenter", "inference.segmentation",
         "networks.lungmask", "contours.rtstruct", "contours.raster", "contours.expert"],
    ),
    "bodypart": (
        "Body part regression",
        ["bodypart.scorer", "bodypart.landmarks", "bodypart.regions", "bodypart.crop_hint", "bodypart.plausibility",
         "bodypart.bpreg_json"],
    ),
    "measure": (
        "Measurements and comparison",
        ["shape.measure", "shape.features", "masks", "evaluate.overlap", "evaluate.products",
         "evaluate.other_segs", "evaluate.landmarks", "evaluate.lungs", "evaluate.metrics", "evaluate.mask_sources",
         "evaluate.evaluation", "evaluate.statistics", "evaluate.published"],
    ),
    "objects": (
        "DICOM objects",
        ["codes.mappings", "codes.tasks", "codes.describe", "codes.lint", "uids", "objects.kinds", "encode.seg",
         "encode.shape_sr", "encode.landmarks_sr", "encode.regions_sr", "dicom.seg", "dicom.sr", "proof", "validate"],
    ),
    "runner": (
        "Running a cohort",
        ["runner.run", "runner.products", "runner.runner", "runner.job", "runner.executors", "runner.status",
         "runner.forecast", "runner.object_check", "ledger.reader", "ledger.rows"],
    ),
    "results": (
        "Results",
        ["results.tables", "results.query", "results.remote", "results.anatomy", "report.build", "view.server",
         "publish.objects", "publish.bigquery", "publish.export", "notebook"],
    ),
    "phantoms": ("Phantoms and the demo", ["phantom.options", "phantom.volume", "phantom.study", "demo"]),
}  # fmt: skip
AREAS = {
    0: "Records, stages, running, packages", 1: "Phantoms and demonstration models", 2: "Catalogs and selection",
    3: "Fetch, sort, convert", 4: "Weights and inference", 5: "Body part regression", 6: "DICOM objects",
    7: "Measurements and contours", 8: "Tables, report, viewer", 9: "Publishing",
}  # fmt: skip
DECISIONS = """# Decisions

One short page for each decision: its context, the choice, its consequence and measurements where numbers
decided. A new decision takes the next free number of its area; `scripts/write_docs_pages.py` adds it to this page.
"""
TYPES = {
    "string": "text", "strings": "list of text", "int": "integer", "ints": "list of integers", "float": "double",
    "bool": "true or false", "timestamp": "time (UTC)", "numeric": "decimal, 9 places",
    "code3": "record: CodeValue, CodingSchemeDesignator, CodeMeaning", "code4": "the same and CodingSchemeVersion",
    "property": "code and its two lists of modifiers", "content": "nested content items",
}  # fmt: skip
HEAD = """# Tables column by column

Written by `scripts/write_docs_pages.py` from the schema in the code. [Tables](tables.md) explains the rows. A column
marked *IDC* has the name, place and type of IDC's own table; `strict_NAME` holds these columns only.
`dicom_metadata` has no fixed columns: they are the attributes that the objects have, described in the file itself.
"""


def columns_page() -> str:
    """Text of docs/columns.md."""
    parts = [HEAD]
    for name in (*OBJECT_TABLES, *RUN_TABLES, *LATER_TABLES):
        parts.append(f"\n## {name}\n\n| column | type | IDC | meaning |\n|---|---|---|---|\n")
        for column in columns(name):
            mark = "yes" if column.strict and name in STRICT_TABLES else ""
            parts.append(f"| `{column.name}` | {TYPES[column.type]} | {mark} | {column.text} |\n")
    return "".join(parts)


def interface_page(title: str, modules: list[str]) -> str:
    """Text of a page below docs/api."""
    return f"# {title}\n" + "".join(
        f"\n::: ctenrich.{module}\n    options:\n      heading_level: 2\n" for module in modules
    )


def decision_title(page: Path) -> str:
    """Title of a decision: its first line without the number."""
    return page.read_text("utf-8").split("\n", 1)[0].split(": ", 1)[1]


def decisions_page() -> str:
    """Text of docs/decisions/index.md: the decisions by area, in the order of their numbers."""
    parts = [DECISIONS]
    found = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    for area, title in AREAS.items():
        parts.append(f"\n## {title}\n\n")
        parts += [f"- [{p.name[:4]}]({p.name}): {decision_title(p)}\n" for p in found if int(p.name[:4]) // 10 == area]
    return "".join(parts)


def pages() -> dict[Path, str]:
    """Every page that is written: path -> text."""
    found = {DOCS / "columns.md": columns_page(), DOCS / "decisions" / "index.md": decisions_page()}
    found |= {DOCS / "api" / f"{name}.md": interface_page(*page) for name, page in INTERFACE.items()}
    return found


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
