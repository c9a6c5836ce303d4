"""HTML of the review controls; ``review.js`` fills them in the browser and keeps what is decided."""

from __future__ import annotations

from markupsafe import Markup

__all__ = ["review_bar", "review_controls"]


def review_controls(series: str, product: str, version: str, state: str = "") -> Markup:
    """Place the controls by which a reviewer accepts or rejects a product of a series.

    Parameters
    ----------
    series : str
        Series Instance UID.
    product : str
        Key of the product.
    version : str
        Version of its objects, see :func:`ctenrich.review.store.objects_version`.
    state : str
        State by the reviews that the run has; empty: not reviewed.

    Returns
    -------
    Markup
        An element that ``review.js`` fills; the state is shown without JavaScript too.
    """
    return Markup(
        '<div class="review" data-series="{}" data-product="{}" data-objects="{}" data-state="{}">'
        '<p class="review-state">Review: <b>{}</b></p></div>'
    ).format(series, product, version, state, state or "not reviewed")


def review_bar(run: str) -> Markup:
    """Place the field for the reviewer's name and the buttons that save and open the review file; once in a page.

    Parameters
    ----------
    run : str
        Identifier of the run, see :func:`ctenrich.review.store.run_identifier`.

    Returns
    -------
    Markup
    """
    return Markup(
        '<div class="review-bar" data-run="{}"><noscript>Reviewing needs JavaScript.</noscript></div>'
    ).format(run)
