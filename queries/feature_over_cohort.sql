-- Purpose: one feature of one organ (or of all) over the whole cohort, a row a series and product, for a distribution.
-- Parameters:
--   @quantity STRING -- meaning of the feature, e.g. Sphericity
--   @segment STRING = null -- key of mappings/segments.csv, e.g. heart; none: all
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- expert, or the model with its configuration
--   segment STRING -- organ
--   value FLOAT64 -- the number
--   unit STRING -- UCUM
--   viewer_url STRING -- address in IDC's viewer, for series of IDC
SELECT o.SeriesInstanceUID, o.product, g.segment, q.valueFloat AS value, q.Units.CodeValue AS unit, s.viewer_url
FROM quantitative_measurements AS q
JOIN objects AS o ON o.SOPInstanceUID = q.SOPInstanceUID
JOIN segments AS g
  ON g.SeriesInstanceUID = o.SeriesInstanceUID
  AND g.product = o.product
  AND g.segment_number = q.segmentationSegmentNumber
JOIN series AS s ON s.SeriesInstanceUID = o.SeriesInstanceUID
WHERE q.Quantity.CodeMeaning = @quantity AND (@segment IS NULL OR g.segment = @segment)
ORDER BY segment, product, SeriesInstanceUID
