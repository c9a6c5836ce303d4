"""Help texts: commands in groups, options under headings, one metavar per value, examples that can be copied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from typer.core import TyperCommand, TyperGroup
from typer.models import CommandInfo

from ctenrich.cli.option_records import flatten

__all__ = ["GROUPS", "GroupedCommands", "SectionedCommand", "option_sections", "prepare_commands"]


GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Everyday": ("demo", "run", "harmonise", "maps", "status", "query", "report", "view", "export"),
        "Stage by stage": (
            "index", "select", "cohort", "plan", "prepare",
            "fetch", "sort", "convert", "segment", "score", "measure", "encode", "validate",
        ),
        "Radiotherapy": ("retrieve", "pseudonymise", "treatments", "names", "dose"),
        "Results": (
            "evaluate", "compare", "repeatability", "quality", "review", "evaluate-segmentations", "evaluate-landmarks",
            "publish", "release", "samples",
        ),
        "Receiving": ("listen", "cases", "deliveries", "flow"),
        "Models": ("models", "codes"),
        "Maintenance": ("settings", "retry", "verify", "check-mappings"),
    }
)  # fmt: skip
"""Heading -> commands, as ``ctenrich --help`` lists them."""


class SectionedCommand(TyperCommand):
    """A command whose help text lists its options under the headings of their records."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the name of the command; optional arguments are in brackets."""
        arguments = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return ["[OPTIONS]", *(_argument(p) if p.required else f"[{_argument(p)}]" for p in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        for heading, rows in option_sections(self, ctx).items():
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=32)


def option_sections(command: TyperCommand, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return arguments and options of a command under their headings.

    Parameters
    ----------
    command : TyperCommand
        The command.
    ctx : typer.Context
        Its context.

    Returns
    -------
    dict
        Heading -> (name with metavar, explanation with default).
    """
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        argument = parameter.param_type_name == "argument"
        heading = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or "Options"
        name = _argument(parameter) if argument else _option(parameter)
        sections.setdefault(str(heading), []).append((name, record[1]))
    return {heading: rows for heading, rows in sections.items() if rows}


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return f"{name}..." if parameter.nargs != 1 and not name.endswith("...]") else name


def _option(parameter: Any) -> str:
    names = ", ".join(sorted(parameter.opts, key=len))
    off = f" / {', '.join(parameter.secondary_opts)}" if parameter.secondary_opts else ""
    return names + off if parameter.is_flag or not parameter.metavar else f"{names} {parameter.metavar}"


class GroupedCommands(TyperGroup):
    """A group whose help text lists its commands under the headings of `GROUPS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands, in the order of `GROUPS`."""
        listed = [name for names in GROUPS.values() for name in names]
        found = super().list_commands(ctx)
        return [name for name in listed if name in found] + [name for name in found if name not in listed]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one list of commands per heading; a command that is in no group comes last."""
        rows = {
            name: (name, command.get_short_help_str(limit=200))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None
        }
        width = max((len(name) for name in rows), default=0)
        others = tuple(name for name in rows if not any(name in names for names in GROUPS.values()))
        for heading, names in (*GROUPS.items(), ("Others", others)):
            listed = [(name.ljust(width), rows[name][1]) for name in names if name in rows]
            if listed:
                with formatter.section(heading):
                    formatter.write_dl(listed)


def prepare_commands(commands: Iterable[CommandInfo]) -> None:
    """Give registered commands their options, their sections, and an epilog with one example per line."""
    for command in commands:
        command.cls = SectionedCommand
        assert command.callback is not None
        command.callback = flatten(command.callback)
        title, _, lines = (command.epilog or "").partition("  ")
        examples = "\n".join(f"  {line.strip()}" for line in lines.split("  \n"))
        command.epilog = f"\b\n{title}\n{examples}"  # \b: click does not wrap this paragraph
