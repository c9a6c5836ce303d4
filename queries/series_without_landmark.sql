-- Purpose: series in which a landmark was not found, and why.
-- Parameters:
--   @landmarks ARRAY<STRING> = ["lung_start", "lung_end"] -- keys of mappings/landmarks.csv
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   product STRING -- body part model
--   landmark STRING -- what is missing
--   absent_reason STRING -- why
--   viewer_url STRING -- address in IDC's viewer, for series of IDC
SELECT l.SeriesInstanceUID, l.product, l.landmark, l.absent_reason, s.viewer_url
FROM landmarks AS l
JOIN series AS s ON s.SeriesInstanceUID = l.SeriesInstanceUID
WHERE l.slice_index IS NULL AND l.landmark IN UNNEST(@landmarks)
ORDER BY SeriesInstanceUID, product, landmark
