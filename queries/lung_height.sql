-- Purpose: height of the lungs: distance of the slices of the lowest and the highest lung landmark.
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- body part model
--   bottom FLOAT64 [mm] -- place of lung_start along the slice normal
--   top FLOAT64 [mm] -- place of lung_end along the slice normal
--   height FLOAT64 [mm] -- distance of the two
SELECT
  a.SeriesInstanceUID,
  a.product,
  p.distance AS bottom,
  r.distance AS top,
  ABS(r.distance - p.distance) AS height
FROM landmarks AS a
JOIN landmarks AS b ON b.SeriesInstanceUID = a.SeriesInstanceUID AND b.product = a.product
JOIN slices AS p ON p.SeriesInstanceUID = a.SeriesInstanceUID AND p.slice_index = a.slice_index
JOIN slices AS r ON r.SeriesInstanceUID = b.SeriesInstanceUID AND r.slice_index = b.slice_index
WHERE a.landmark = 'lung_start' AND b.landmark = 'lung_end'
ORDER BY SeriesInstanceUID, product
