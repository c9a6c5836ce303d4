-- Purpose: scored series that show nothing of a region.
-- Parameters:
--   @region STRING = "chest" -- key of mappings/regions.csv
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- body part model
--   body_part_examined STRING -- what the scan shows instead
--   viewer_url STRING -- address in IDC's viewer, for series of IDC
SELECT o.SeriesInstanceUID, o.product, s.body_part_examined, s.viewer_url
FROM objects AS o
JOIN series AS s ON s.SeriesInstanceUID = o.SeriesInstanceUID
WHERE o.kind = 'regions_sr'
  AND o.SOPInstanceUID NOT IN (
    SELECT a.SOPInstanceUID FROM image_level_annotations AS a WHERE a.region = LOWER(@region)
  )
ORDER BY SeriesInstanceUID, product
