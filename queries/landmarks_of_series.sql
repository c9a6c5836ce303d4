-- Purpose: the landmarks of a series, from the landmarks SR, with the place of their slice: lines on a coronal picture.
-- Parameters:
--   @series STRING = null -- Series Instance UID of the CT; none: all
-- Columns:
--   SeriesInstanceUID STRING -- CT series
--   landmark STRING -- key of mappings/landmarks.csv, e.g. Th8
--   part STRING -- Top, Center or Bottom of it, if stated
--   slice_index INT64 -- from 0 along the slice normal
--   distance FLOAT64 [mm] -- along the slice normal
--   SOPInstanceUID STRING -- the slice
SELECT
  s.SeriesInstanceUID,
  a.landmark,
  a.topographicalModifier.CodeMeaning AS part,
  s.slice_index,
  s.distance,
  s.SOPInstanceUID
FROM image_level_annotations AS a
JOIN objects AS o ON o.SOPInstanceUID = a.SOPInstanceUID AND o.kind = 'landmarks_sr'
JOIN slices AS s ON s.SOPInstanceUID = a.ReferencedSOPInstanceUID
WHERE @series IS NULL OR s.SeriesInstanceUID = @series
ORDER BY SeriesInstanceUID, slice_index, landmark, part
