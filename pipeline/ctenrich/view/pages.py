"""Frame, style and banner of the viewer's own HTML pages, and the pages that lead to the viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

from markupsafe import Markup

__all__ = ["banner", "closed_page", "date_text", "forward_page", "page", "patient_text", "series_address"]

_STYLE = Markup(Path(__file__).with_name("pages.css").read_text("utf-8"))  # noqa: S704 - a file of this package
_PAGE = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
    'content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
    "<title>{title}</title><style>{style}</style></head>"
    "<body>{banner}<main><h1>{title}</h1>{body}</main></body></html>"
)
_BANNER = Markup(
    '<header class="demonstration"><b>DEMONSTRATION.</b> Made with {}, for demonstration only: the results mean '
    "nothing for a patient.</header>"
)
_AGE_UNITS = {"Y": "years", "M": "months", "W": "weeks", "D": "days"}
"""Last letter of an Age String (PS3.5 6.2)."""
_SEXES = {"F": "female", "M": "male", "O": "other sex"}


def page(title: str, body: Markup, demonstration: Sequence[str] = ()) -> str:
    """Put a body into the frame of the viewer's own pages.

    Parameters
    ----------
    title : str
        Title and heading.
    body : Markup
        Everything below the heading.
    demonstration : sequence of str
        Names of the run's demonstration models, for the banner.

    Returns
    -------
    str
        HTML.
    """
    return _PAGE.format(title=title, style=_STYLE, body=body, banner=banner(demonstration))


def date_text(value: str) -> str:
    """Write a DICOM date (``20200131``) as ``2020-01-31``; other text as it is."""
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdigit() else value


def patient_text(header: Mapping[str, str]) -> str:
    """Identify the patient and the day of a study in one line; what the header does not state is left out."""
    age = header["PatientAge"]
    if age[:-1].isdigit() and age[-1:] in _AGE_UNITS:
        age = f"{int(age[:-1])} {_AGE_UNITS[age[-1]]}"
    sex = _SEXES.get(header["PatientSex"], header["PatientSex"])
    patient = f"Patient {header['PatientID']}" if header["PatientID"] else "Patient without an identifier"
    return ", ".join(part for part in (patient, sex, age, date_text(header["StudyDate"])) if part)


def banner(models: Sequence[str]) -> Markup:
    """Make the banner of a run with demonstration models, given their names; empty without such models."""
    return _BANNER.format(", ".join(models)) if models else Markup("")


def series_address(page: str, uid: str, product: str = "", **asked: str) -> str:
    """Address of a page about a series.

    Parameters
    ----------
    page : str
        ``open``, ``picture`` or ``sr``, with further parts after the series if there are any: ``picture/{}/coronal``.
    uid : str
        Series Instance UID; takes the place of ``{}``, or follows the page.
    product : str
        Key of a product; empty: none.
    **asked : str
        Further parameters.

    Returns
    -------
    str
    """
    path = page.format(uid) if "{}" in page else f"{page}/{uid}"
    query = urlencode({**({"product": product} if product else {}), **asked}, safe=":,")
    return f"/{path}?{query}" if query else f"/{path}"


def forward_page(address: str) -> str:
    """Make a page that goes on to an address of this server at once."""
    body = Markup('<meta http-equiv="refresh" content="0;url={0}"><p><a href="{0}">Open the viewer</a></p>')
    return page("ctenrich view", body.format(address))


def closed_page(name: str, address: str, demonstration: Sequence[str] = ()) -> str:
    """Make the page for a browser without cookie: it was not opened yet, or a page elsewhere (the report) led here.

    Parameters
    ----------
    name : str
        Name of the run.
    address : str
        The address that was asked for, on this server; a browser that was let in gets there by a link of this page.
    demonstration : sequence of str
        Names of the run's demonstration models, for the banner.

    Returns
    -------
    str
        HTML.
    """
    text = Markup(
        '<p><a href="{}">Go on to the viewer</a>, if this browser has opened it before.</p>'
        "<p>Otherwise open the address that "
        "<code>ctenrich view</code> printed in its terminal (<code>Open http://127.0.0.1...</code>) once in "
        "this browser; after that, links of the report work too.</p>"
        "<p>If another viewer answers here, end it, and start <code>ctenrich view {}</code> again.</p>"
    ).format(address, name)
    return page("Not opened yet", text, demonstration)
