"""``ctenrich pseudonymise``: copies of DICOM files under pseudonyms."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ctenrich.pseudonymise.key import Key
    from ctenrich.pseudonymise.object_file import Rules

__all__ = ["register"]


class DatesChoice(StrEnum):
    """What happens to dates."""

    SHIFT = "shift"
    KEEP = "keep"
    REMOVE = "remove"


class RetainChoice(StrEnum):
    """Options that keep information."""

    UIDS = "uids"
    DEVICE = "device"
    INSTITUTION = "institution"
    CHARACTERISTICS = "characteristics"
    SAFE_PRIVATE = "safe-private"


class CleanChoice(StrEnum):
    """Options that clean information."""

    DESCRIPTORS = "descriptors"
    STRUCTURED_CONTENT = "structured-content"
    GRAPHICS = "graphics"
    NONE = "none"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "pseudonymise",
        epilog="Examples:  ctenrich pseudonymise dicom/ shared/ --key-file key --create-key  \n"
        "ctenrich pseudonymise dicom/ shared/ --key-file key --retain device --review private/  \n"
        "ctenrich pseudonymise dicom/ shared/ --key-file key --pseudonyms subjects.csv --processes 4",
    )(pseudonymise)


def pseudonymise(
    folder: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of DICOM files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of results: new, or to be continued.")],
    key_file: Annotated[Path, typer.Option(metavar="FILE", help="File of the secret key.")],
    create_key: Annotated[bool, typer.Option("--create-key", help="Create the key file; it must not exist.")] = False,
    dates: Annotated[
        DatesChoice, typer.Option(help="Shift dates by patient, keep or remove them.")
    ] = DatesChoice.SHIFT,
    retain: Annotated[
        list[RetainChoice] | None, typer.Option(help="Keep information of this kind; repeatable.")
    ] = None,
    clean: Annotated[
        list[CleanChoice] | None,
        typer.Option(
            help="Clean instead of remove; repeatable, none: remove. Default: descriptors and structured-content."
        ),
    ] = None,
    pseudonyms: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Chosen pseudonyms: columns patient_id, pseudonym.")
    ] = None,
    words: Annotated[Path | None, typer.Option(metavar="FILE", help="Further words that free text may keep.")] = None,
    private: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Private attributes for --retain safe-private: creator, group, element."),
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write paths of refused files and replaced words; they identify patients."),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
) -> None:
    """Copy DICOM files under pseudonyms: PS3.15's profile, keyed UIDs, shifted dates (exit code 1: files refused)."""
    from ctenrich.cli.console import print_table, progress_bars
    from ctenrich.cli.text import check_paths
    from ctenrich.errors import count
    from ctenrich.pseudonymise.folder import pseudonymise_folder
    from ctenrich.pseudonymise.key import create_key as create
    from ctenrich.pseudonymise.key import read_key
    from ctenrich.pseudonymise.patients import read_pseudonyms
    from ctenrich.pseudonymise.review import write_review
    from ctenrich.reasons import Reason

    check_paths(folder, pseudonyms, words, private, None if create_key else key_file)
    _check_outside(out, key_file=key_file, review=review)
    chosen = read_pseudonyms(_text(pseudonyms)) if pseudonyms is not None else {}
    options = (dates, tuple(retain or ()), tuple(clean) if clean else None)
    if create_key:
        create(key_file)
    rules = _rules(read_key(key_file), options, words, private)
    with progress_bars() as progress:
        found = pseudonymise_folder(folder, out, rules, pseudonyms=chosen, processes=processes, progress=progress)
    summary = found.summary
    typer.echo(
        f"{count(summary.written, 'file')} of {count(summary.patients, 'patient')} in {out}, "
        f"{summary.skipped} of them from an earlier call"
    )
    typer.echo(f"{count(summary.copies, 'equal copy')} and {count(summary.other, 'other file')} passed over")
    for note, files in summary.notes.items():
        typer.echo(f"note: {note}: {count(files, 'file')}")
    if review is not None:
        write_review(found, review)
        typer.echo(f"paths of refused files and {count(len(found.words), 'replaced word')}: {review} (do not share)")
    if summary.refused:
        rows = [[reason, files, Reason(reason).sentence] for reason, files in summary.refused.items()]
        print_table("Refused files", ["reason", "files", "meaning"], rows)
        raise typer.Exit(1)


def _rules(
    key: Key,
    options: tuple[DatesChoice, tuple[RetainChoice, ...], tuple[CleanChoice, ...] | None],
    words: Path | None,
    private: Path | None,
) -> Rules:
    from ctenrich.errors import UsageError
    from ctenrich.pseudonymise.object_file import Rules
    from ctenrich.pseudonymise.profile import Clean, Dates, Options, Retain, read_private_attributes
    from ctenrich.pseudonymise.words import read_words, vocabulary
    from ctenrich.reasons import Reason

    dates, retain, clean = options
    if private is not None and RetainChoice.SAFE_PRIVATE not in retain:
        raise UsageError(Reason.BAD_PARAMETER, "--private needs --retain safe-private")
    if clean is not None and CleanChoice.NONE in clean and len(clean) > 1:
        raise UsageError(Reason.BAD_PARAMETER, "--clean none stands alone")
    made = Options(dates=Dates(dates.value), retain=frozenset(Retain(one.value) for one in retain))
    if clean is not None:
        chosen = frozenset(Clean(one.value) for one in clean if one is not CleanChoice.NONE)
        made = Options(dates=made.dates, retain=made.retain, clean=chosen)
    return Rules(
        key=key,
        options=made,
        private=read_private_attributes(_text(private) if private is not None else None),
        words=vocabulary() | (read_words(_text(words)) if words is not None else frozenset()),
    )


def _text(path: Path) -> str:
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason
    from ctenrich.workspace import require_file

    require_file(path)
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not a text file in UTF-8") from None


def _check_outside(out: Path, *, key_file: Path, review: Path | None) -> None:
    from ctenrich.errors import UsageError
    from ctenrich.reasons import Reason

    for path in (key_file, review):
        if path is not None and path.resolve().is_relative_to(out.resolve()):
            message = "the key and what is private must not be in the folder of results, which is to be shared"
            raise UsageError(Reason.BAD_PARAMETER, message)
