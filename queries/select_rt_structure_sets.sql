-- Purpose: RT Structure Sets with the names and interpreted types of their ROIs, and the series on which they are drawn.
--   One row per instance of Modality RTSTRUCT.
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
--   frames_of_reference ARRAY<STRING> -- Frame of Reference UIDs in which its ROIs are drawn
--   label STRING -- Structure Set Label
--   date DATE -- Structure Set Date
--   time TIME -- Structure Set Time
--   approval STRING -- Approval Status
--   sex STRING -- Patient's Sex
--   series ARRAY<STRING> -- Series Instance UIDs of the images on which it is drawn
--   rois ARRAY<STRUCT> -- Structure Set ROI Sequence
--   observations ARRAY<STRUCT> -- RT ROI Observations Sequence

SELECT
  collection_id,
  COALESCE(PatientID, '') AS PatientID,
  COALESCE(StudyInstanceUID, '') AS StudyInstanceUID,
  COALESCE(SeriesInstanceUID, '') AS SeriesInstanceUID,
  COALESCE(SOPInstanceUID, '') AS SOPInstanceUID,
  gcs_url AS url,
  instance_size AS size,
  instance_hash AS md5,
  ARRAY(
    SELECT DISTINCT f
    FROM
      UNNEST(
        ARRAY_CONCAT(
          ARRAY(SELECT r.FrameOfReferenceUID FROM UNNEST(ReferencedFrameOfReferenceSequence) AS r),
          ARRAY(SELECT s.ReferencedFrameOfReferenceUID FROM UNNEST(StructureSetROISequence) AS s)
        )
      ) AS f
    WHERE f IS NOT NULL
    ORDER BY f
  ) AS frames_of_reference,
  StructureSetLabel AS label,
  StructureSetDate AS date,
  StructureSetTime AS time,
  ApprovalStatus AS approval,
  PatientSex AS sex,
  ARRAY(
    SELECT DISTINCT s.SeriesInstanceUID
    FROM
      UNNEST(ReferencedFrameOfReferenceSequence) AS r,
      UNNEST(r.RTReferencedStudySequence) AS t,
      UNNEST(t.RTReferencedSeriesSequence) AS s
    WHERE s.SeriesInstanceUID IS NOT NULL
    ORDER BY s.SeriesInstanceUID
  ) AS series,
  StructureSetROISequence AS rois,
  RTROIObservationsSequence AS observations
FROM `bigquery-public-data.idc_v25.dicom_all`
WHERE
  Modality = 'RTSTRUCT'
  AND (ARRAY_LENGTH(@collections) = 0 OR collection_id IN UNNEST(@collections))
  AND (ARRAY_LENGTH(@patients) = 0 OR COALESCE(PatientID, '') IN UNNEST(@patients))
ORDER BY PatientID, SOPInstanceUID, url
