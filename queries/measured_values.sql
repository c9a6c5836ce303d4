-- Purpose: every measured value of every segment, one row per value, to compare series with each other.
-- Parameters:
--   @product STRING = null -- product; none: all
--   @segment STRING = null -- key of mappings/segments.csv, e.g. heart; none: all
--   @quantity STRING = null -- meaning of the feature, e.g. Sphericity; none: all
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- expert, or the model with its configuration
--   kind STRING -- kind of the report, e.g. shape_sr
--   segment STRING -- key of mappings/segments.csv
--   segment_number INT64 -- Segment Number
--   quantity STRING -- meaning of the feature
--   derivation STRING -- meaning of the derivation, e.g. Mean; NULL if there is none
--   value FLOAT64 -- the number
--   unit STRING -- UCUM
SELECT
  o.SeriesInstanceUID,
  o.product,
  o.kind,
  g.segment,
  g.segment_number,
  q.Quantity.CodeMeaning AS quantity,
  q.derivationModifier.CodeMeaning AS derivation,
  q.valueFloat AS value,
  q.Units.CodeValue AS unit
FROM quantitative_measurements AS q
JOIN objects AS o ON o.SOPInstanceUID = q.SOPInstanceUID
JOIN segments AS g
  ON g.SeriesInstanceUID = o.SeriesInstanceUID
  AND g.product = o.product
  AND g.segment_number = q.segmentationSegmentNumber
WHERE (@product IS NULL OR o.product = @product)
  AND (@segment IS NULL OR g.segment = @segment)
  AND (@quantity IS NULL OR q.Quantity.CodeMeaning = @quantity)
ORDER BY SeriesInstanceUID, product, kind, segment, segment_number, quantity, derivation, unit, value
