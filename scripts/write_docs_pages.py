"""Write docs/columns.md from the result tables' schema, and a page for each part of the programming interface.

python scripts/write_docs_pages.py
"""

from __future__ import annotations

from pathlib import Path

from ctenrich.results.schema import OBJECT_TABLES, RUN_TABLES, STRICT_TABLES, columns

DOCS = Path(__file__).resolve().parents[1] / "docs"
INTERFACE = {
    "steps": ("Stage by stage", ["ctenrich.steps"]),
    "records": ("Records", ["ctenrich.records"]),
    "errors": ("Errors, reasons, settings", ["ctenrich.errors", "ctenrich.reasons", "ctenrich.settings"]),
    "select": (
        "Catalogs and selection",
        ["ctenrich.catalog.base", "ctenrich.catalog.queries", "ctenrich.catalog.folder", "ctenrich.catalog.bigquery",
         "ctenrich.select.selection"],
    ),
    "volumes": ("From files to a volume", [
        "ctenrich.stages.fetch", "ctenrich.stages.sort", "ctenrich.stages.convert", "ctenrich.geometry",
    ]),
    "models": (
        "Models",
        ["ctenrich.inference.segmenter", "ctenrich.nnunet.segmenter", "ctenrich.bodypart.scorer",
         "ctenrich.inference.registry",
         "ctenrich.contours.expert"],
    ),
    "measure": (
        "Measurements",
        ["ctenrich.shape.measure", "ctenrich.bodypart.landmarks", "ctenrich.bodypart.regions", "ctenrich.masks",
         "ctenrich.similarity", "ctenrich.evaluate.overlap", "ctenrich.evaluate.products",
         "ctenrich.evaluate.landmarks"],
    ),
    "objects": (
        "DICOM objects",
        ["ctenrich.encode.seg", "ctenrich.encode.shape_sr", "ctenrich.encode.landmarks_sr",
         "ctenrich.encode.regions_sr", "ctenrich.dicom.seg", "ctenrich.dicom.sr",
         "ctenrich.codes.mappings", "ctenrich.uids"],
    ),
    "results": (
        "Results",
        ["ctenrich.results.tables", "ctenrich.results.query", "ctenrich.results.remote", "ctenrich.results.anatomy",
         "ctenrich.publish.objects", "ctenrich.publish.bigquery", "ctenrich.report.build", "ctenrich.publish.export",
         "ctenrich.notebook"],
    ),
}  # fmt: skip
TYPES = {
    "string": "text", "strings": "list of text", "int": "integer", "ints": "list of integers", "float": "double",
    "bool": "true or false", "timestamp": "time (UTC)", "numeric": "decimal, 9 places",
    "code3": "record: CodeValue, CodingSchemeDesignator, CodeMeaning", "code4": "the same and CodingSchemeVersion",
    "property": "code and its two lists of modifiers", "content": "nested content items",
}  # fmt: skip
HEAD = """# Tables column by column

Written by `scripts/write_docs_pages.py` from the schema in the code. [Tables](tables.md) says what a row is. A column
marked *IDC* has the name, place and type of IDC's own table; `strict_NAME` holds these columns only.
`dicom_metadata` has no fixed columns: they are the attributes that the objects have, described in the file itself.
"""


def columns_page() -> str:
    """Text of docs/columns.md."""
    parts = [HEAD]
    for name in (*OBJECT_TABLES, *RUN_TABLES):
        parts.append(f"\n## {name}\n\n| column | type | IDC | meaning |\n|---|---|---|---|\n")
        for column in columns(name):
            mark = "yes" if column.strict and name in STRICT_TABLES else ""
            parts.append(f"| `{column.name}` | {TYPES[column.type]} | {mark} | {column.text} |\n")
    return "".join(parts)


def interface_page(title: str, modules: list[str]) -> str:
    """Text of a page below docs/api."""
    return f"# {title}\n" + "".join(f"\n::: {module}\n    options:\n      heading_level: 2\n" for module in modules)


def pages() -> dict[Path, str]:
    """Every page that is written: path -> text."""
    found = {DOCS / "columns.md": columns_page()}
    found |= {DOCS / "api" / f"{name}.md": interface_page(*page) for name, page in INTERFACE.items()}
    return found


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
