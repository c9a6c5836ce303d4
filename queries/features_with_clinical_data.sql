-- Purpose: one feature beside the clinical data of NSCLC-Radiomics (IDC's clinical table, joined by patient).
-- Parameters:
--   @quantity STRING -- meaning of the feature, e.g. Sphericity
--   @segment STRING = null -- key of mappings/segments.csv, e.g. heart; none: all
-- Columns:
--   PatientID STRING -- patient
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- expert, or the model with its configuration
--   segment STRING -- organ
--   value FLOAT64 -- the number
--   age FLOAT64 [a] -- age
--   overall_stage STRING -- stage
--   survival_days FLOAT64 [d] -- survival time
--   died BOOL -- whether the patient died within the follow-up
SELECT
  q.PatientID,
  o.SeriesInstanceUID,
  o.product,
  g.segment,
  q.valueFloat AS value,
  SAFE_CAST(c.age AS FLOAT64) AS age,
  c.overallstage AS overall_stage,
  SAFE_CAST(c.survivaltime AS FLOAT64) AS survival_days,
  SAFE_CAST(c.deadstatusevent AS INT64) = 1 AS died
FROM quantitative_measurements AS q
JOIN objects AS o ON o.SOPInstanceUID = q.SOPInstanceUID
JOIN segments AS g
  ON g.SeriesInstanceUID = o.SeriesInstanceUID
  AND g.product = o.product
  AND g.segment_number = q.segmentationSegmentNumber
JOIN `bigquery-public-data.idc_v25_clinical.nsclc_radiomics_clinical` AS c ON c.dicom_patient_id = q.PatientID
WHERE q.Quantity.CodeMeaning = @quantity AND (@segment IS NULL OR g.segment = @segment)
ORDER BY PatientID, segment, product, SeriesInstanceUID
