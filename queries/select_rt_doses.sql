-- Purpose: RT Doses with units, type, summation and references: what treatments are made of.
--   One row per instance of Modality RTDOSE.
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
--   units STRING -- Dose Units: GY or RELATIVE
--   type STRING -- Dose Type: PHYSICAL, EFFECTIVE or ERROR
--   summation STRING -- Dose Summation Type
--   scaling STRING -- Dose Grid Scaling
--   frames STRING -- Number of Frames
--   rows INT64 -- Rows
--   columns INT64 -- Columns
--   num_offsets INT64 -- values of Grid Frame Offset Vector
--   transfer_syntax STRING -- Transfer Syntax UID
--   sex STRING -- Patient's Sex
--   plans ARRAY<STRING> -- SOP Instance UIDs of the plans that it refers to
--   structure_sets ARRAY<STRING> -- SOP Instance UIDs of the structure sets that it refers to
--   fraction_groups ARRAY<STRING> -- numbers of the fraction groups that it refers to

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
  DoseUnits AS units,
  DoseType AS type,
  DoseSummationType AS summation,
  DoseGridScaling AS scaling,
  NumberOfFrames AS frames,
  `Rows` AS `rows`,
  `Columns` AS `columns`,
  ARRAY_LENGTH(GridFrameOffsetVector) AS num_offsets,
  TransferSyntaxUID AS transfer_syntax,
  PatientSex AS sex,
  ARRAY(
    SELECT p.ReferencedSOPInstanceUID
    FROM UNNEST(ReferencedRTPlanSequence) AS p
    WHERE p.ReferencedSOPInstanceUID IS NOT NULL
  ) AS plans,
  ARRAY(
    SELECT s.ReferencedSOPInstanceUID
    FROM UNNEST(ReferencedStructureSetSequence) AS s
    WHERE s.ReferencedSOPInstanceUID IS NOT NULL
  ) AS structure_sets,
  ARRAY(
    SELECT g.ReferencedFractionGroupNumber
    FROM UNNEST(ReferencedRTPlanSequence) AS p, UNNEST(p.ReferencedFractionGroupSequence) AS g
    WHERE g.ReferencedFractionGroupNumber IS NOT NULL
  ) AS fraction_groups
FROM `bigquery-public-data.idc_v25.dicom_all`
WHERE
  Modality = 'RTDOSE'
  AND (ARRAY_LENGTH(@collections) = 0 OR collection_id IN UNNEST(@collections))
  AND (ARRAY_LENGTH(@patients) = 0 OR COALESCE(PatientID, '') IN UNNEST(@patients))
ORDER BY PatientID, SOPInstanceUID, url
