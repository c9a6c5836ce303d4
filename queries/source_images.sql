-- Purpose: the CT slices that an object of this run was made from, to download or to open them.
-- Parameters:
--   @object STRING = null -- SOP Instance UID of a SEG or SR; none: all objects
-- Columns:
--   object STRING -- SOP Instance UID of the object
--   kind STRING -- seg, shape_sr, landmarks_sr or regions_sr
--   ct_series STRING -- CT series
--   slice_index INT64 -- from 0 along the slice normal
--   SOPInstanceUID STRING -- the slice
--   z FLOAT64 [mm] -- third value of Image Position (Patient)
SELECT o.SOPInstanceUID AS object, o.kind, s.SeriesInstanceUID AS ct_series, s.slice_index, s.SOPInstanceUID, s.z
FROM objects AS o
JOIN slices AS s ON s.SeriesInstanceUID = o.SeriesInstanceUID
WHERE @object IS NULL OR o.SOPInstanceUID = @object
ORDER BY object, slice_index
