-- Purpose: organs that a segmenter looked for in a series and did not find.
-- Parameters:
--   @segment STRING = null -- key of mappings/segments.csv; none: all
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- who looked
--   segment STRING -- what was not found
--   body_part_examined STRING -- what the slice scores say that the scan shows
SELECT g.SeriesInstanceUID, g.product, g.segment, s.body_part_examined
FROM segments AS g
JOIN series AS s ON s.SeriesInstanceUID = g.SeriesInstanceUID
WHERE g.absent AND (@segment IS NULL OR g.segment = @segment)
ORDER BY segment, product, SeriesInstanceUID
