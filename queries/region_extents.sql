-- Purpose: where each region begins and ends along the scan: bands beside a coronal picture.
-- Parameters:
--   @series STRING = null -- Series Instance UID of the CT; none: all
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   region STRING -- key of mappings/regions.csv, e.g. chest
--   first_slice INT64 -- lowest slice index
--   last_slice INT64 -- highest slice index
--   from_distance FLOAT64 [mm] -- along the slice normal
--   to_distance FLOAT64 [mm] -- along the slice normal
--   slices INT64 -- slices in the region (fewer than the extent: it has gaps)
SELECT
  s.SeriesInstanceUID,
  a.region,
  MIN(s.slice_index) AS first_slice,
  MAX(s.slice_index) AS last_slice,
  MIN(s.distance) AS from_distance,
  MAX(s.distance) AS to_distance,
  COUNT(DISTINCT s.slice_index) AS slices
FROM image_level_annotations AS a
JOIN objects AS o ON o.SOPInstanceUID = a.SOPInstanceUID AND o.kind = 'regions_sr'
JOIN slices AS s ON s.SOPInstanceUID = a.ReferencedSOPInstanceUID
WHERE @series IS NULL OR s.SeriesInstanceUID = @series
GROUP BY s.SeriesInstanceUID, a.region
ORDER BY SeriesInstanceUID, first_slice, region
