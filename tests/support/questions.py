"""The shipped questions with parameters that fit a made run with more, and how many rows each must give there."""

from __future__ import annotations

from tests.support.report_runs import NETWORK, uid_of

SERIES = 4
QUESTIONS: dict[str, tuple[dict[str, object], int]] = {
    "segmentations": ({"organ": "Heart"}, SERIES + 1),
    "source_images": ({"object": f"{uid_of(0)}.4"}, 40),
    "features_of_series": ({"series": uid_of(0)}, 8),
    "feature_over_cohort": ({"quantity": "Sphericity", "segment": "heart"}, SERIES + 1),
    "measured_values": ({"segment": "heart"}, 2 * SERIES + 2),
    "series_with_feature_in_range": ({"quantity": "Sphericity", "segment": "aorta", "high": 0.6}, 1),
    "expert_against_model": ({"quantity": "Sphericity", "second": str(NETWORK)}, 2),
    "absent_organs": ({}, SERIES),
    "organ_doses": ({"organ": "heart"}, 1),
    "cost_of_contours": ({"organ": "heart"}, 1),
    "landmarks_of_series": ({"series": uid_of(0)}, 4),
    "landmark_coverage": ({}, 5),
    "series_with_vertebrae": ({"first": "Th8", "last": "Th7"}, 1),
    "series_without_landmark": ({"landmarks": ["C2", "lung_end"]}, SERIES),
    "lung_height": ({}, SERIES),
    "vertebra_distances": ({}, 1),
    "region_shares": ({}, 2 * SERIES),
    "region_extents": ({"series": uid_of(1)}, 2),
    "series_without_region": ({"region": "Pelvis"}, SERIES),
    "published_measurement_groups": ({}, 40 * SERIES),
    "published_features": ({"description": "M%"}, 4 * SERIES),
    "published_annotations": ({"description": "Measurements"}, 50 * SERIES),
}
NEEDS_CLINICAL: dict[str, tuple[dict[str, object], int]] = {
    "features_with_clinical_data": ({"quantity": "Sphericity", "segment": "heart"}, SERIES + 1)
}
CLINICAL_ROW = {"dicom_patient_id": "P1", "age": "61.5", "overallstage": "II", "survivaltime": "300"}
CLINICAL_ROW["deadstatusevent"] = "1"
"""One patient of IDC's clinical table, all text as there."""
