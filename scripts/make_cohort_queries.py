# ruff: noqa: E501, ISC004
"""Write the queries of the two published cohorts, corrected: the shipped selection with other defaults and a join.

``python scripts/make_cohort_queries.py`` writes queries/select_nsclc_radiomics.sql and queries/select_nlst.sql from
queries/select_ct_series.sql; a test holds the files to it, so that a corrected rule reaches all three.
"""

from __future__ import annotations

from pathlib import Path

QUERIES = Path(__file__).resolve().parents[1] / "queries"

_PURPOSE = (
    "-- Purpose: CT series that form one regular volume, and for every other series all the rules that it fails.\n"
)


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """`text` with every first part, which must be there once, exchanged for the second."""
    for old, new in pairs:
        if text.count(old) != 1:
            raise ValueError(f"{old!r} is there {text.count(old)} times")
        text = text.replace(old, new)
    return text


def nsclc_radiomics(base: str) -> str:
    """The cohort of NSCLC-Radiomics."""
    return replaced(
        base,
        (_PURPOSE, "-- Purpose: CT series of NSCLC-Radiomics that form one regular volume: the published cohort, corrected.\n"
                   "--   select_ct_series with the collection as default; written by scripts/make_cohort_queries.py.\n"),
        ("@collections ARRAY<STRING> = []", '@collections ARRAY<STRING> = ["nsclc_radiomics"]'),
        ("@original_only BOOL = false", "@original_only BOOL = true"),
    )  # fmt: skip


def nlst(base: str) -> str:
    """The cohort of NLST: positive screens, near-axial, more than 100 slices, 1.5 to 3.5 mm, one series a study."""
    return replaced(
        base,
        (_PURPOSE, "-- Purpose: CT series of NLST patients with a positive screen, one a study: the published cohort, corrected.\n"
                   "--   select_ct_series with other defaults and the clinical criterion; written by\n"
                   "--   scripts/make_cohort_queries.py.\n"),
        ("@collections ARRAY<STRING> = []", '@collections ARRAY<STRING> = ["nlst"]'),
        ("@original_only BOOL = false", "@original_only BOOL = true"),
        ("@near_axial BOOL = false", "@near_axial BOOL = true"),
        ("@slice_count_min INT64 = null", "@slice_count_min INT64 = 101"),
        ("@slice_thickness_min FLOAT64 = null", "@slice_thickness_min FLOAT64 = 1.5"),
        ("@slice_thickness_max FLOAT64 = null", "@slice_thickness_max FLOAT64 = 3.5"),
        ("@one_per_study BOOL = false", "@one_per_study BOOL = true"),
        ("--   @study_order", "--   @can_scr INT64 = 1 -- value of nlst_prsn.can_scr that a patient must have\n--   @study_order"),
        ("WITH\n  ct AS (\n", "WITH\n  positive AS (\n    SELECT DISTINCT dicom_patient_id\n"
         "    FROM `bigquery-public-data.idc_v25_clinical.nlst_prsn`\n    WHERE can_scr = @can_scr\n  ),\n\n  ct AS (\n"),
        ("      SOPClassUID,\n      crdc_series_uuid,\n", "      SOPClassUID,\n"
         "      COALESCE(PatientID IN (SELECT dicom_patient_id FROM positive), FALSE) AS positive_screen,\n"
         "      crdc_series_uuid,\n"),
        ("      LOGICAL_AND(made_by) AS made_by,\n",
         "      LOGICAL_AND(made_by) AS made_by,\n      LOGICAL_AND(positive_screen) AS positive_screen,\n"),
        ("        IF(unsafe, ['UNSAFE_IDENTIFIER'], []),\n",
         "        IF(NOT positive_screen, ['CLINICAL_CRITERION'], []),\n        IF(unsafe, ['UNSAFE_IDENTIFIER'], []),\n"),
    )  # fmt: skip


def made() -> dict[str, str]:
    """Text of each query by the name of its file."""
    base = (QUERIES / "select_ct_series.sql").read_text("utf-8")
    return {"select_nsclc_radiomics.sql": nsclc_radiomics(base), "select_nlst.sql": nlst(base)}


if __name__ == "__main__":
    for name, text in made().items():
        (QUERIES / name).write_text(text, "utf-8")
