-- Purpose: one dose metric of every organ, one product beside another: what a difference of contours costs in dose.
-- Parameters:
--   @metric STRING = "Mean[Gy]" -- metric of the table dose_metrics
--   @first STRING = "expert" -- one product
--   @second STRING = null -- the other product; none: every other one
--   @organ STRING = null -- key of mappings/segments.csv; none: all
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   organ STRING -- organ that the first product has
--   first_value FLOAT64 -- its metric; NULL where the dose does not allow one
--   first_lower FLOAT64 -- its lower bound
--   first_upper FLOAT64 -- its upper bound
--   second_product STRING -- the other product; NULL where no other one has the organ
--   second_value FLOAT64 -- its metric
--   difference FLOAT64 -- second minus first
WITH chosen AS (
  SELECT m.SeriesInstanceUID, m.product, m.organ, m.value, m.lower, m.upper
  FROM dose_metrics AS m
  WHERE m.metric = @metric AND (@organ IS NULL OR m.organ = @organ)
)
SELECT
  a.SeriesInstanceUID,
  a.organ,
  a.value AS first_value,
  a.lower AS first_lower,
  a.upper AS first_upper,
  b.product AS second_product,
  b.value AS second_value,
  b.value - a.value AS difference
FROM chosen AS a
LEFT JOIN chosen AS b
  ON b.SeriesInstanceUID = a.SeriesInstanceUID
  AND b.organ = a.organ
  AND b.product != a.product
  AND (@second IS NULL OR b.product = @second)
WHERE a.product = @first
ORDER BY organ, second_product, SeriesInstanceUID
