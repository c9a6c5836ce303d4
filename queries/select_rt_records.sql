-- Purpose: RT Beams Treatment Records: which plan was delivered, when, and which fraction it was.
--   One row per instance of Modality RTRECORD.
-- Parameters:
--   @collections ARRAY<STRING> = [] -- collection_id of the collections to search; none: all
--   @patients ARRAY<STRING> = [] -- PatientID of the patients to search; none: all
-- Columns:
--   collection_id STRING -- collection
--   PatientID STRING -- patient
--   StudyInstanceUID STRING -- study
--   SeriesInstanceUID STRING -- series
--   SOPInstanceUID STRING -- the instance
--   url STRING -- where it is
--   size INT64 [bytes] -- size
--   md5 STRING -- hex MD5 of its bytes, where known
--   frames_of_reference ARRAY<STRING> -- Frame of Reference UID
--   date DATE -- Treatment Date
--   plans ARRAY<STRING> -- SOP Instance UIDs of the plans that it refers to
--   beams ARRAY<STRUCT> -- Treatment Session Beam Sequence

SELECT
  collection_id,
  COALESCE(PatientID, '') AS PatientID,
  COALESCE(StudyInstanceUID, '') AS StudyInstanceUID,
  COALESCE(SeriesInstanceUID, '') AS SeriesInstanceUID,
  COALESCE(SOPInstanceUID, '') AS SOPInstanceUID,
  gcs_url AS url,
  instance_size AS size,
  instance_hash AS md5,
  IF(FrameOfReferenceUID IS NULL, [], [FrameOfReferenceUID]) AS frames_of_reference,
  TreatmentDate AS date,
  ARRAY(
    SELECT p.ReferencedSOPInstanceUID
    FROM UNNEST(ReferencedRTPlanSequence) AS p
    WHERE p.ReferencedSOPInstanceUID IS NOT NULL
  ) AS plans,
  TreatmentSessionBeamSequence AS beams
FROM `bigquery-public-data.idc_v25.dicom_all`
WHERE
  Modality = 'RTRECORD'
  AND (ARRAY_LENGTH(@collections) = 0 OR collection_id IN UNNEST(@collections))
  AND (ARRAY_LENGTH(@patients) = 0 OR COALESCE(PatientID, '') IN UNNEST(@patients))
ORDER BY PatientID, SOPInstanceUID, url
