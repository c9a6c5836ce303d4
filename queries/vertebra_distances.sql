-- Purpose: distance of neighbouring vertebrae, a plausibility check of landmarks.
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- body part model
--   lower STRING -- the lower vertebra
--   upper STRING -- the next one above it
--   distance FLOAT64 [mm] -- between their slices, negative if their order is wrong
WITH placed AS (
  SELECT
    l.SeriesInstanceUID,
    l.product,
    l.landmark,
    s.distance,
    LEAD(l.landmark) OVER (PARTITION BY l.SeriesInstanceUID, l.product ORDER BY l.score) AS upper,
    LEAD(s.distance) OVER (PARTITION BY l.SeriesInstanceUID, l.product ORDER BY l.score) AS upper_distance
  FROM landmarks AS l
  LEFT JOIN slices AS s ON s.SeriesInstanceUID = l.SeriesInstanceUID AND s.slice_index = l.slice_index
  WHERE REGEXP_CONTAINS(l.landmark, '^(C|Th|L)[0-9]+$')
)
SELECT SeriesInstanceUID, product, landmark AS lower, upper, upper_distance - distance AS distance
FROM placed
WHERE upper_distance IS NOT NULL AND placed.distance IS NOT NULL
ORDER BY SeriesInstanceUID, product, placed.distance
