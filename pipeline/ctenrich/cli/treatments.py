"""``ctenrich treatments``: treatments of radiotherapy with their objects, choices and exclusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from ctenrich.treatments.exports import TreatmentsDiff
    from ctenrich.treatments.records import Treatment

__all__ = ["register"]


class _MakeByDefault(TyperGroup):
    """``treatments CATALOG --out FILE`` means ``treatments make CATALOG --out FILE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the group; the first is the name of a command, or ``make`` is meant."""
        if args and args[0] not in self.commands and args[0] not in {"-h", "--help"}:
            args = ["make", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


treatments_app = typer.Typer(
    cls=_MakeByDefault,
    no_args_is_help=True,
    help="Make and inspect treatments of radiotherapy: make, show, links, consort, diff, decide, protocol.",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(treatments_app, name="treatments")


@dataclass(frozen=True, kw_only=True)
class TreatmentOptions:
    """What the treatments are made of."""

    heading: ClassVar[str] = "Treatments"

    registry: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV of the patients that are expected: PatientID, site, plans, ..."),
    ] = None
    rules: Annotated[Path | None, typer.Option(metavar="FILE", help="Rules (TOML).")] = None
    delivered: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of delivered fractions: PatientID, plan, fractions.")
    ] = None
    decisions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Decisions of people.  [default: NAME.decisions.csv]")
    ] = None
    collection: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="collection_id to search; repeatable.  [default: all]")
    ] = None
    partial: Annotated[bool, typer.Option("--partial", help="Use a catalog whose last crawl did not end.")] = False
    portable: Annotated[
        bool, typer.Option("--portable", help="Leave the paths of this computer out of the file, to share it.")
    ] = False


@treatments_app.command(
    "make",
    epilog="Examples:  ctenrich treatments make catalog.duckdb --out treatments.parquet  \n"
    "ctenrich treatments make folder:catalog.duckdb --registry ids.csv --rules rt.toml --out treatments.parquet  \n"
    "ctenrich treatments make parquet:s3://bucket/idc_v25 --collection nsclc_radiomics --rules rt.toml",
)
def make(
    options: TreatmentOptions,
    catalog: Annotated[str, typer.Argument(help="A catalog's DuckDB file, folder:FILE, parquet:URI or bigquery.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Treatments file (.parquet).")] = Path("treatments.parquet"),
) -> None:
    """Make treatments: planning CT, structure sets, plans and doses of each patient, and a reason for all others."""
    from ctenrich.catalog import open_catalog
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.select.files import excluded_path
    from ctenrich.treatments.decisions import decisions_path, read_decisions
    from ctenrich.treatments.files import write_treatments
    from ctenrich.treatments.make import TreatmentRequest, make_treatments
    from ctenrich.treatments.registry import read_delivered, read_registry
    from ctenrich.treatments.rules import TreatmentRules, load_rules

    request = TreatmentRequest(
        rules=load_rules(options.rules) if options.rules else TreatmentRules(),
        registry=read_registry(options.registry) if options.registry else None,
        delivered=read_delivered(options.delivered) if options.delivered else None,
        decisions=read_decisions(options.decisions or decisions_path(out)),
        collections=tuple(options.collection or ()),
    )
    name = f"folder:{catalog}" if Path(catalog).is_file() else catalog
    opened = open_catalog(name, partial=options.partial)
    try:
        with progress_bars() as progress:
            found = make_treatments(opened, request, name=out.stem, progress=progress)
    finally:
        opened.close()
    write_treatments(found, out, portable=options.portable)
    counts: dict[str, int] = {}
    for one in found.excluded:
        label = f"{one.reason.value}: {one.rule}" if one.rule else one.reason.value
        counts[label] = counts.get(label, 0) + 1
    for note in found.notes:
        typer.echo(note, err=True)
    _print_unused(found.treatments)
    if counts:
        print_table("Excluded", ("reason", "treatments"), sorted(counts.items()))
    objects = ", ".join(f"{number} {modality}" for modality, number in found.objects.items())
    typer.echo(f"{objects} in the catalog")
    typer.echo(f"{len(found.treatments)} treatments, {len(found.excluded)} excluded: {out}")
    if found.decisions:
        typer.echo(f"{len(found.decisions)} decisions of people applied")
    if counts:
        typer.echo(f"excluded patients and treatments with their reasons: {excluded_path(out)}")
    if not found.treatments:
        hint = "see the reasons above; ctenrich treatments links shows what the objects refer to"
        raise UsageError(Reason.EMPTY_COHORT, "no treatment was made", hint)


def _print_unused(treatments: Sequence[Treatment]) -> None:
    """One line per plan and dose that is in a treatment's folder and not used."""
    for treatment in treatments:
        for note in treatment.notes:
            typer.echo(f"{treatment.treatment_id}: {note}", err=True)


TreatmentsFile = Annotated[Path, typer.Argument(metavar="TREATMENTS", help="Treatments file.")]


@treatments_app.command(
    "show",
    epilog="Examples:  ctenrich treatments show treatments.parquet  \n"
    "ctenrich treatments show treatments.parquet --excluded",
)
def show(
    treatments: TreatmentsFile,
    excluded: Annotated[bool, typer.Option("--excluded", help="List what was left out, with its reason.")] = False,
) -> None:
    """List the treatments with plan, fractions, prescription, doses and the weakest link between their objects."""
    from ctenrich.cli.console import print_table
    from ctenrich.treatments.files import read_excluded_treatments, read_treatments

    if excluded:
        left = read_excluded_treatments(treatments)
        rows = [(one.patient_id, one.site, one.reason.value, one.rule, one.detail) for one in left]
        print_table("Excluded", ("PatientID", "site", "reason", "rule", "detail"), rows)
        return
    found = read_treatments(treatments)
    print_table(
        "Treatments",
        ("treatment", "PatientID", "site", "plan", "fractions", "Gy", "doses", "ROIs", "link"),
        [_treatment_row(one) for one in found],
    )
    for one in found:
        for note in one.notes:
            typer.echo(f"{one.treatment_id}: {note}")


def _treatment_row(one: Treatment) -> tuple[object, ...]:
    plan = one.dominant_plan
    fractions = "" if plan is None or plan.fractions_planned is None else str(plan.fractions_planned)
    if plan is not None and plan.fractions_delivered is not None:
        fractions = f"{plan.fractions_delivered} of {fractions or '?'}"
    if one.scale is not None:
        fractions += f" (dose x {one.scale})"
    gray = f"{plan.prescription.dose:g} ({plan.prescription.source.value})" if plan and plan.prescription else ""
    rois = sum(len(s.rois) for s in one.used_structure_sets)
    link = one.link.value if one.link else ""
    doses = f"{len(one.used_doses)} of {len(one.doses)}"
    return one.treatment_id, one.patient_id, one.site, plan.label if plan else "", fractions, gray, doses, rois, link


@treatments_app.command(
    "links",
    epilog="Examples:  ctenrich treatments links treatments.parquet  \n"
    "ctenrich treatments links catalog.duckdb --all --csv links.csv",
)
def links(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Treatments file, or a catalog's DuckDB file.")],
    everything: Annotated[bool, typer.Option("--all", help="List every link; default: those without a UID.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write all links as CSV.")] = None,
) -> None:
    """Show which object refers to which, what resolves by which method, and what is broken."""
    from collections import Counter

    from ctenrich.cli.console import print_table
    from ctenrich.treatments.exports import load_links

    table = load_links(source)
    rows = table.to_pylist()
    counts = Counter((r["source_modality"], r["target_modality"], r["state"], r["method"] or "-") for r in rows)
    print_table("Links", ("from", "to", "state", "method", "links"), [(*key, n) for key, n in sorted(counts.items())])
    weak = [row for row in rows if everything or row["method"] != "uid" or row["other_patient"]]
    columns = ("PatientID", "from", "to", "refers to", "state", "leads to")
    listed = [
        (r["patient_id"], f"{r['source_modality']} {r['source']}", r["target_modality"], r["referenced"] or "-",
         r["state"] + (", of another patient" if r["other_patient"] else ""), ", ".join(r["targets"]) or "-")
        for r in weak
    ]  # fmt: skip
    if listed:
        print_table("All links" if everything else "Links without a UID that resolves", columns, listed)
    if csv is not None:
        from ctenrich.treatments.exports import write_links_csv

        write_links_csv(table, csv)


@treatments_app.command(
    "consort",
    epilog="Examples:  ctenrich treatments consort treatments.parquet --by site  \n"
    "ctenrich treatments consort counts.json --svg flow.svg",
)
def consort(
    treatments: Annotated[Path, typer.Argument(metavar="TREATMENTS", help="Treatments file, or JSON of counts.")],
    by: Annotated[str, typer.Option(metavar="site", help="Split the diagram by site.")] = "",
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the diagram as SVG.")] = None,
) -> None:
    """Draw the CONSORT flow of patients and treatments; numbers that do not add up are stated (exit code 1)."""
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.select.consort import consort_svg, consort_text
    from ctenrich.treatments.consort import count_decisions, treatment_consorts
    from ctenrich.workspace import write_bytes

    if by not in {"", "site"}:
        raise UsageError(Reason.BAD_PARAMETER, f"--by knows site, not {by!r}")
    found = treatment_consorts(treatments, by_site=bool(by))
    for name, one in found.items():
        typer.echo(f"{name}\n{'=' * len(name)}\n{consort_text(one)}" if name else consort_text(one))
    if svg is not None:
        for name, one in found.items():
            safe = "".join(c if c.isalnum() else "_" for c in name)
            target = svg.with_name(f"{svg.stem}_{safe}{svg.suffix}") if name else svg
            write_bytes(target, consort_svg(one).encode())
    if decided := count_decisions(treatments):
        typer.echo("Decisions of people: " + ", ".join(f"{number} {kind}" for kind, number in decided.items()))
    raise typer.Exit(0 if all(one.balanced for one in found.values()) else 1)


@treatments_app.command("diff", epilog="Example:  ctenrich treatments diff old.parquet new.parquet")
def diff(first: TreatmentsFile, second: TreatmentsFile) -> None:
    """Show which treatments were added, removed or changed, and why."""
    from ctenrich.treatments.exports import diff_treatments

    _print_diff(diff_treatments(first, second))


def _print_diff(found: TreatmentsDiff) -> None:
    for line in found.circumstances:
        typer.echo(line)
    for change in found.changes:
        typer.echo(f"{change.change:8} {change.patient_id} {change.treatment_id}  {change.explanation}")
    typer.echo(f"{found.same} treatments are equal, {len(found.changes)} differ")


@treatments_app.command(
    "decide",
    epilog="Examples:  ctenrich treatments decide treatments.parquet plan 1.2.3 --patient P1 --why 'was treated'  \n"
    "ctenrich treatments decide treatments.parquet exclude --patient P2 --why 'withdrew consent'  \n"
    "ctenrich treatments decide treatments.parquet undo 2 --why 'a mistake'",
)
def decide(
    treatments: TreatmentsFile,
    kind: Annotated[str, typer.Argument(help="plan, structure_set, dose, exclude, one_patient, name or undo.")],
    value: Annotated[str, typer.Argument(help="UID, NAME=STANDARD, or the number of a decision.")] = "",
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Reason of the decision.")] = "",
    patient: Annotated[str, typer.Option("--patient", metavar="ID", help="Patient ID that it concerns.")] = "",
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="Who decides.  [default: the account]")] = "",
) -> None:
    """Add a decision to the append-only table beside the treatments; it holds when they are made again."""
    from ctenrich.errors import UsageError, did_you_mean
    from ctenrich.reasons import Reason
    from ctenrich.treatments.decisions import DecisionKind, add_decision, decisions_path

    kinds = [one.value for one in DecisionKind]
    if kind not in kinds:
        hint = did_you_mean(kind, kinds, f"known: {', '.join(kinds)}")
        raise UsageError(Reason.BAD_PARAMETER, f"there is no decision {kind!r}", hint)
    if kind == DecisionKind.NAME.value:
        _check_standard_name(value)
    path = decisions_path(treatments)
    number = add_decision(path, DecisionKind(kind), value, why, patient_id=patient, user=user)
    if note := _doubt_of_decision(treatments, patient):
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"decision {number} is in {path}; make the treatments again to apply it")


def _doubt_of_decision(treatments: Path, patient: str) -> str:
    """Why a decision may have been meant for another file or patient; empty if nothing is known against it."""
    from contextlib import suppress

    from ctenrich.errors import UsageError
    from ctenrich.treatments.files import read_excluded_treatments, read_treatments

    if not treatments.is_file():
        return f"{treatments} does not exist: the decision holds when treatments are made under this name"
    if patient:
        with suppress(UsageError):  # a damaged file is refused where it is used
            known = {one.patient_id for one in read_treatments(treatments)}
            if patient not in known | {one.patient_id for one in read_excluded_treatments(treatments)}:
                return f"{treatments} has no patient of this ID, treated or excluded"
    return ""


def _check_standard_name(value: str) -> None:
    """Refuse a decision on a name that is none of TG-263 (exit code 2)."""
    from ctenrich.errors import UsageError, did_you_mean
    from ctenrich.reasons import Reason
    from ctenrich.structure_names.standard import standard_name_of, standard_names

    standard = value.rpartition("=")[2].strip()
    if standard and standard_name_of(standard) != standard:
        hint = did_you_mean(standard, standard_names(), "ctenrich names propose lists names")
        raise UsageError(Reason.BAD_PARAMETER, f"{standard!r} is no name of TG-263", hint)


@treatments_app.command("protocol", epilog="Example:  ctenrich treatments protocol treatments.parquet series.csv")
def protocol(
    treatments: TreatmentsFile, out: Annotated[Path, typer.Argument(metavar="FILE", help="CSV file to write.")]
) -> None:
    """Write the list of the series that follow the protocol: those of all objects that the treatments use."""
    from ctenrich.treatments.exports import write_protocol_series
    from ctenrich.treatments.files import read_treatments

    number = write_protocol_series(read_treatments(treatments), out)
    typer.echo(f"{number} series: {out}")
