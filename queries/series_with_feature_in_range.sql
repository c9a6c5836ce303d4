-- Purpose: series whose feature lies in a range: the search for outliers.
-- Parameters:
--   @quantity STRING -- meaning of the feature, e.g. Sphericity
--   @segment STRING -- key of mappings/segments.csv, e.g. aorta
--   @low FLOAT64 = null -- smallest value; none: no limit
--   @high FLOAT64 = null -- largest value; none: no limit
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- expert, or the model with its configuration
--   value FLOAT64 -- the number
--   unit STRING -- UCUM
--   viewer_url STRING -- address in IDC's viewer, for series of IDC
SELECT o.SeriesInstanceUID, o.product, q.valueFloat AS value, q.Units.CodeValue AS unit, s.viewer_url
FROM quantitative_measurements AS q
JOIN objects AS o ON o.SOPInstanceUID = q.SOPInstanceUID
JOIN segments AS g
  ON g.SeriesInstanceUID = o.SeriesInstanceUID
  AND g.product = o.product
  AND g.segment_number = q.segmentationSegmentNumber
JOIN series AS s ON s.SeriesInstanceUID = o.SeriesInstanceUID
WHERE q.Quantity.CodeMeaning = @quantity
  AND g.segment = @segment
  AND (@low IS NULL OR q.valueFloat >= @low)
  AND (@high IS NULL OR q.valueFloat <= @high)
ORDER BY value, SeriesInstanceUID, product
