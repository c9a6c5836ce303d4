-- Purpose: which landmarks were found in how many series.
-- Columns:
--   product STRING -- body part model
--   landmark STRING -- key of mappings/landmarks.csv
--   lookup_score FLOAT64 -- its place on the score axis
--   present INT64 -- series that have it
--   absent INT64 -- series that do not
SELECT
  product,
  landmark,
  MIN(score) AS lookup_score,
  CAST(COUNTIF(slice_index IS NOT NULL) AS INT64) AS present,
  CAST(COUNTIF(slice_index IS NULL) AS INT64) AS absent
FROM landmarks
GROUP BY product, landmark
ORDER BY product, lookup_score DESC, landmark
