-- Purpose: RTSTRUCT and SEG instances of some patients, with the series and frames of reference that they name.
--   Which of them belong to which CT series is decided from these rows and those of select_companion_candidates.
-- Parameters:
--   @collections ARRAY<STRING> = [] -- collection_id of the collections to search; none: all
--   @patients ARRAY<STRING> -- PatientID of the patients to search
--   @series ARRAY<STRING> = [] -- SeriesInstanceUID of series whose companions are wanted whatever patient they name
--   @modalities ARRAY<STRING> = ["RTSTRUCT", "SEG"] -- modalities of the companions
-- Columns:
--   collection_id STRING -- collection
--   PatientID STRING -- patient
--   StudyInstanceUID STRING -- study of the companion
--   Modality STRING -- modality
--   SeriesInstanceUID STRING -- series of the companion
--   SOPInstanceUID STRING -- the companion
--   url STRING -- where it is
--   size INT64 [bytes] -- size
--   md5 STRING -- hex MD5 of its bytes, where known
--   referenced_series ARRAY<STRING> -- Series Instance UIDs of the images it refers to
--   frames_of_reference ARRAY<STRING> -- Frame of Reference UIDs it is drawn in

WITH
  companions AS (
    SELECT
      collection_id,
      COALESCE(PatientID, '') AS PatientID,
      StudyInstanceUID,
      Modality,
      SeriesInstanceUID,
      SOPInstanceUID,
      gcs_url AS url,
      instance_size AS size,
      instance_hash AS md5,
      ARRAY_CONCAT(
        ARRAY(
          SELECT DISTINCT s.SeriesInstanceUID
          FROM UNNEST(ReferencedSeriesSequence) AS s
          WHERE s.SeriesInstanceUID IS NOT NULL
        ),
        ARRAY(
          SELECT DISTINCT s.SeriesInstanceUID
          FROM
            UNNEST(ReferencedFrameOfReferenceSequence) AS f,
            UNNEST(f.RTReferencedStudySequence) AS t,
            UNNEST(t.RTReferencedSeriesSequence) AS s
          WHERE s.SeriesInstanceUID IS NOT NULL
        )
      ) AS referenced_series,
      ARRAY_CONCAT(
        IF(FrameOfReferenceUID IS NULL, [], [FrameOfReferenceUID]),
        ARRAY(
          SELECT DISTINCT f.FrameOfReferenceUID
          FROM UNNEST(ReferencedFrameOfReferenceSequence) AS f
          WHERE f.FrameOfReferenceUID IS NOT NULL
        ),
        ARRAY(
          SELECT DISTINCT r.ReferencedFrameOfReferenceUID
          FROM UNNEST(StructureSetROISequence) AS r
          WHERE r.ReferencedFrameOfReferenceUID IS NOT NULL
        )
      ) AS frames_of_reference
    FROM `bigquery-public-data.idc_v25.dicom_all`
    WHERE
      Modality IN UNNEST(@modalities)
      AND (ARRAY_LENGTH(@collections) = 0 OR collection_id IN UNNEST(@collections))
  ),

  -- companions that name one of the series, under whatever Patient ID
  naming AS (
    SELECT DISTINCT SOPInstanceUID
    FROM companions, UNNEST(referenced_series) AS r
    WHERE r IN UNNEST(@series)
  )

SELECT *
FROM companions
WHERE PatientID IN UNNEST(@patients) OR SOPInstanceUID IN (SELECT SOPInstanceUID FROM naming)
ORDER BY SeriesInstanceUID, SOPInstanceUID
