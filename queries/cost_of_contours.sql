-- Purpose: what the contours of a network change in the dose of an organ, beside their Dice against the expert's.
-- Parameters:
--   @organ STRING = null -- key of mappings/segments.csv; none: all
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- product of the network
--   organ STRING -- organ that the expert drew too
--   expert_dice FLOAT64 -- Dice against the expert's organ; NULL where it was not calculated
--   difference_mean_gy FLOAT64 -- mean dose minus that of the expert's organ, Gy
--   difference_d2cc_gy FLOAT64 -- the same of the dose that the hottest 2 cm3 have at least
--   difference_v20gy_percent FLOAT64 -- the same of the share with at least 20 Gy, percentage points
--   largest_in_tolerances FLOAT64 -- largest of the three in units of 2 % or 0.5 Gy, and of 1 point; above 1: no agreement
--   beyond_bounds BOOL -- whether the bounds of a pair of values do not overlap: more than the sampling explains
WITH scaled AS (
  SELECT d.*,
    ABS(d.difference_mean_gy) / GREATEST(0.02 * d.reference_mean_gy, 0.5) AS mean_tolerances,
    ABS(d.difference_d2cc_gy) / GREATEST(0.02 * d.reference_d2cc_gy, 0.5) AS d2cc_tolerances,
    ABS(d.difference_v20gy_percent) AS v20gy_tolerances
  FROM dose_differences AS d
  WHERE @organ IS NULL OR d.organ = @organ
)
SELECT
  s.SeriesInstanceUID,
  s.product,
  s.organ,
  o.expert_dice,
  s.difference_mean_gy,
  s.difference_d2cc_gy,
  s.difference_v20gy_percent,
  GREATEST(COALESCE(s.mean_tolerances, 0), COALESCE(s.d2cc_tolerances, 0), COALESCE(s.v20gy_tolerances, 0))
    AS largest_in_tolerances,
  NOT (
    COALESCE(s.within_bounds_mean_gy, TRUE)
    AND COALESCE(s.within_bounds_d2cc_gy, TRUE)
    AND COALESCE(s.within_bounds_v20gy_percent, TRUE)
  ) AS beyond_bounds
FROM scaled AS s
LEFT JOIN organs AS o
  ON o.SeriesInstanceUID = s.SeriesInstanceUID AND o.product = s.product AND o.organ = s.organ
ORDER BY largest_in_tolerances DESC, SeriesInstanceUID, product, organ
