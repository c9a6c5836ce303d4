-- Purpose: Patient IDs of radiotherapy that may not stand for one patient each: with several birth dates or sexes, or
--   with a study that other Patient IDs have too. Birth dates are only counted: none is in the answer.
--   One row per collection and patient of whom there is something to report.
-- Parameters:
--   @collections ARRAY<STRING> = [] -- collection_id of the collections to search; none: all
--   @patients ARRAY<STRING> = [] -- PatientID of the patients to search; none: all
-- Columns:
--   collection_id STRING -- collection
--   PatientID STRING -- patient
--   birth_dates INT64 -- different birth dates; those before 1901-01-02 do not count, as they stand for none
--   sexes INT64 -- different sexes, of M and F
--   shared_studies INT64 -- studies that have another Patient ID too

WITH
  found AS (
    SELECT
      COALESCE(collection_id, '') AS collection_id,
      COALESCE(PatientID, '') AS PatientID,
      StudyInstanceUID,
      IF(PatientBirthDate > DATE '1901-01-01', PatientBirthDate, NULL) AS birth_date,
      IF(PatientSex IN ('M', 'F'), PatientSex, NULL) AS sex,
      Modality IN ('RTSTRUCT', 'RTPLAN', 'RTDOSE', 'RTRECORD') AS radiotherapy
    FROM `bigquery-public-data.idc_v25.dicom_all`
    WHERE ARRAY_LENGTH(@collections) = 0 OR collection_id IN UNNEST(@collections)
  ),
  shared AS (
    SELECT StudyInstanceUID
    FROM found
    WHERE StudyInstanceUID IS NOT NULL
    GROUP BY StudyInstanceUID
    HAVING COUNT(DISTINCT PatientID) > 1
  )
SELECT
  found.collection_id,
  found.PatientID,
  COUNT(DISTINCT birth_date) AS birth_dates,
  COUNT(DISTINCT sex) AS sexes,
  COUNT(DISTINCT shared.StudyInstanceUID) AS shared_studies
FROM found
LEFT JOIN shared ON found.StudyInstanceUID = shared.StudyInstanceUID
WHERE ARRAY_LENGTH(@patients) = 0 OR found.PatientID IN UNNEST(@patients)
GROUP BY found.collection_id, found.PatientID
HAVING
  LOGICAL_OR(radiotherapy)
  AND (COUNT(DISTINCT birth_date) > 1 OR COUNT(DISTINCT sex) > 1 OR COUNT(DISTINCT shared.StudyInstanceUID) > 0)
ORDER BY collection_id, PatientID
