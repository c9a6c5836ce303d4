-- Purpose: the features of one CT series: every organ, every product, or one feature of them.
-- Parameters:
--   @series STRING -- Series Instance UID of the CT
--   @quantity STRING = null -- meaning of the feature, e.g. Sphericity; none: all
-- Columns:
--   product STRING -- expert, or the model with its configuration
--   segment STRING -- key of mappings/segments.csv
--   quantity STRING -- meaning of the feature
--   value FLOAT64 -- the number
--   unit STRING -- UCUM
SELECT o.product, g.segment, q.Quantity.CodeMeaning AS quantity, q.valueFloat AS value, q.Units.CodeValue AS unit
FROM quantitative_measurements AS q
JOIN objects AS o ON o.SOPInstanceUID = q.SOPInstanceUID
JOIN segments AS g
  ON g.SeriesInstanceUID = o.SeriesInstanceUID
  AND g.product = o.product
  AND g.segment_number = q.segmentationSegmentNumber
WHERE o.SeriesInstanceUID = @series AND (@quantity IS NULL OR q.Quantity.CodeMeaning = @quantity)
ORDER BY quantity, segment, product
