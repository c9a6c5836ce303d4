"""Write the selection queries of single series, whose rules are in one place: scripts/cohort_queries/.

``python scripts/make_cohort_queries.py`` renders queries/select_ct_series.sql, select_idc_series.sql,
select_nsclc_radiomics.sql and select_nlst.sql. The rules are in select_ct_series.sql.jinja; the two cohorts extend it
with their defaults and, for NLST, the clinical criterion. The rules on attributes that users may ask for are in
rules.jinja, one entry each. The written files are complete statements, which BigQuery and DuckDB take as they are. A
test compares them with the templates.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ctenrich.geometry import DERIVED_WORDS, MAP_WORDS

ROOT = Path(__file__).resolve().parents[1]
QUERIES = ROOT / "queries"
TEMPLATES = ROOT / "scripts" / "cohort_queries"


def made() -> dict[str, str]:
    """Text of each query by the name of its file."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    words = {"derived_words": DERIVED_WORDS, "map_words": MAP_WORDS}
    paths = sorted(TEMPLATES.glob("*.sql.jinja"))
    return {path.stem: environment.get_template(path.name).render(words) for path in paths}


if __name__ == "__main__":
    for name, text in made().items():
        (QUERIES / name).write_text(text, "utf-8")
