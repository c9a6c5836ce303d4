-- Purpose: the same feature from two products of the same series, paired: expert against model, model against model.
-- Parameters:
--   @quantity STRING -- meaning of the feature, e.g. Sphericity
--   @first STRING = "expert" -- one product
--   @second STRING = null -- the other product; none: every other one
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   segment STRING -- organ
--   first_product STRING -- as asked
--   first_value FLOAT64 -- its number
--   second_product STRING -- the other
--   second_value FLOAT64 -- its number
--   difference FLOAT64 -- second minus first
WITH measured AS (
  SELECT o.SeriesInstanceUID, o.product, g.segment, q.valueFloat AS value
  FROM quantitative_measurements AS q
  JOIN objects AS o ON o.SOPInstanceUID = q.SOPInstanceUID
  JOIN segments AS g
    ON g.SeriesInstanceUID = o.SeriesInstanceUID
    AND g.product = o.product
    AND g.segment_number = q.segmentationSegmentNumber
  WHERE q.Quantity.CodeMeaning = @quantity
)
SELECT
  a.SeriesInstanceUID,
  a.segment,
  a.product AS first_product,
  a.value AS first_value,
  b.product AS second_product,
  b.value AS second_value,
  b.value - a.value AS difference
FROM measured AS a
JOIN measured AS b ON b.SeriesInstanceUID = a.SeriesInstanceUID AND b.segment = a.segment AND b.product != a.product
WHERE a.product = @first AND (@second IS NULL OR b.product = @second)
ORDER BY segment, second_product, SeriesInstanceUID
