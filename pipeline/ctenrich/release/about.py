"""What its authors state about a data set: title, creators, licence, DOI, date; read from a TOML file."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ctenrich.errors import UsageError, did_you_mean
from ctenrich.reasons import Reason
from ctenrich.release.licences import licence_key

__all__ = ["About", "Creator", "read_about"]

_ORCID = re.compile(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]")
_DOI = re.compile(r"10\.\d{4,9}/\S+")


@dataclass(frozen=True, kw_only=True)
class Creator:
    """Author of a data set."""

    family: str
    given: str = ""
    orcid: str = ""
    """``0000-0002-1825-0097``, without the address."""
    affiliation: str = ""

    @property
    def name(self) -> str:
        """``Family, Given``."""
        return f"{self.family}, {self.given}" if self.given else self.family


@dataclass(frozen=True, kw_only=True)
class About:
    """Statements of the authors; what is empty was not stated."""

    title: str = ""
    description: str = ""
    version: str = ""
    licence: str = ""
    """SPDX identifier, e.g. ``CC-BY-4.0``."""
    doi: str = ""
    publisher: str = ""
    date: str = ""
    """Date of publication, YYYY-MM-DD."""
    keywords: tuple[str, ...] = ()
    creators: tuple[Creator, ...] = ()


def read_about(path: Path) -> About:
    """Read the statements about a data set.

    The keys are the fields of `About`; ``[[creators]]`` has those of `Creator`.

    Raises
    ------
    UsageError
        NOT_FOUND if there is no such file, BAD_PARAMETER if it is not TOML, or has an unknown key or a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(Reason.NOT_FOUND, f"there is no {path.name}", "check the path") from None
    except (OSError, ValueError) as error:
        raise UsageError(Reason.BAD_PARAMETER, f"{path.name} is not TOML: {error}") from None
    creators = values.pop("creators", [])
    keywords = values.pop("keywords", [])
    if not isinstance(creators, list) or not all(isinstance(item, dict) for item in creators):
        raise UsageError(Reason.BAD_PARAMETER, "creators are tables", "write [[creators]] before each of them")
    if not isinstance(keywords, list) or not all(isinstance(item, str) for item in keywords):
        raise UsageError(Reason.BAD_PARAMETER, "keywords are a list of texts")
    stated: dict[str, Any] = {
        **_texts(values, About),
        "keywords": tuple(keywords),
        "creators": tuple(_creator(item) for item in creators),
    }
    return _checked(About(**stated))


def _creator(values: Mapping[str, Any]) -> Creator:
    if not values.get("family"):
        raise UsageError(Reason.BAD_PARAMETER, "a creator has no family name", "an institution has its name there")
    return Creator(**_texts(values, Creator))


def _texts(values: Mapping[str, Any], record: type[About] | type[Creator]) -> dict[str, str]:
    known = [field.name for field in fields(record) if field.type == "str"]
    found = {}
    for key, value in values.items():
        if key not in known:
            hint = did_you_mean(key, known, f"known: {', '.join(known)}")
            raise UsageError(Reason.BAD_PARAMETER, f"{key[:60]!r} is not a statement about a data set", hint)
        if not isinstance(value, str | dt.date) or isinstance(value, dt.datetime):
            raise UsageError(Reason.BAD_PARAMETER, f"{key} is not a text")
        found[key] = " ".join(str(value).split())
    return found


def _checked(about: About) -> About:
    if about.doi and _DOI.fullmatch(about.doi) is None:
        raise UsageError(Reason.BAD_PARAMETER, f"{about.doi[:80]!r} is not a DOI", "write 10.5281/zenodo.1234567")
    for creator in about.creators:
        if creator.orcid and _ORCID.fullmatch(creator.orcid) is None:
            hint = "write 0000-0002-1825-0097, without https://orcid.org/"
            raise UsageError(Reason.BAD_PARAMETER, f"{creator.orcid[:60]!r} is not an ORCID iD", hint)
    if about.date:
        try:
            dt.date.fromisoformat(about.date)
        except ValueError:
            raise UsageError(Reason.BAD_PARAMETER, f"{about.date[:60]!r} is not a date", "write YYYY-MM-DD") from None
    return replace(about, licence=licence_key(about.licence))
