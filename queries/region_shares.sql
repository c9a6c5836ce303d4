-- Purpose: share of the slices of each series that lie in each region, of all slices, from the regions SR.
-- Parameters:
--   @region STRING = null -- key of mappings/regions.csv, e.g. chest; none: all
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- body part model
--   region STRING -- key of mappings/regions.csv, e.g. chest
--   slices INT64 -- slices in the region
--   of_slices INT64 -- slices of the series
--   share FLOAT64 -- 0 to 1; regions overlap, so that they do not add up to 1
WITH found AS (
  SELECT
    o.SeriesInstanceUID,
    o.product,
    a.region,
    COUNT(DISTINCT a.ReferencedSOPInstanceUID) AS slices
  FROM image_level_annotations AS a
  JOIN objects AS o ON o.SOPInstanceUID = a.SOPInstanceUID AND o.kind = 'regions_sr'
  GROUP BY o.SeriesInstanceUID, o.product, a.region
)
SELECT f.SeriesInstanceUID, f.product, f.region, f.slices, s.slices AS of_slices, f.slices / s.slices AS share
FROM found AS f
JOIN series AS s ON s.SeriesInstanceUID = f.SeriesInstanceUID
WHERE @region IS NULL OR f.region = LOWER(@region)
ORDER BY SeriesInstanceUID, product, region
