-- Purpose: CT series of some patients, and some further series, with the study and frame of reference of each.
--   Shows whether a series that a companion names is in the catalog, and to which series a companion may belong that
--   names none.
-- Parameters:
--   @collections ARRAY<STRING> = [] -- collection_id of the collections to search; none: all
--   @patients ARRAY<STRING> -- PatientID of the patients to search
--   @series ARRAY<STRING> = [] -- SeriesInstanceUID of further series, of any modality and patient
-- Columns:
--   PatientID STRING -- patient
--   StudyInstanceUID STRING -- study
--   SeriesInstanceUID STRING -- series
--   Modality STRING -- modality
--   FrameOfReferenceUID STRING -- frame of reference (the first, where there are several)
--   num_instances INT64 -- instances of the series
--   localizer BOOL -- whether an instance is a localizer

SELECT
  MIN(COALESCE(PatientID, '')) AS PatientID,
  MIN(COALESCE(StudyInstanceUID, '')) AS StudyInstanceUID,
  SeriesInstanceUID,
  MIN(Modality) AS Modality,
  MIN(COALESCE(FrameOfReferenceUID, '')) AS FrameOfReferenceUID,
  COUNT(*) AS num_instances,
  LOGICAL_OR(
    REGEXP_CONTAINS(
      COALESCE(UPPER(ARRAY_TO_STRING(ImageType, '\\')), ''), r'(^|\\)\s*(LOCALIZER|SCOUT|TOPOGRAM)\s*(\\|$)'
    )
  ) AS localizer
FROM `bigquery-public-data.idc_v25.dicom_all`
WHERE
  (ARRAY_LENGTH(@collections) = 0 OR collection_id IN UNNEST(@collections))
  AND (
    (Modality = 'CT' AND COALESCE(PatientID, '') IN UNNEST(@patients))
    OR SeriesInstanceUID IN UNNEST(@series)
  )
GROUP BY SeriesInstanceUID
ORDER BY SeriesInstanceUID
