-- Purpose: every segment that was written, with its anatomy, who made it and the CT series it belongs to.
-- Parameters:
--   @organ STRING = null -- meaning of the segment's type, e.g. Heart; none: all
-- Columns:
--   PatientID STRING -- patient
--   StudyInstanceUID STRING -- study
--   ct_series STRING -- CT series that was segmented
--   seg_series STRING -- series of the SEG
--   SOPInstanceUID STRING -- the SEG
--   SegmentNumber INT64 -- number of the segment
--   organ STRING -- meaning of the segment's type
--   side STRING -- laterality, if any
--   algorithm_type STRING -- AUTOMATIC, SEMIAUTOMATIC or MANUAL
--   algorithm STRING -- name of the algorithm
--   viewer_url STRING -- address in IDC's viewer
SELECT
  s.PatientID,
  s.StudyInstanceUID,
  s.segmented_SeriesInstanceUID AS ct_series,
  s.SeriesInstanceUID AS seg_series,
  s.SOPInstanceUID,
  s.SegmentNumber,
  s.SegmentedPropertyType.CodeMeaning AS organ,
  s.SegmentedPropertyType.SegmentedPropertyTypeModifierCodeSequence[SAFE_OFFSET(0)].CodeMeaning AS side,
  s.SegmentAlgorithmType AS algorithm_type,
  s.SegmentAlgorithmName AS algorithm,
  s.viewer_url
FROM segmentations AS s
WHERE @organ IS NULL OR s.SegmentedPropertyType.CodeMeaning = @organ
ORDER BY ct_series, SOPInstanceUID, SegmentNumber
