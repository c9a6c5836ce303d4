-- Purpose: CT series of NLST as the published study chose them, faults included, for comparison only.
--   The steps are those of the study; docs/selection.md says what is wrong with them. Use select_nlst.
--   Differences to the published text: the table is pinned, numbers are cast safely, a division by zero gives NULL, and
--   the column idc_url, which IDC dropped, is left away; nlst_prsn is taken from where IDC keeps it now; one series a
--   study is the one with the smallest UID, because ANY_VALUE gives another one each time.
-- Parameters:
--   @collections ARRAY<STRING> = ["nlst"] -- collections
-- Columns:
--   collection_id STRING -- collection
--   PatientID STRING -- patient
--   StudyInstanceUID STRING -- study
--   SeriesInstanceUID STRING -- series
--   SOPInstanceUID STRING -- instance
--   gcs_url STRING -- where it is
--   num_instances INT64 -- instances of the series
--   num_differences INT64 -- different gaps of z, after truncation to 0.1 mm
--   max_difference NUMERIC [mm] -- largest gap
--   min_difference NUMERIC [mm] -- smallest gap

WITH
  positive AS (
    SELECT DISTINCT dicom_patient_id
    FROM `bigquery-public-data.idc_v25_clinical.nlst_prsn`
    WHERE can_scr = 1
  ),

  geometry AS (
    SELECT SeriesInstanceUID, MIN(StudyInstanceUID) AS StudyInstanceUID
    FROM `bigquery-public-data.idc_v25.dicom_all`
    WHERE
      Modality = 'CT'
      AND collection_id IN UNNEST(@collections)
      AND PatientID IN (SELECT dicom_patient_id FROM positive)
    GROUP BY SeriesInstanceUID
    HAVING
      COUNT(DISTINCT SOPInstanceUID) > 100
      AND MIN(SAFE_CAST(SliceThickness AS FLOAT64)) >= 1.5
      AND MAX(SAFE_CAST(SliceThickness AS FLOAT64)) <= 3.5
      AND LOGICAL_AND(
        ABS(SAFE_CAST(ImageOrientationPatient[SAFE_OFFSET(0)] AS FLOAT64))
        > ABS(SAFE_CAST(ImageOrientationPatient[SAFE_OFFSET(1)] AS FLOAT64))
        AND ABS(SAFE_CAST(ImageOrientationPatient[SAFE_OFFSET(0)] AS FLOAT64))
        > ABS(SAFE_CAST(ImageOrientationPatient[SAFE_OFFSET(2)] AS FLOAT64))
        AND ABS(SAFE_CAST(ImageOrientationPatient[SAFE_OFFSET(4)] AS FLOAT64))
        > ABS(SAFE_CAST(ImageOrientationPatient[SAFE_OFFSET(3)] AS FLOAT64))
        AND ABS(SAFE_CAST(ImageOrientationPatient[SAFE_OFFSET(4)] AS FLOAT64))
        > ABS(SAFE_CAST(ImageOrientationPatient[SAFE_OFFSET(5)] AS FLOAT64))
      )
      AND COUNT(DISTINCT SOPInstanceUID) = COUNT(DISTINCT ARRAY_TO_STRING(ImagePositionPatient, '/'))
      AND COUNT(DISTINCT ARRAY_TO_STRING(PixelSpacing, '/')) = 1
      AND COUNT(DISTINCT ARRAY_TO_STRING(ImageOrientationPatient, '/')) = 1
      AND LOGICAL_AND(NOT 'LOCALIZER' IN UNNEST(ImageType))
  ),

  -- before the spacing is looked at, as published: a study whose series here is irregular is lost
  one_a_study AS (
    SELECT StudyInstanceUID, MIN(SeriesInstanceUID) AS SeriesInstanceUID
    FROM geometry
    GROUP BY StudyInstanceUID
  ),

  -- over every collection, as published
  heights AS (
    SELECT
      SeriesInstanceUID,
      SOPInstanceUID,
      TRUNC(SAFE_CAST(ImagePositionPatient[SAFE_OFFSET(2)] AS NUMERIC), 1) AS z
    FROM `bigquery-public-data.idc_v25.dicom_all`
    WHERE Modality = 'CT'
  ),

  gaps AS (
    SELECT SeriesInstanceUID, z - LAG(z) OVER (PARTITION BY SeriesInstanceUID ORDER BY z DESC) AS gap
    FROM heights
  ),

  spacing AS (
    SELECT
      SeriesInstanceUID,
      COUNT(DISTINCT gap) AS num_differences,
      MAX(ABS(gap)) AS max_difference,
      MIN(ABS(gap)) AS min_difference
    FROM gaps
    WHERE gap IS NOT NULL
    GROUP BY SeriesInstanceUID
  ),

  counts AS (
    SELECT SeriesInstanceUID, COUNT(*) AS num_instances
    FROM `bigquery-public-data.idc_v25.dicom_all`
    WHERE Modality = 'CT' AND collection_id IN UNNEST(@collections)
    GROUP BY SeriesInstanceUID
  )

SELECT
  d.collection_id,
  d.PatientID,
  d.StudyInstanceUID,
  d.SeriesInstanceUID,
  d.SOPInstanceUID,
  d.gcs_url,
  counts.num_instances,
  spacing.num_differences,
  spacing.max_difference,
  spacing.min_difference
FROM `bigquery-public-data.idc_v25.dicom_all` AS d
JOIN one_a_study ON one_a_study.SeriesInstanceUID = d.SeriesInstanceUID
JOIN spacing ON spacing.SeriesInstanceUID = d.SeriesInstanceUID
JOIN counts ON counts.SeriesInstanceUID = d.SeriesInstanceUID
WHERE
  d.Modality = 'CT'
  AND spacing.num_differences <= 2
  AND SAFE_DIVIDE(spacing.max_difference, spacing.min_difference) < 2
ORDER BY d.PatientID, d.SeriesInstanceUID, d.SOPInstanceUID
