-- Purpose: CT series that form one regular volume, and for every other series all the rules that it fails.
--   One row a series of the start set (Modality CT in the collections); `failed` is empty for those that can be used.
--   One scan of dicom_all. The rules and their order are those of ctenrich.geometry and ctenrich.reasons.
-- Parameters:
--   @collections ARRAY<STRING> = [] -- collection_id of the collections to search; none: all
--   @patients ARRAY<STRING> = [] -- PatientID of the patients to search; none: all
--   @series ARRAY<STRING> = [] -- SeriesInstanceUID of the series to look at; none: all
--   @original_only BOOL = false -- leave out series that are analysis results (analysis_result_id)
--   @spacing_relative FLOAT64 = 0.01 -- every gap lies within this share of (last - first) / (n - 1) ...
--   @spacing_absolute FLOAT64 = 0.05 -- ... or within this many mm of it, whichever is larger
--   @line_tolerance FLOAT64 = 0.1 -- every slice lies within this many mm of the line through the first and last
--   @drift FLOAT64 = 0.1 -- largest in-plane drift of the positions, mm (a tilted gantry shows here)
--   @cosines FLOAT64 = 0.0001 -- largest difference of a direction cosine, and from orthogonal unit vectors
--   @pixel_spacing_relative FLOAT64 = 0.001 -- largest relative difference of pixel spacing
--   @minimum_slices INT64 = 2 -- fewer slices are TOO_FEW_SLICES
--   @near_axial BOOL = false -- ask for rows along x and columns along y, more than along any other axis
--   @slice_count_min INT64 = null -- smallest number of slices asked for
--   @slice_count_max INT64 = null -- largest number of slices asked for
--   @slice_thickness_min FLOAT64 = null -- smallest Slice Thickness asked for, mm
--   @slice_thickness_max FLOAT64 = null -- largest Slice Thickness asked for, mm
--   @manufacturers ARRAY<STRING> = [] -- manufacturers asked for, without regard to case; none: all
--   @allow_lossy BOOL = true -- admit pixels that went through lossy compression
--   @one_per_study BOOL = false -- keep one series a study, by @study_order
--   @study_order STRING = "most_slices" {most_slices, thinnest, smallest_uid} -- which one: most slices, then thinnest,
--       then smallest UID; or thinnest, then most slices, then smallest UID; or smallest UID
-- Columns:
--   collection_id STRING -- collection
--   PatientID STRING -- patient
--   StudyInstanceUID STRING -- study
--   SeriesInstanceUID STRING -- series
--   crdc_series_uuid STRING -- identifier of this version of the series; null in a folder catalog
--   FrameOfReferenceUID STRING -- frame of reference (the first, where there are several)
--   license_short_name STRING -- licence
--   Source_DOI STRING -- DOI of the data
--   num_instances INT64 -- CT instances of the series
--   size_bytes INT64 [bytes] -- sum of the instances
--   slice_spacing FLOAT64 [mm] -- (last - first) / (n - 1) along the slice normal; null where no order is defined
--   slice_thickness FLOAT64 [mm] -- largest Slice Thickness
--   failed ARRAY<STRING> -- codes of all rules that the series fails, in the order of the reasons
--   instances ARRAY<STRUCT> -- SOPInstanceUID, url, size, md5 of every instance, along the slice normal; empty where a
--       rule failed

WITH
  ct AS (
    SELECT
      collection_id,
      COALESCE(PatientID, '') AS PatientID,
      COALESCE(StudyInstanceUID, '') AS StudyInstanceUID,
      COALESCE(SeriesInstanceUID, '') AS SeriesInstanceUID,
      COALESCE(SOPInstanceUID, '') AS SOPInstanceUID,
      SOPClassUID,
      crdc_series_uuid,
      COALESCE(FrameOfReferenceUID, '') AS FrameOfReferenceUID,
      license_short_name,
      Source_DOI,
      gcs_url,
      instance_size,
      instance_hash,
      COALESCE(UPPER(ARRAY_TO_STRING(ImageType, '\\')), '') AS image_type,
      SAFE_CAST(TRIM(NumberOfFrames) AS INT64) AS frames,
      `Rows` AS height,
      `Columns` AS width,
      COALESCE(
        UPPER(TRIM(Manufacturer)) IN (SELECT UPPER(TRIM(name)) FROM UNNEST(@manufacturers) AS name), FALSE
      ) AS made_by,
      TRIM(LossyImageCompression) = '01' AS lossy,
      SAFE_CAST(TRIM(SliceThickness) AS FLOAT64) AS thickness,
      ARRAY_LENGTH(ImagePositionPatient) AS position_values,
      ARRAY_LENGTH(ImageOrientationPatient) AS orientation_values,
      ARRAY_LENGTH(PixelSpacing) AS spacing_values,
      SAFE_CAST(TRIM(ImagePositionPatient[SAFE_OFFSET(0)]) AS FLOAT64) AS x,
      SAFE_CAST(TRIM(ImagePositionPatient[SAFE_OFFSET(1)]) AS FLOAT64) AS y,
      SAFE_CAST(TRIM(ImagePositionPatient[SAFE_OFFSET(2)]) AS FLOAT64) AS z,
      SAFE_CAST(TRIM(ImageOrientationPatient[SAFE_OFFSET(0)]) AS FLOAT64) AS r1,
      SAFE_CAST(TRIM(ImageOrientationPatient[SAFE_OFFSET(1)]) AS FLOAT64) AS r2,
      SAFE_CAST(TRIM(ImageOrientationPatient[SAFE_OFFSET(2)]) AS FLOAT64) AS r3,
      SAFE_CAST(TRIM(ImageOrientationPatient[SAFE_OFFSET(3)]) AS FLOAT64) AS c1,
      SAFE_CAST(TRIM(ImageOrientationPatient[SAFE_OFFSET(4)]) AS FLOAT64) AS c2,
      SAFE_CAST(TRIM(ImageOrientationPatient[SAFE_OFFSET(5)]) AS FLOAT64) AS c3,
      SAFE_CAST(TRIM(PixelSpacing[SAFE_OFFSET(0)]) AS FLOAT64) AS between_rows,
      SAFE_CAST(TRIM(PixelSpacing[SAFE_OFFSET(1)]) AS FLOAT64) AS between_columns
    FROM `bigquery-public-data.idc_v25.dicom_all`
    WHERE
      Modality = 'CT'
      AND (ARRAY_LENGTH(@collections) = 0 OR collection_id IN UNNEST(@collections))
      AND (ARRAY_LENGTH(@patients) = 0 OR PatientID IN UNNEST(@patients))
      AND (ARRAY_LENGTH(@series) = 0 OR SeriesInstanceUID IN UNNEST(@series))
      AND (NOT @original_only OR analysis_result_id IS NULL)
  ),

  -- no coordinate reaches 1e9, NaN and infinity are none: without them no product overflows, which would end the query
  bounded AS (
    SELECT
      * REPLACE (
        IF(ABS(x) < 1e9, x, NULL) AS x,
        IF(ABS(y) < 1e9, y, NULL) AS y,
        IF(ABS(z) < 1e9, z, NULL) AS z,
        IF(ABS(r1) < 1e9, r1, NULL) AS r1,
        IF(ABS(r2) < 1e9, r2, NULL) AS r2,
        IF(ABS(r3) < 1e9, r3, NULL) AS r3,
        IF(ABS(c1) < 1e9, c1, NULL) AS c1,
        IF(ABS(c2) < 1e9, c2, NULL) AS c2,
        IF(ABS(c3) < 1e9, c3, NULL) AS c3,
        IF(ABS(between_rows) < 1e9, between_rows, NULL) AS between_rows,
        IF(ABS(between_columns) < 1e9, between_columns, NULL) AS between_columns
      )
    FROM ct
  ),

  judged AS (
    SELECT
      *,
      COALESCE(
        position_values = 3 AND orientation_values = 6 AND spacing_values = 2
        AND x IS NOT NULL AND y IS NOT NULL AND z IS NOT NULL
        AND r1 IS NOT NULL AND r2 IS NOT NULL AND r3 IS NOT NULL
        AND c1 IS NOT NULL AND c2 IS NOT NULL AND c3 IS NOT NULL
        AND between_rows IS NOT NULL AND between_columns IS NOT NULL
        AND height > 0 AND width > 0,
        FALSE
      ) AS has_geometry,
      NOT COALESCE(
        SOPClassUID IN (
          '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.5.1.4.1.1.2.1', '1.2.840.10008.5.1.4.1.1.2.2'
        ),
        FALSE
      ) AS other_class,
      REGEXP_CONTAINS(image_type, r'(^|\\)\s*(LOCALIZER|SCOUT|TOPOGRAM)\s*(\\|$)') AS is_localizer,
      REGEXP_CONTAINS(image_type, r'^\s*DERIVED\s*(\\|$)')
      AND (
        COALESCE(REGEXP_CONTAINS(SOPClassUID, r'^1\.2\.840\.10008\.5\.1\.4\.1\.1\.7(\.|$)'), FALSE)
        OR REGEXP_CONTAINS(image_type, r'^[^\\]*\\(.*[^A-Z])?(REFORMATTED|MPR|PROJECTION)([^A-Z]|$)')
      ) AS is_reformatted,
      COALESCE(SOPClassUID IN ('1.2.840.10008.5.1.4.1.1.2.1', '1.2.840.10008.5.1.4.1.1.2.2'), FALSE)
      OR COALESCE(frames > 1, FALSE) AS has_frames,
      GREATEST(
        ABS(SQRT(r1 * r1 + r2 * r2 + r3 * r3) - 1),
        ABS(SQRT(c1 * c1 + c2 * c2 + c3 * c3) - 1),
        ABS(r1 * c1 + r2 * c2 + r3 * c3)
      ) AS skew,
      COALESCE(ABS(r1) > ABS(r2) AND ABS(r1) > ABS(r3) AND ABS(c2) > ABS(c1) AND ABS(c2) > ABS(c3), FALSE)
        AS is_axial
    FROM bounded
  ),

  -- the middle of each cosine's range: one orientation for the series, whatever the order of its rows; what is judged
  -- a row is judged before this, so that fewer columns are carried through the two sorts
  oriented AS (
    SELECT
      *,
      COUNTIF(NOT has_geometry) OVER of_series = 0 AS all_geometry,
      GREATEST(
        MAX(r1) OVER of_series - MIN(r1) OVER of_series,
        MAX(r2) OVER of_series - MIN(r2) OVER of_series,
        MAX(r3) OVER of_series - MIN(r3) OVER of_series,
        MAX(c1) OVER of_series - MIN(c1) OVER of_series,
        MAX(c2) OVER of_series - MIN(c2) OVER of_series,
        MAX(c3) OVER of_series - MIN(c3) OVER of_series
      ) AS turn,
      (MIN(r1) OVER of_series + MAX(r1) OVER of_series) / 2 AS m1,
      (MIN(r2) OVER of_series + MAX(r2) OVER of_series) / 2 AS m2,
      (MIN(r3) OVER of_series + MAX(r3) OVER of_series) / 2 AS m3,
      (MIN(c1) OVER of_series + MAX(c1) OVER of_series) / 2 AS m4,
      (MIN(c2) OVER of_series + MAX(c2) OVER of_series) / 2 AS m5,
      (MIN(c3) OVER of_series + MAX(c3) OVER of_series) / 2 AS m6
    FROM judged
    WINDOW of_series AS (PARTITION BY SeriesInstanceUID)
  ),

  crossed AS (
    SELECT *, m2 * m6 - m3 * m5 AS n1, m3 * m4 - m1 * m6 AS n2, m1 * m5 - m2 * m4 AS n3
    FROM oriented
  ),

  projected AS (
    SELECT
      *,
      IF(all_geometry, SAFE_DIVIDE(x * n1 + y * n2 + z * n3, SQRT(n1 * n1 + n2 * n2 + n3 * n3)), NULL) AS distance,
      IF(all_geometry, x * m1 + y * m2 + z * m3, NULL) AS along_row,
      IF(all_geometry, x * m4 + y * m5 + z * m6, NULL) AS along_column
    FROM crossed
  ),

  sorted AS (
    SELECT
      *,
      distance - LAG(distance) OVER along AS gap,
      ROW_NUMBER() OVER along - 1 AS place,
      COUNT(*) OVER of_series AS n,
      MIN(distance) OVER of_series AS first,
      MAX(distance) OVER of_series AS last
    FROM projected
    WINDOW
      of_series AS (PARTITION BY SeriesInstanceUID),
      along AS (PARTITION BY SeriesInstanceUID ORDER BY distance, SOPInstanceUID)
  ),

  series AS (
    SELECT
      SeriesInstanceUID,
      MIN(collection_id) AS collection_id,
      MIN(PatientID) AS PatientID,
      MIN(StudyInstanceUID) AS StudyInstanceUID,
      MIN(crdc_series_uuid) AS crdc_series_uuid,
      MIN(FrameOfReferenceUID) AS FrameOfReferenceUID,
      MIN(license_short_name) AS license_short_name,
      MIN(Source_DOI) AS Source_DOI,
      COUNT(*) AS num_instances,
      SUM(instance_size) AS size_bytes,
      SAFE_DIVIDE(MAX(distance) - MIN(distance), COUNT(*) - 1) AS slice_spacing,
      MAX(thickness) AS slice_thickness,
      MIN(thickness) AS thinnest,
      LOGICAL_AND(all_geometry) AS all_geometry,
      LOGICAL_OR(other_class) AS not_ct,
      LOGICAL_OR(is_localizer) AS localizer,
      LOGICAL_OR(is_reformatted) AS reformatted,
      LOGICAL_OR(has_frames) AS multiframe,
      MAX(turn) > @cosines AS turned,
      MAX(skew) > @cosines AS skewed,
      MAX(between_rows) - MIN(between_rows) > @pixel_spacing_relative * MAX(ABS(between_rows))
      OR MAX(between_columns) - MIN(between_columns) > @pixel_spacing_relative * MAX(ABS(between_columns))
        AS several_spacings,
      MIN(LEAST(between_rows, between_columns)) <= 0 AS no_spacing,
      MIN(height) < MAX(height) OR MIN(width) < MAX(width) AS several_sizes,
      MAX(distance) - MIN(distance) <= 0.001 AS no_extent,
      MIN(gap) <= 0.001 AS same_place,
      GREATEST(MAX(along_row) - MIN(along_row), MAX(along_column) - MIN(along_column)) > @drift AS drifts,
      GREATEST(
        MAX(gap) - SAFE_DIVIDE(MAX(distance) - MIN(distance), COUNT(*) - 1),
        SAFE_DIVIDE(MAX(distance) - MIN(distance), COUNT(*) - 1) - MIN(gap)
      ) AS worst_gap,
      MAX(ABS(distance - first - place * SAFE_DIVIDE(last - first, n - 1))) AS off_line,
      ARRAY_AGG(gap IGNORE NULLS ORDER BY gap) AS gaps,
      MIN(FrameOfReferenceUID) < MAX(FrameOfReferenceUID) AS several_frames,
      LOGICAL_AND(is_axial) AS axial,
      LOGICAL_AND(made_by) AS made_by,
      LOGICAL_OR(COALESCE(lossy, FALSE)) AS lossy,
      COUNT(DISTINCT SOPInstanceUID) < COUNT(*) AS repeated_uid,
      COALESCE(MIN(StudyInstanceUID) < MAX(StudyInstanceUID), FALSE)
      OR COALESCE(MIN(PatientID) < MAX(PatientID), FALSE)
      OR COALESCE(MIN(collection_id) < MAX(collection_id), FALSE) AS mixed,
      LOGICAL_OR(
        NOT REGEXP_CONTAINS(StudyInstanceUID, r'^[0-9.]{1,64}$')
        OR NOT REGEXP_CONTAINS(SeriesInstanceUID, r'^[0-9.]{1,64}$')
        OR NOT REGEXP_CONTAINS(SOPInstanceUID, r'^[0-9.]{1,64}$')
      ) AS unsafe,
      ARRAY_AGG(
        STRUCT(SOPInstanceUID AS SOPInstanceUID, gcs_url AS url, instance_size AS size, instance_hash AS md5)
        ORDER BY distance, SOPInstanceUID
      ) AS instances
    FROM sorted
    GROUP BY SeriesInstanceUID
  ),

  spaced AS (
    SELECT
      *,
      -- where two different images have one SOP Instance UID, there is no order to judge
      all_geometry AND NOT turned AND NOT skewed AND NOT repeated_uid AND num_instances > 1 AS ordered,
      gaps[SAFE_OFFSET(CAST(FLOOR((num_instances - 2) / 2) AS INT64))] AS base,
      worst_gap <= GREATEST(@spacing_relative * slice_spacing, @spacing_absolute)
      AND off_line <= @line_tolerance AS uniform
    FROM series
  ),

  holed AS (
    SELECT
      *,
      -- every gap is the lower median gap times a whole number, within tolerance, and one of them twice or more
      base > 0.001 AND (
        SELECT
          LOGICAL_AND(
            FLOOR(SAFE_DIVIDE(g, base) + 0.5) >= 1
            AND ABS(g - FLOOR(SAFE_DIVIDE(g, base) + 0.5) * base) <= GREATEST(@spacing_relative * base, @spacing_absolute)
          )
          AND LOGICAL_OR(FLOOR(SAFE_DIVIDE(g, base) + 0.5) >= 2)
        FROM UNNEST(gaps) AS g
      ) AS holes
    FROM spaced
  ),

  reasoned AS (
    SELECT
      *,
      ARRAY_CONCAT(
        IF(not_ct, ['NOT_CT'], []),
        IF(localizer, ['LOCALIZER'], []),
        IF(reformatted, ['DERIVED_REFORMATTED'], []),
        IF(multiframe, ['MULTIFRAME'], []),
        IF(NOT all_geometry, ['MISSING_GEOMETRY'], []),
        IF(all_geometry AND turned, ['MULTI_ORIENTATION'], []),
        IF(all_geometry AND skewed, ['NOT_ORTHOGONAL'], []),
        IF(all_geometry AND several_spacings, ['MULTI_PIXEL_SPACING'], []),
        IF((all_geometry AND no_spacing) OR (ordered AND no_extent), ['ZERO_SPACING'], []),
        IF(all_geometry AND several_sizes, ['MULTI_MATRIX'], []),
        IF(num_instances > 1 AND num_instances < @minimum_slices, ['TOO_FEW_SLICES'], []),
        IF(num_instances = 1, ['ONE_SLICE'], []),
        IF(ordered AND same_place, ['DUPLICATE_POSITION'], []),
        IF(ordered AND drifts, ['LATERAL_DRIFT'], []),
        IF(ordered AND NOT uniform AND COALESCE(holes, FALSE), ['MISSING_SLICE'], []),
        IF(ordered AND NOT uniform AND NOT COALESCE(holes, FALSE), ['IRREGULAR_SPACING'], []),
        IF(several_frames, ['MULTI_FRAME_OF_REFERENCE'], []),
        IF(@near_axial AND NOT axial, ['NOT_AXIAL'], []),
        IF(
          (@slice_thickness_min IS NOT NULL AND COALESCE(thinnest < @slice_thickness_min, TRUE))
          OR (@slice_thickness_max IS NOT NULL AND COALESCE(slice_thickness > @slice_thickness_max, TRUE)),
          ['SLICE_THICKNESS'],
          []
        ),
        IF(
          COALESCE(num_instances < @slice_count_min, FALSE) OR COALESCE(num_instances > @slice_count_max, FALSE),
          ['SLICE_COUNT'],
          []
        ),
        IF(ARRAY_LENGTH(@manufacturers) > 0 AND NOT made_by, ['MANUFACTURER'], []),
        IF(NOT @allow_lossy AND lossy, ['LOSSY_COMPRESSION'], []),
        IF(unsafe, ['UNSAFE_IDENTIFIER'], []),
        IF(repeated_uid, ['CONFLICTING_DUPLICATE'], []),
        IF(mixed, ['MIXED_SERIES'], [])
      ) AS own_reasons
    FROM holed
  ),

  -- one series a study, among those that fail nothing
  ranked AS (
    SELECT
      *,
      ROW_NUMBER() OVER (
        PARTITION BY StudyInstanceUID, ARRAY_LENGTH(own_reasons) = 0
        ORDER BY
          IF(@study_order = 'most_slices', -num_instances, 0),
          IF(@study_order IN ('most_slices', 'thinnest'), COALESCE(slice_thickness, 1e9), 0),
          IF(@study_order = 'thinnest', -num_instances, 0),
          SeriesInstanceUID
      ) AS choice
    FROM reasoned
  )

SELECT
  collection_id,
  PatientID,
  StudyInstanceUID,
  SeriesInstanceUID,
  crdc_series_uuid,
  FrameOfReferenceUID,
  license_short_name,
  Source_DOI,
  num_instances,
  size_bytes,
  IF(ordered, slice_spacing, NULL) AS slice_spacing,
  slice_thickness,
  IF(
    @one_per_study AND ARRAY_LENGTH(own_reasons) = 0 AND choice > 1,
    ['OTHER_SERIES_OF_STUDY'],
    own_reasons
  ) AS failed,
  IF(
    ARRAY_LENGTH(own_reasons) = 0 AND (choice = 1 OR NOT @one_per_study),
    instances,
    []
  ) AS instances
FROM ranked
ORDER BY SeriesInstanceUID
