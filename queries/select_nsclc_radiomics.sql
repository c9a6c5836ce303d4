-- Purpose: CT series of NSCLC-Radiomics that form one regular volume: the published cohort, corrected.
--   select_ct_series with the collection as default; written by scripts/make_cohort_queries.py.
--   One row a series of the start set (Modality CT in the collections); `failed` is empty for those that can be used.
--   One scan of dicom_all. The rules and their order are those of ctenrich.geometry and ctenrich.reasons.
-- Parameters:
--   @collections ARRAY<STRING> = ["nsclc_radiomics"] -- collection_id of the collections to search; none: all
--   @patients ARRAY<STRING> = [] -- PatientID of the patients to search; none: all
--   @series ARRAY<STRING> = [] -- SeriesInstanceUID of the series to look at; none: all
--   @original_only BOOL = true -- leave out series that are analysis results (analysis_result_id)
--   @spacing_relative FLOAT64 = 0.01 -- every gap lies within this share of (last - first) / (n - 1) ...
--   @spacing_absolute FLOAT64 = 0.05 -- ... or within this many mm of it, whichever is larger
--   @line_tolerance FLOAT64 = 0.1 -- every slice lies within this many mm of the line through the first and last
--   @drift FLOAT64 = 0.1 -- largest in-plane drift of the positions, mm (a tilted gantry shows here)
--   @cosines FLOAT64 = 0.0001 -- largest difference of a direction cosine, and from orthogonal unit vectors
--   @pixel_spacing_relative FLOAT64 = 0.001 -- largest relative difference of pixel spacing
--   @minimum_slices INT64 = 2 -- fewer slices are TOO_FEW_SLICES
--   @allow_not_hu BOOL = false -- admit values that are not Hounsfield units, or not whole numbers of them
--   @max_volume INT64 = 8589934592 -- bytes of the largest volume (two per voxel), as the setting convert.max_volume
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
--   detail STRING -- the attributes that divide the slices into groups (MIXED_ACQUISITIONS), with their first and last
--       values; the Rescale Types where they are not HU; null where there is nothing to add
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
      COALESCE(UPPER(TRIM(AcquisitionNumber)), '') AS mark_number,
      COALESCE(UPPER(TRIM(TemporalPositionIdentifier)), '') AS mark_position,
      COALESCE(UPPER(TRIM(ContrastBolusAgent)), '') AS mark_agent,
      COALESCE(UPPER(TRIM(ARRAY_TO_STRING(ConvolutionKernel, '\\'))), '') AS mark_kernel,
      COALESCE(
        CAST(CAST(FLOOR(IF(ABS(SAFE_CAST(TRIM(KVP) AS FLOAT64)) < 1e9, SAFE_CAST(TRIM(KVP) AS FLOAT64), NULL) + 0.5) AS INT64) AS STRING),
        UPPER(TRIM(KVP)),
        ''
      ) AS mark_kvp,
      COALESCE(UPPER(TRIM(FilterType)), '') AS mark_filter,
      COALESCE(UPPER(TRIM(ImageType[SAFE_OFFSET(2)])), '') AS mark_type3,
      COALESCE(UPPER(TRIM(ImageType[SAFE_OFFSET(3)])), '') AS mark_type4,
      COALESCE(REGEXP_EXTRACT(UPPER(ARRAY_TO_STRING(ImageType, '\\')), r'^(?:[^\\]*\\){4}(.*)$'), '') AS mark_type5,
      COALESCE(UPPER(TRIM(SeriesDescription)), '') AS mark_description,
      TIME_DIFF(AcquisitionTime, TIME '00:00:00', MICROSECOND) AS acquired,
      TIME_DIFF(ContentTime, TIME '00:00:00', MICROSECOND) AS made,
      COALESCE(TRIM(RescaleSlope), '') != '' OR COALESCE(TRIM(RescaleIntercept), '') != '' AS rescaled,
      SAFE_CAST(TRIM(RescaleSlope) AS FLOAT64) AS slope,
      SAFE_CAST(TRIM(RescaleIntercept) AS FLOAT64) AS intercept,
      COALESCE(UPPER(TRIM(RescaleType)), '') AS rescale_type,
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

  -- no coordinate reaches 1e9, no rescale 1e10, NaN and infinity are none: without them no product overflows, which would end the query
  bounded AS (
    SELECT
      * REPLACE (
        IF(ABS(slope) < 1e10, slope, NULL) AS slope,
        IF(ABS(intercept) < 1e10, intercept, NULL) AS intercept,
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
        OR REGEXP_CONTAINS(image_type, r'^[^\\]*\\(.*[^A-Z])?(REFORMAT(TED)?|MPR|MPVR|CPR|CURVED|PROJECTION|SLAB|MIP|MINIP|M(AX|IN)[ _-]?I?P|MAXIMUM|MINIMUM|VRT?|SSD|RENDER(ED|ING)?|SUBTRACT(ED|ION)?|DSA|FUSED|FUSION|DIVISION|MULTIPLICATION|MASKED|STD_DEVIATION|SCREEN)([^A-Z]|$)')
      ) AS is_reformatted,
      rescaled AND COALESCE(slope = 0 OR slope IS NULL OR intercept IS NULL, TRUE) AS bad_rescale,
      rescale_type NOT IN ('', 'HU', 'US')
      OR REGEXP_CONTAINS(image_type, r'(^|[^A-Z])(MAT_(SPECIFIC|FRACTIONAL|VALUE_BASED)|EFF_ATOMIC_NUM|Z[ _-]?EFF|EFFECTIVE[ _-]?Z|ELECTRON[ _-]DENSITY|IODINE|QUANTITY)([^A-Z]|$)')
      OR COALESCE(
        ABS(slope - FLOOR(slope + 0.5)) > 1e-7 OR ABS(intercept - FLOOR(intercept + 0.5)) > 1e-3, FALSE
      ) AS other_values,
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
      MIN(acquired) OVER of_series AS acquired_first,
      MAX(acquired) OVER of_series AS acquired_last,
      MIN(made) OVER of_series AS made_first,
      MAX(made) OVER of_series AS made_last,
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
      LAG(mark_number) OVER along AS mark_number_before,
      LAG(mark_position) OVER along AS mark_position_before,
      LAG(mark_agent) OVER along AS mark_agent_before,
      LAG(mark_kernel) OVER along AS mark_kernel_before,
      LAG(mark_kvp) OVER along AS mark_kvp_before,
      LAG(mark_filter) OVER along AS mark_filter_before,
      LAG(mark_type3) OVER along AS mark_type3_before,
      LAG(mark_type4) OVER along AS mark_type4_before,
      LAG(mark_type5) OVER along AS mark_type5_before,
      LAG(mark_description) OVER along AS mark_description_before,
      LAG(acquired) OVER along AS acquired_before,
      LAG(made) OVER along AS made_before,
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
      MIN(gap) <= LEAST(0.001, SAFE_DIVIDE(MAX(distance) - MIN(distance), COUNT(*) - 1) / 4) AS same_place,
      GREATEST(MAX(along_row) - MIN(along_row), MAX(along_column) - MIN(along_column))
      > LEAST(
        @drift,
        LEAST(ABS(MIN(between_rows) + MAX(between_rows)), ABS(MIN(between_columns) + MAX(between_columns))) / 2 / 4
      ) AS drifts,
      GREATEST(
        MAX(gap) - SAFE_DIVIDE(MAX(distance) - MIN(distance), COUNT(*) - 1),
        SAFE_DIVIDE(MAX(distance) - MIN(distance), COUNT(*) - 1) - MIN(gap)
      ) AS worst_gap,
      MAX(ABS(distance - first - place * SAFE_DIVIDE(last - first, n - 1))) AS off_line,
      ARRAY_AGG(gap IGNORE NULLS ORDER BY gap) AS gaps,
      MIN(FrameOfReferenceUID) < MAX(FrameOfReferenceUID) AS several_frames,
      MAX(FrameOfReferenceUID) = '' AS no_frame,
      -- an attribute's groups interleave where its values start more often than there are values
      IF(
        COUNTIF(place = 0 OR mark_number != mark_number_before)
        > COUNT(DISTINCT IF(place = 0 OR mark_number != mark_number_before, mark_number, NULL)),
        CONCAT('AcquisitionNumber: ', MIN(mark_number), ' ... ', MAX(mark_number)),
        ''
      ) AS mark_number_mixed,
      IF(
        COUNTIF(place = 0 OR mark_position != mark_position_before)
        > COUNT(DISTINCT IF(place = 0 OR mark_position != mark_position_before, mark_position, NULL)),
        CONCAT('TemporalPositionIdentifier: ', MIN(mark_position), ' ... ', MAX(mark_position)),
        ''
      ) AS mark_position_mixed,
      IF(
        COUNTIF(place = 0 OR mark_agent != mark_agent_before)
        > COUNT(DISTINCT IF(place = 0 OR mark_agent != mark_agent_before, mark_agent, NULL)),
        CONCAT('ContrastBolusAgent: ', MIN(mark_agent), ' ... ', MAX(mark_agent)),
        ''
      ) AS mark_agent_mixed,
      IF(
        COUNTIF(place = 0 OR mark_kernel != mark_kernel_before)
        > COUNT(DISTINCT IF(place = 0 OR mark_kernel != mark_kernel_before, mark_kernel, NULL)),
        CONCAT('ConvolutionKernel: ', MIN(mark_kernel), ' ... ', MAX(mark_kernel)),
        ''
      ) AS mark_kernel_mixed,
      IF(
        COUNTIF(place = 0 OR mark_kvp != mark_kvp_before)
        > COUNT(DISTINCT IF(place = 0 OR mark_kvp != mark_kvp_before, mark_kvp, NULL)),
        CONCAT('KVP: ', MIN(mark_kvp), ' ... ', MAX(mark_kvp)),
        ''
      ) AS mark_kvp_mixed,
      IF(
        COUNTIF(place = 0 OR mark_filter != mark_filter_before)
        > COUNT(DISTINCT IF(place = 0 OR mark_filter != mark_filter_before, mark_filter, NULL)),
        CONCAT('FilterType: ', MIN(mark_filter), ' ... ', MAX(mark_filter)),
        ''
      ) AS mark_filter_mixed,
      IF(
        COUNTIF(place = 0 OR mark_type3 != mark_type3_before)
        > COUNT(DISTINCT IF(place = 0 OR mark_type3 != mark_type3_before, mark_type3, NULL)),
        CONCAT('ImageType3: ', MIN(mark_type3), ' ... ', MAX(mark_type3)),
        ''
      ) AS mark_type3_mixed,
      IF(
        COUNTIF(place = 0 OR mark_type4 != mark_type4_before)
        > COUNT(DISTINCT IF(place = 0 OR mark_type4 != mark_type4_before, mark_type4, NULL)),
        CONCAT('ImageType4: ', MIN(mark_type4), ' ... ', MAX(mark_type4)),
        ''
      ) AS mark_type4_mixed,
      IF(
        COUNTIF(place = 0 OR mark_type5 != mark_type5_before)
        > COUNT(DISTINCT IF(place = 0 OR mark_type5 != mark_type5_before, mark_type5, NULL)),
        CONCAT('ImageType5: ', MIN(mark_type5), ' ... ', MAX(mark_type5)),
        ''
      ) AS mark_type5_mixed,
      IF(
        COUNTIF(place = 0 OR mark_description != mark_description_before)
        > COUNT(DISTINCT IF(place = 0 OR mark_description != mark_description_before, mark_description, NULL)),
        CONCAT('SeriesDescription: ', MIN(mark_description), ' ... ', MAX(mark_description)),
        ''
      ) AS mark_description_mixed,
      COUNTIF(place > 0 AND (acquired IS NULL) != (acquired_before IS NULL)) >= 2
      OR (
        COUNTIF(acquired IS NOT NULL AND (acquired_before IS NULL OR acquired != acquired_before))
        > COUNT(DISTINCT acquired)
        AND (
          5 * LEAST(MAX(acquired - acquired_before), MAX(acquired_before - acquired))
          >= MAX(acquired) - MIN(acquired)
          OR COUNTIF(acquired IS NOT NULL AND (acquired_before IS NULL OR acquired != acquired_before))
          >= 3 * COUNT(DISTINCT acquired)
        )
      )
      OR (
        COUNTIF(
          (2 * acquired >= acquired_first + acquired_last)
          != (2 * acquired_before >= acquired_first + acquired_last)
        ) >= 2
        AND 5 * (
          MIN(IF(2 * acquired >= acquired_first + acquired_last, acquired, NULL))
          - MAX(IF(2 * acquired < acquired_first + acquired_last, acquired, NULL))
        ) >= MAX(acquired) - MIN(acquired)
      ) AS acquired_mixed,
      COALESCE(MIN(acquired), 0) AS acquired_first,
      COALESCE(MAX(acquired), 0) AS acquired_last,
      COUNTIF(place > 0 AND (made IS NULL) != (made_before IS NULL)) >= 2
      OR (
        COUNTIF(made IS NOT NULL AND (made_before IS NULL OR made != made_before))
        > COUNT(DISTINCT made)
        AND (
          5 * LEAST(MAX(made - made_before), MAX(made_before - made))
          >= MAX(made) - MIN(made)
          OR COUNTIF(made IS NOT NULL AND (made_before IS NULL OR made != made_before))
          >= 3 * COUNT(DISTINCT made)
        )
      )
      OR (
        COUNTIF(
          (2 * made >= made_first + made_last)
          != (2 * made_before >= made_first + made_last)
        ) >= 2
        AND 5 * (
          MIN(IF(2 * made >= made_first + made_last, made, NULL))
          - MAX(IF(2 * made < made_first + made_last, made, NULL))
        ) >= MAX(made) - MIN(made)
      ) AS made_mixed,
      COALESCE(MIN(made), 0) AS made_first,
      COALESCE(MAX(made), 0) AS made_last,
      LOGICAL_OR(bad_rescale) AS bad_rescale,
      LOGICAL_OR(other_values AND NOT bad_rescale) AS not_hu,
      MIN(rescale_type) AS first_rescale_type,
      MAX(rescale_type) AS last_rescale_type,
      CAST(MAX(height) AS INT64) * MAX(width) * COUNT(*) * 2 AS volume_bytes,
      LOGICAL_AND(is_axial) AS axial,
      LOGICAL_AND(made_by) AS made_by,
      LOGICAL_OR(COALESCE(lossy, FALSE)) AS lossy,
      COUNT(DISTINCT SOPInstanceUID) < COUNT(*) AS repeated_uid,
      COALESCE(MIN(StudyInstanceUID) < MAX(StudyInstanceUID), FALSE)
      OR COALESCE(MIN(PatientID) < MAX(PatientID), FALSE)
      OR COALESCE(MIN(collection_id) < MAX(collection_id), FALSE) AS mixed,
      LOGICAL_OR(
        NOT REGEXP_CONTAINS(StudyInstanceUID, r'^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$') OR CHAR_LENGTH(StudyInstanceUID) > 64
        OR NOT REGEXP_CONTAINS(SeriesInstanceUID, r'^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$') OR CHAR_LENGTH(SeriesInstanceUID) > 64
        OR NOT REGEXP_CONTAINS(SOPInstanceUID, r'^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$') OR CHAR_LENGTH(SOPInstanceUID) > 64
        OR (FrameOfReferenceUID != '' AND NOT REGEXP_CONTAINS(FrameOfReferenceUID, r'^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$'))
        OR CHAR_LENGTH(FrameOfReferenceUID) > 64
        OR REGEXP_CONTAINS(PatientID, r'[\\\x00-\x1f]') OR CHAR_LENGTH(PatientID) > 64
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
      -- no tolerance is larger than a quarter of the spacing
      worst_gap <= LEAST(GREATEST(@spacing_relative * slice_spacing, @spacing_absolute), slice_spacing / 4)
      AND off_line <= LEAST(@line_tolerance, slice_spacing / 4) AS uniform
    FROM series
  ),

  holed AS (
    SELECT
      *,
      -- every gap is the lower median gap times a whole number, within tolerance, and one of them twice or more
      base > 0 AND (
        SELECT
          LOGICAL_AND(
            FLOOR(SAFE_DIVIDE(g, base) + 0.5) >= 1
            AND ABS(g - FLOOR(SAFE_DIVIDE(g, base) + 0.5) * base) <= LEAST(GREATEST(@spacing_relative * base, @spacing_absolute), base / 4)
          )
          AND LOGICAL_OR(FLOOR(SAFE_DIVIDE(g, base) + 0.5) >= 2)
        FROM UNNEST(gaps) AS g
      ) AS holes
    FROM spaced
  ),

  named AS (
    SELECT
      *,
      ARRAY_TO_STRING(
        ARRAY(
          SELECT mixture
          FROM UNNEST([
            mark_number_mixed,
            mark_position_mixed,
            mark_agent_mixed,
            mark_kernel_mixed,
            mark_kvp_mixed,
            mark_filter_mixed,
            mark_type3_mixed,
            mark_type4_mixed,
            mark_type5_mixed,
            mark_description_mixed,
            IF(
              COALESCE(acquired_mixed, FALSE),
              FORMAT(
                'AcquisitionTime: %02d:%02d:%02d ... %02d:%02d:%02d',
                DIV(acquired_first, 3600000000),
                MOD(DIV(acquired_first, 60000000), 60),
                MOD(DIV(acquired_first, 1000000), 60),
                DIV(acquired_last, 3600000000),
                MOD(DIV(acquired_last, 60000000), 60),
                MOD(DIV(acquired_last, 1000000), 60)
              ),
              ''
            ),
            IF(
              COALESCE(made_mixed, FALSE),
              FORMAT(
                'ContentTime: %02d:%02d:%02d ... %02d:%02d:%02d',
                DIV(made_first, 3600000000),
                MOD(DIV(made_first, 60000000), 60),
                MOD(DIV(made_first, 1000000), 60),
                DIV(made_last, 3600000000),
                MOD(DIV(made_last, 60000000), 60),
                MOD(DIV(made_last, 1000000), 60)
              ),
              ''
            )
          ]) AS mixture
          WHERE mixture != ''
        ),
        '; '
      ) AS mixtures
    FROM holed
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
        IF(ordered AND NOT same_place AND mixtures != '', ['MIXED_ACQUISITIONS'], []),
        IF(ordered AND drifts, ['LATERAL_DRIFT'], []),
        IF(ordered AND NOT uniform AND COALESCE(holes, FALSE), ['MISSING_SLICE'], []),
        IF(ordered AND NOT uniform AND NOT COALESCE(holes, FALSE), ['IRREGULAR_SPACING'], []),
        IF(several_frames, ['MULTI_FRAME_OF_REFERENCE'], []),
        IF(no_frame, ['MISSING_FRAME_OF_REFERENCE'], []),
        IF(not_hu AND NOT @allow_not_hu, ['NOT_HU'], []),
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
        IF(volume_bytes > @max_volume, ['DECOMPRESSION_BOMB'], []),
        IF(repeated_uid, ['CONFLICTING_DUPLICATE'], []),
        IF(mixed, ['MIXED_SERIES'], []),
        IF(bad_rescale, ['HU_RANGE'], [])
      ) AS own_reasons
    FROM named
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
  CASE
    WHEN 'MIXED_ACQUISITIONS' IN UNNEST(own_reasons) THEN mixtures
    WHEN 'NOT_HU' IN UNNEST(own_reasons) AND last_rescale_type NOT IN ('', 'HU', 'US')
      THEN CONCAT('RescaleType: ', first_rescale_type, IF(first_rescale_type < last_rescale_type, CONCAT(' ... ', last_rescale_type), ''))
  END AS detail,
  IF(
    ARRAY_LENGTH(own_reasons) = 0 AND (choice = 1 OR NOT @one_per_study),
    instances,
    []
  ) AS instances
FROM ranked
ORDER BY SeriesInstanceUID
