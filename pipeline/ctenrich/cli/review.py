"""``ctenrich review``: import the decisions of reviewers into a run, and list them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctenrich.cli.options import RunFolder

if TYPE_CHECKING:
    from ctenrich.review.store import ReviewStore

__all__ = ["register"]

review_app = typer.Typer(no_args_is_help=True, help="Decisions of reviewers about the products of a run: import, list.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(review_app, name="review")


@review_app.command(
    "import",
    epilog="Examples:  ctenrich review import my-run review.json  \nctenrich review import my-run alice.json bob.json",
)
def import_files(
    run: RunFolder,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Review files; default: report/review.json in the run's folder."),
    ] = None,
) -> None:
    """Add the reviews that were saved in the report; they become the table `reviews`. Nothing is replaced."""
    from ctenrich import steps
    from ctenrich.errors import count
    from ctenrich.review.store import ReviewStore
    from ctenrich.review.tables import write_reviews

    workspace = steps.open_run(run).workspace
    store = ReviewStore(workspace)
    refused = 0
    for path in files or [workspace.report / "review.json"]:
        found = store.import_file(path)
        refused += len(found.refused)
        parts = f"{count(found.added, 'review')} added, {found.repeated} already there, {len(found.refused)} refused"
        typer.echo(f"{path.name}: {parts}")
        for item in found.refused:
            typer.echo(f"refused: {item.reason.value}: {item.message}", err=True)
    write_reviews(workspace)
    _print_states(store)
    raise typer.Exit(1 if refused else 0)


@review_app.command("list", epilog="Example:  ctenrich review list my-run --state disputed")
def list_reviews(
    run: RunFolder,
    state: Annotated[
        str, typer.Option(help="Only products in this state: accepted, rejected, disputed, outdated, commented.")
    ] = "",
) -> None:
    """List the last review of each reviewer and product, and count the states."""
    from ctenrich import steps
    from ctenrich.cli.console import print_table
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.review.records import ReviewState
    from ctenrich.review.store import ReviewStore

    known = [item.value for item in ReviewState if item is not ReviewState.NOT_REVIEWED]
    if state and state not in known:
        raise UsageError(Reason.BAD_PARAMETER, f"unknown state {state!r}", f"known: {', '.join(known)}")
    store = ReviewStore(steps.open_run(run).workspace)
    rows = [
        (
            key[0],
            key[1],
            found.state.value,
            r.decision.value,
            r.reviewer,
            r.time,
            " ".join((r.reason, r.comment)).strip(),
        )
        for key, found in sorted(store.states().items())
        for r in found.last
        if not state or found.state.value == state
    ]
    columns = ("series", "product", "state", "decision", "reviewer", "time", "reason and comment")
    print_table("Reviews", columns, rows)
    _print_states(store)


def _print_states(store: ReviewStore) -> None:
    from collections import Counter

    counts = Counter(found.state.value for found in store.states().values())
    typer.echo("products: " + (", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "none reviewed"))
