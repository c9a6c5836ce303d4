-- Purpose: RT Plans with their fraction groups, beams, prescriptions and references: what treatments are made of.
--   One row per instance of Modality RTPLAN.
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
--   label STRING -- RT Plan Label
--   name STRING -- RT Plan Name
--   date DATE -- RT Plan Date
--   time TIME -- RT Plan Time
--   intent STRING -- Plan Intent
--   approval STRING -- Approval Status
--   sex STRING -- Patient's Sex
--   structure_sets ARRAY<STRING> -- SOP Instance UIDs of the structure sets that it refers to
--   related_plans ARRAY<STRING> -- SOP Instance UIDs of the plans that it refers to
--   relationships ARRAY<STRING> -- RT Plan Relationship of each of them
--   fraction_groups ARRAY<STRUCT> -- Fraction Group Sequence
--   beams ARRAY<STRUCT> -- Beam Sequence
--   dose_references ARRAY<STRUCT> -- Dose Reference Sequence

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
  RTPlanLabel AS label,
  RTPlanName AS name,
  RTPlanDate AS date,
  RTPlanTime AS time,
  PlanIntent AS intent,
  ApprovalStatus AS approval,
  PatientSex AS sex,
  ARRAY(
    SELECT s.ReferencedSOPInstanceUID
    FROM UNNEST(ReferencedStructureSetSequence) AS s
    WHERE s.ReferencedSOPInstanceUID IS NOT NULL
  ) AS structure_sets,
  ARRAY(
    SELECT p.ReferencedSOPInstanceUID
    FROM UNNEST(ReferencedRTPlanSequence) AS p
    WHERE p.ReferencedSOPInstanceUID IS NOT NULL
  ) AS related_plans,
  ARRAY(
    SELECT COALESCE(p.RTPlanRelationship, '')
    FROM UNNEST(ReferencedRTPlanSequence) AS p
    WHERE p.ReferencedSOPInstanceUID IS NOT NULL
  ) AS relationships,
  FractionGroupSequence AS fraction_groups,
  BeamSequence AS beams,
  DoseReferenceSequence AS dose_references
FROM `bigquery-public-data.idc_v25.dicom_all`
WHERE
  Modality = 'RTPLAN'
  AND (ARRAY_LENGTH(@collections) = 0 OR collection_id IN UNNEST(@collections))
  AND (ARRAY_LENGTH(@patients) = 0 OR COALESCE(PatientID, '') IN UNNEST(@patients))
ORDER BY PatientID, SOPInstanceUID, url
