-- Purpose: series that show every vertebra from one to another, e.g. Th4 to L1.
-- Parameters:
--   @first STRING -- vertebra as a key of mappings/landmarks.csv, e.g. Th4
--   @last STRING -- the other end, e.g. L1
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- body part model
--   vertebrae INT64 -- number of vertebrae asked for, all found
WITH ends AS (
  SELECT
    product,
    MIN(CASE WHEN landmark = @first OR landmark = @last THEN score END) AS low,
    MAX(CASE WHEN landmark = @first OR landmark = @last THEN score END) AS high
  FROM landmarks
  GROUP BY product
)
SELECT l.SeriesInstanceUID, l.product, COUNT(*) AS vertebrae
FROM landmarks AS l
JOIN ends AS e ON e.product = l.product
WHERE l.score BETWEEN e.low AND e.high AND REGEXP_CONTAINS(l.landmark, '^(C|Th|L)[0-9]+$')
GROUP BY l.SeriesInstanceUID, l.product
HAVING COUNTIF(l.slice_index IS NULL) = 0
ORDER BY SeriesInstanceUID, product
