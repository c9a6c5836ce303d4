"""Write docs/columns.md, commands.md and settings.md, the pages below docs/api, and the index of the decisions.

python scripts/write_docs_pages.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from ctenrich.cli.help_texts import GROUPS, option_sections
from ctenrich.cli.main import app
from ctenrich.cli.settings_text import sections, toml_value
from ctenrich.results.schema import LATER_TABLES, OBJECT_TABLES, RUN_TABLES, STRICT_TABLES, columns
from ctenrich.treatments.files import LINK_COLUMNS, TREATMENT_COLUMNS

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
        ["storage.base", "stages.stage", "stages.order", "stages.table", "stages.fetch", "stages.sort",
         "stages.convert", "geometry", "dicom.series"],
    ),
    "models": (
        "Models and segmenters",
        ["inference.segmenter", "inference.kinds", "inference.products", "inference.registry", "models.library",
         "models.parity", "nnunet.plans", "nnunet.segmenter", "recipes.recipe", "recipes.recipe_file",
         "recipes.totalsegmentator", "recipes.executor", "recipes.segmenter", "inference.segmentation",
         "harmonise.plan", "harmonise.request", "harmonise.segmenter", "harmonise.position",
         "networks.lungmask", "contours.rtstruct", "contours.raster", "contours.expert"],
    ),
    "bodypart": (
        "Body part regression",
        ["bodypart.scorer", "bodypart.landmarks", "bodypart.regions", "bodypart.crop_hint", "bodypart.plausibility",
         "bodypart.bpreg_json"],
    ),
    "measure": (
        "Measurements and comparison",
        ["shape.measure", "shape.features", "features.kinds", "features.crop", "features.model_file",
         "features.measure", "masks", "evaluate.overlap", "evaluate.products",
         "evaluate.other_segs", "evaluate.landmarks", "evaluate.lungs", "evaluate.metrics", "evaluate.mask_sources",
         "evaluate.evaluation", "evaluate.statistics", "evaluate.published", "evaluate.repeatability",
         "evaluate.retest", "evaluate.bland_altman", "quality.run", "quality.case",
         "quality.finding", "quality.limits", "quality.registry", "lungs", "quality.ranking", "quality.cohort"],
    ),
    "treatments": (
        "Treatments and structure names",
        ["treatments.records", "treatments.objects", "treatments.links", "treatments.fractions", "treatments.rules",
         "treatments.registry", "treatments.choice", "treatments.make", "treatments.decisions", "treatments.files",
         "treatments.exports", "treatments.consort", "structure_names.standard", "structure_names.parse",
         "structure_names.propose", "structure_names.evidence", "structure_names.targets", "structure_names.table",
         "structure_names.treated_side", "encode.outlines", "encode.rtstruct", "publish.structure_sets"],
    ),
    "dose": (
        "Doses of radiotherapy",
        ["dose.reader", "dose.grid", "dose.metrics", "dose.bounds", "dose.structures", "dose.files", "dose.table",
         "dose.vendor_dvh", "dose.plan", "dose.choice", "dose.combine", "dose.write", "dose.compare",
         "dose.checks", "evaluate.doses"],
    ),
    "pseudonymise": (
        "Pseudonymisation",
        ["pseudonymise.folder", "pseudonymise.object_file", "pseudonymise.profile", "pseudonymise.key",
         "pseudonymise.dates", "pseudonymise.words", "pseudonymise.identifiers", "pseudonymise.clean",
         "pseudonymise.refusals", "pseudonymise.patients", "pseudonymise.journal", "pseudonymise.report",
         "pseudonymise.review"],
    ),
    "objects": (
        "DICOM objects",
        ["codes.mappings", "codes.tasks", "codes.describe", "codes.lint", "uids", "objects.kinds", "encode.seg",
         "encode.shape_sr", "encode.landmarks_sr", "encode.regions_sr", "dicom.seg", "dicom.sr", "dicom.parametric_map",
         "maps.quantity", "maps.values", "maps.source", "maps.parametric_map", "maps.fractional", "maps.write",
         "maps.probabilities", "proof",
         "validate"],
    ),
    "listener": (
        "Receiving objects",
        ["listener.listen", "listener.config", "listener.station", "listener.store", "listener.cases",
         "listener.audit"],
    ),
    "flows": (
        "Flows",
        ["flows.records", "flows.closing", "flows.reader", "flows.errors", "flows.folder", "flows.triggers",
         "flows.patterns", "flows.attributes", "flows.inputs", "flows.trial", "flows.running",
         "flows.cohort_run", "flows.step_graph", "flows.scheduling", "flows.capacity", "flows.step_outputs",
         "flows.product_files", "flows.comparison", "flows.output_grid", "flows.step_container", "flows.static_files",
         "containers.contracts", "containers.engines", "containers.running", "containers.packages",
         "containers.programs", "dicom.texts"],
    ),
    "archives": (
        "Archives",
        ["archives.archive", "archives.catalog", "archives.node", "archives.nodes", "archives.query",
         "archives.retrieve", "archives.received", "archives.dicomweb", "archives.xnat", "archives.web"],
    ),
    "delivery": (
        "Delivering results",
        ["delivery.destination", "delivery.queue", "delivery.decisions", "delivery.deliverer", "delivery.records"],
    ),
    "runner": (
        "Running a cohort",
        ["runner.run", "runner.creation", "runner.products", "runner.runner", "runner.job", "runner.executors",
         "runner.status", "runner.preview", "runner.forecast", "runner.object_check", "ledger.reader", "ledger.rows"],
    ),
    "results": (
        "Results",
        ["results.tables", "results.query", "results.remote", "results.anatomy", "report.build", "view.server",
         "review.store", "review.reading", "publish.objects",
         "publish.options", "publish.content", "publish.log", "publish.sending", "publish.bigquery",
         "publish.export", "publish.images", "publish.nnunet_raw",
         "publish.table_files", "results.table_formats",
         "notebook"],
    ),
    "release": (
        "Data sets for publication",
        ["release.release", "release.about", "release.contents", "release.licences", "release.sources",
         "release.turtle", "release.changes"],
    ),
    "phantoms": ("Phantoms and the demo", ["phantom.options", "phantom.volume", "phantom.study", "demo",
                                          "samples.make", "samples.kinds", "samples.contents"]),
}  # fmt: skip
AREAS = {
    0: "Records, stages, running, packages", 1: "Phantoms and demonstration models", 2: "Catalogs and selection",
    3: "Fetch, sort, convert", 4: "Weights and inference", 5: "Body part regression", 6: "DICOM objects",
    7: "Measurements and contours", 8: "Tables, report, viewer", 9: "Publishing",
    10: "Radiotherapy", 11: "Receiving", 12: "Objects and formats of others", 13: "Data sets and exchange",
    14: "Large cohorts",
}  # fmt: skip
DECISIONS = """# Decisions

One short page for each decision: its context, the choice, its consequence and measurements where numbers
decided. A new decision takes the next free number of its area; `scripts/write_docs_pages.py` adds it to this page.
"""
TYPES = {
    "string": "text", "strings": "list of text", "int": "integer", "ints": "list of integers",
    "floats": "list of doubles", "float": "double",
    "bool": "true or false", "timestamp": "time (UTC)", "numeric": "decimal, 9 places",
    "code3": "record: CodeValue, CodingSchemeDesignator, CodeMeaning", "code4": "the same and CodingSchemeVersion",
    "property": "code and its two lists of modifiers", "content": "nested content items",
}  # fmt: skip
BAR = "\\|"
COMMANDS = """# Commands

Every command with its options, written by `scripts/write_docs_pages.py` from the command line itself.
`ctenrich COMMAND --help` prints the same. `ctenrich --install-completion` installs the completion of commands, options
and names (runs, queries, models, segmenters, reasons) for bash, zsh, fish and PowerShell.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | something failed; the reason is shown |
| 2 | the request is wrong; nothing was done |
| 3 | interrupted, or the disk is full; the same command continues |
| 4 | the budget is spent |
"""
SETTINGS = """# Settings

Every setting with its default, written by `scripts/write_docs_pages.py` from the code. Settings are a TOML file that
`--settings` names; what the file leaves out has its default:

```sh
ctenrich settings init settings.toml     # every setting, explained and commented out
ctenrich run cohort.parquet --out RUN --segmenter expert --settings settings.toml
ctenrich settings show RUN --changed     # what a run differs in from the defaults
```

A run keeps its settings in its folder. An unknown name or a wrong type is refused with `BAD_SETTINGS` before any work.
"""
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
            parts.append(f"| `{column.name}` | {TYPES[column.type]} | {mark} | {_escape(column.text)} |\n")
    parts.append("\n## Treatments file\n\nBesides the columns of a cohort file:\n\n")
    parts.append("| column | type | meaning |\n|---|---|---|\n")
    parts += [f"| `{one.name}` | {one.type} | {_escape(one.meaning)} |\n" for one in TREATMENT_COLUMNS]
    parts.append("\n## Links between objects of radiotherapy\n\n`NAME.links.parquet`; `treatments links --csv`.\n\n")
    parts.append("| column | type | meaning |\n|---|---|---|\n")
    parts += [f"| `{one.name}` | {one.type} | {_escape(one.meaning)} |\n" for one in LINK_COLUMNS]
    return "".join(parts)


def commands_page() -> str:
    """Text of docs/commands.md: every command as the command line itself describes it."""
    root: Any = typer.main.get_command(app)
    parts = [COMMANDS]
    for heading, names in GROUPS.items():
        parts.append(f"\n## {heading}\n")
        for name in names:
            command = root.commands[name]
            if hasattr(command, "commands"):
                parts += [_command(f"{name} {sub}", leaf) for sub, leaf in command.commands.items()]
            else:
                parts.append(_command(name, command))
    return "".join(parts)


def _command(path: str, command: Any) -> str:
    """One command: its text, its usage, its options in tables, its examples."""
    context = typer.Context(command, info_name=f"ctenrich {path}")
    usage = " ".join((path, *command.collect_usage_pieces(context)))
    text = "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n"))
    parts = [f"\n### ctenrich {path}\n\n{_escape(text)}\n\nUsage: `{usage}`\n"]
    for heading, rows in option_sections(command, context).items():
        shown = [(name, meaning) for name, meaning in rows if not name.endswith("--help")]
        if shown:
            parts.append(f"\n| {heading} | |\n|---|---|\n")
            parts += [f"| {_code(name)} | {_escape(' '.join(meaning.split()))} |\n" for name, meaning in shown]
    examples = "\n".join(line.strip() for line in command.epilog.splitlines()[2:])
    return "".join(parts) + f"\n```sh\n{examples}\n```\n"


def _code(text: str) -> str:
    """Text as code in a table."""
    return f"`{text.replace('|', BAR)}`"


def _escape(text: str) -> str:
    """Text of the command line in Markdown: brackets, bars and stars are themselves."""
    return re.sub(r"([\[\]|*<])", r"\\\1", text)


def settings_page() -> str:
    """Text of docs/settings.md: every setting with its type, default and explanation."""
    parts = [SETTINGS]
    for section in sections():
        parts.append(f"\n## [{section.name}]\n\n{section.text}\n\n")
        parts.append("| setting | type | default | meaning |\n|---|---|---|---|\n")
        for one in section.settings:
            default = "not set" if one.default is None else f"`{toml_value(one.default)}`"
            text = one.text.replace("``", "`").replace("|", BAR)
            parts.append(f"| `{one.name}` | {one.type} | {default} | {text} |\n")
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
    found |= {DOCS / "commands.md": commands_page(), DOCS / "settings.md": settings_page()}
    found |= {DOCS / "api" / f"{name}.md": interface_page(*page) for name, page in INTERFACE.items()}
    return found


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
