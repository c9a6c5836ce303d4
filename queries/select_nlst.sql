-- Purpose: CT series of NLST patients with a positive screen, one a study: the published cohort, corrected.
--   select_ct_series with other defaults and the clinical criterion; written by
--   scripts/make_cohort_queries.py.
--   One row a series of the start set (Modality CT in the collections); `failed` is empty for those that can be used.
--   One scan of dicom_all, and one of its columns of modality and patient for instances of the same series that are no
--   CT. The rules and their order are those of ctenrich.geometry and ctenrich.reasons.
-- Partition: StudyInstanceUID
-- Instances: images of Modality CT along the slice normal
-- Parameters:
--   @collections ARRAY<STRING> = ["nlst"] -- collection_id of the collections to search; none: all
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
--   @near_axial BOOL = true -- ask for rows along x and columns along y, more than along any other axis
--   @slice_count_min INT64 = 101 -- smallest number of slices asked for
--   @slice_count_max INT64 = null -- largest number of slices asked for
--   @slice_thickness_min FLOAT64 = 1.5 -- smallest Slice Thickness asked for, mm
--   @slice_thickness_max FLOAT64 = 3.5 -- largest Slice Thickness asked for, mm
--   @manufacturers ARRAY<STRING> = [] -- manufacturers asked for; case does not count, * is any text; none: all
--   @models ARRAY<STRING> = [] -- scanner models asked for (Manufacturer's Model Name); case does not count, * is any text; none: all
--   @kernels ARRAY<STRING> = [] -- convolution kernels asked for (first value); case does not count, * is any text; none: all
--   @body_parts ARRAY<STRING> = [] -- body parts examined that are asked for; case does not count, * is any text; none: all
--   @positions ARRAY<STRING> = [] -- patient positions asked for, e.g. HFS; case does not count, * is any text; none: all
--   @descriptions ARRAY<STRING> = [] -- series descriptions asked for; case does not count, * is any text; none: all
--   @contrast STRING = null {yes, no} -- whether Contrast/Bolus Agent names an agent (NO, NONE, N and 0 are none); null: either
--   @exclude_derived BOOL = false -- leave out images whose Image Type begins with DERIVED
--   @sexes ARRAY<STRING> = [] -- patient's sexes asked for: M, F, O; case does not count, * is any text; none: all
--   @age_min FLOAT64 = null -- smallest age of the patient, years (000Y is an age that was removed)
--   @age_max FLOAT64 = null -- largest age of the patient, years (000Y is an age that was removed)
--   @study_date_min STRING = null -- smallest study date, as 2020-12-31 or 20201231
--   @study_date_max STRING = null -- largest study date, as 2020-12-31 or 20201231
--   @allow_lossy BOOL = true -- admit pixels that went through lossy compression
--   @one_per_study BOOL = true -- keep one series a study, by @study_order
--   @can_scr INT64 = 1 -- value of nlst_prsn.can_scr that a patient must have
--   @study_order STRING = "most_slices" {most_slices, thinnest, smallest_uid} -- which one: most slices, then thinnest,
--       then smallest UID; or thinnest, then most slices, then smallest UID; or smallest UID
--   @incomplete ARRAY<STRING> = [] -- SeriesInstanceUID of series that are known to lack slices: none of them is the one
--       of its study
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
--   ImageType STRING -- the attribute; null where it is not stated, the first by alphabet where instances differ
--   Manufacturer STRING -- the attribute; null where it is not stated, the first by alphabet where instances differ
--   ManufacturerModelName STRING -- the attribute; null where it is not stated, the first by alphabet where instances differ
--   ConvolutionKernel STRING -- the attribute; null where it is not stated, the first by alphabet where instances differ
--   ContrastBolusAgent STRING -- the attribute; null where it is not stated, the first by alphabet where instances differ
--   BodyPartExamined STRING -- the attribute; null where it is not stated, the first by alphabet where instances differ
--   PatientPosition STRING -- the attribute; null where it is not stated, the first by alphabet where instances differ
--   SeriesDescription STRING -- the attribute; null where it is not stated, the first by alphabet where instances differ
--   StudyDate STRING -- the attribute; null where it is not stated, the first by alphabet where instances differ
--   PatientAge STRING -- the attribute; null where it is not stated, the first by alphabet where instances differ
--   PatientSex STRING -- the attribute; null where it is not stated, the first by alphabet where instances differ
--   failed ARRAY<STRING> -- codes of all rules that the series fails, in the order of the reasons
--   detail STRING -- the first other modality, where an instance is no CT; the attributes that divide the slices into
--       groups (MIXED_ACQUISITIONS), with their first and last values; the Rescale Types where they are not HU; the attributes that a rule asked about, with the first value
--       that is stated; null where there is nothing to add
--   instances ARRAY<STRUCT> -- SOPInstanceUID, url, size, md5 of every instance, along the slice normal; empty where a
--       rule failed

WITH
  positive AS (
    SELECT DISTINCT dicom_patient_id
    FROM `bigquery-public-data.idc_v25_clinical.nlst_prsn`
    WHERE can_scr = @can_scr
  ),

  ct AS (
    SELECT
      COALESCE(SeriesInstanceUID, '') AS SeriesInstanceUID,
      COALESCE(SOPInstanceUID, '') AS SOPInstanceUID,
      CONCAT(
        COALESCE(collection_id, ''), '\n|\n',
        COALESCE(PatientID, ''), '\n|\n',
        COALESCE(StudyInstanceUID, ''), '\n|\n',
        COALESCE(FrameOfReferenceUID, ''), '\n|\n',
        COALESCE(license_short_name, ''), '\n|\n',
        COALESCE(Source_DOI, ''), '\n|\n',
        COALESCE(SOPClassUID, ''), '\n|\n',
        COALESCE(NumberOfFrames, ''), '\n|\n',
        COALESCE(RescaleSlope, ''), '\n|\n',
        COALESCE(RescaleIntercept, ''), '\n|\n',
        COALESCE(RescaleType, ''), '\n|\n',
        COALESCE(LossyImageCompression, ''), '\n|\n',
        COALESCE(SliceThickness, ''), '\n|\n',
        COALESCE(ARRAY_TO_STRING(ImageType, '\\'), ''), '\n|\n',
        COALESCE(AcquisitionNumber, ''), '\n|\n',
        COALESCE(TemporalPositionIdentifier, ''), '\n|\n',
        COALESCE(KVP, ''), '\n|\n',
        COALESCE(FilterType, ''), '\n|\n',
        COALESCE(ARRAY_TO_STRING(ConvolutionKernel, '\\'), ''), '\n|\n',
        COALESCE(ContrastBolusAgent, ''), '\n|\n',
        COALESCE(SeriesDescription, ''), '\n|\n',
        COALESCE(Manufacturer, ''), '\n|\n',
        COALESCE(ManufacturerModelName, ''), '\n|\n',
        COALESCE(BodyPartExamined, ''), '\n|\n',
        COALESCE(PatientPosition, ''), '\n|\n',
        COALESCE(CAST(StudyDate AS STRING), ''), '\n|\n',
        COALESCE(PatientAge, ''), '\n|\n',
        COALESCE(PatientSex, ''), '\n|\n',
        COALESCE(StudyID, ''), '\n|\n',
        COALESCE(AccessionNumber, ''), '\n|\n',
        COALESCE(SeriesNumber, '')
      ) AS header,
      COALESCE(PatientID IN (SELECT dicom_patient_id FROM positive), FALSE) AS positive_screen,
      crdc_series_uuid,
      gcs_url,
      instance_size,
      instance_hash,
      `Rows` AS height,
      `Columns` AS width,
      TIME_DIFF(AcquisitionTime, TIME '00:00:00', MICROSECOND) AS acquired,
      TIME_DIFF(ContentTime, TIME '00:00:00', MICROSECOND) AS made,
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

  -- instances that are not judged and may have the UID of a series that is: of another modality, or of a patient that
  -- was not asked for
  others AS (
    SELECT
      SeriesInstanceUID,
      MIN(IF(COALESCE(Modality, '') != 'CT', COALESCE(Modality, ''), NULL)) AS other_modality,
      LOGICAL_OR(COALESCE(Modality, '') = 'CT') AS other_patient
    FROM `bigquery-public-data.idc_v25.dicom_all`
    WHERE
      (
        COALESCE(Modality, '') != 'CT'
        OR (ARRAY_LENGTH(@patients) > 0 AND NOT COALESCE(PatientID IN UNNEST(@patients), FALSE))
      )
      AND (ARRAY_LENGTH(@collections) = 0 OR collection_id IN UNNEST(@collections))
      AND (ARRAY_LENGTH(@series) = 0 OR SeriesInstanceUID IN UNNEST(@series))
    GROUP BY SeriesInstanceUID
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
      LAG(header) OVER along AS header_before,
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
      MIN(crdc_series_uuid) AS crdc_series_uuid,
      COUNT(*) AS num_instances,
      SUM(instance_size) AS size_bytes,
      SAFE_DIVIDE(MAX(distance) - MIN(distance), COUNT(*) - 1) AS slice_spacing,
      LOGICAL_AND(all_geometry) AS all_geometry,
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
      -- the first slice, and each whose header differs from that of the slice before
      ARRAY_AGG(
        IF(place = 0 OR header != header_before, STRUCT(header AS header, header_before AS before), NULL) IGNORE NULLS
      ) AS headers,
      ARRAY_AGG(
        STRUCT(
          gap AS gap,
          acquired AS acquired,
          acquired_before AS acquired_before,
          made AS made,
          made_before AS made_before
        )
      ) AS slices,
      COUNTIF(place > 0 AND (acquired IS NULL) != (acquired_before IS NULL)) AS acquired_missing,
      MAX(acquired - acquired_before) AS acquired_forward,
      MAX(acquired_before - acquired) AS acquired_back,
      COALESCE(MIN(acquired), 0) AS acquired_first,
      COALESCE(MAX(acquired), 0) AS acquired_last,
      COUNTIF(place > 0 AND (made IS NULL) != (made_before IS NULL)) AS made_missing,
      MAX(made - made_before) AS made_forward,
      MAX(made_before - made) AS made_back,
      COALESCE(MIN(made), 0) AS made_first,
      COALESCE(MAX(made), 0) AS made_last,
      CAST(MAX(height) AS INT64) * MAX(width) * COUNT(*) * 2 AS volume_bytes,
      LOGICAL_AND(is_axial) AS axial,
      LOGICAL_AND(positive_screen) AS positive_screen,
      COUNT(DISTINCT SOPInstanceUID) < COUNT(*) AS repeated_uid,
      LOGICAL_OR(
        NOT REGEXP_CONTAINS(SOPInstanceUID, r'^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$') OR CHAR_LENGTH(SOPInstanceUID) > 64
      ) AS unsafe_instance,
      ARRAY_AGG(
        STRUCT(SOPInstanceUID AS SOPInstanceUID, gcs_url AS url, instance_size AS size, instance_hash AS md5)
        ORDER BY place
      ) AS instances
    FROM sorted
    GROUP BY SeriesInstanceUID
  ),

  -- the headers of a series in one
  described AS (
    SELECT
      *,
      (
        SELECT AS STRUCT
          MIN(NULLIF(parts[SAFE_OFFSET(0)], '')) AS collection_id,
          MIN(parts[SAFE_OFFSET(1)]) AS PatientID,
          MIN(parts[SAFE_OFFSET(2)]) AS StudyInstanceUID,
          MIN(parts[SAFE_OFFSET(3)]) AS FrameOfReferenceUID,
          MIN(NULLIF(parts[SAFE_OFFSET(4)], '')) AS license_short_name,
          MIN(NULLIF(parts[SAFE_OFFSET(5)], '')) AS Source_DOI,
          MAX(SAFE_CAST(TRIM(parts[SAFE_OFFSET(12)]) AS FLOAT64)) AS slice_thickness,
          MIN(SAFE_CAST(TRIM(parts[SAFE_OFFSET(12)]) AS FLOAT64)) AS thinnest,
          LOGICAL_OR(NOT (is_ct OR is_enhanced)) AS not_ct,
          LOGICAL_OR(REGEXP_CONTAINS(image_type, r'(^|\\)\s*(LOCALIZER|SCOUT|TOPOGRAM)\s*(\\|$)')) AS localizer,
          LOGICAL_OR(
            REGEXP_CONTAINS(image_type, r'^\s*DERIVED\s*(\\|$)')
            AND (
              REGEXP_CONTAINS(parts[SAFE_OFFSET(6)], r'^1\.2\.840\.10008\.5\.1\.4\.1\.1\.7(\.|$)')
              OR REGEXP_CONTAINS(image_type, r'^[^\\]*\\(.*[^A-Z])?(REFORMAT(TED)?|MPR|MPVR|CPR|CURVED|PROJECTION|SLAB|MIP|MINIP|M(AX|IN)[ _-]?I?P|MAXIMUM|MINIMUM|TMIP|RAY[ _-]?SUM|VRT?|SSD|RENDER(ED|ING)?|SUB|SUBTRACT(ED|ION)?|DSA|FUSED|FUSION|DIVISION|MULTIPLICATION|MASKED|STD_DEVIATION|SCREEN(SHOT)?|STRAIGHTENED|UNFOLDED|ENDO(SCOPY)?|DRR|OVERLAY|BONE[ _-]?REMOV(ED|AL))([^A-Z]|$)')
            )
          ) AS reformatted,
          LOGICAL_OR(is_enhanced OR COALESCE(SAFE_CAST(TRIM(parts[SAFE_OFFSET(7)]) AS INT64) > 1, FALSE)) AS multiframe,
          MIN(parts[SAFE_OFFSET(3)]) < MAX(parts[SAFE_OFFSET(3)]) AS several_frames,
          MAX(parts[SAFE_OFFSET(3)]) = '' AS no_frame,
          LOGICAL_OR(bad_rescale) AS bad_rescale,
          LOGICAL_OR(
            NOT bad_rescale AND (
              rescale_type NOT IN ('', 'HU', 'US')
              OR REGEXP_CONTAINS(image_type, r'(^|[^A-Z])(MAT_(SPECIFIC|FRACTIONAL|VALUE_BASED)|EFF_ATOMIC_NUM|Z[ _-]?EFF|EFF(ECTIVE)?[ _-]?Z|RHO([ _-]?Z)?|ELECTRON[ _-]?DENSITY|E[ _-]?DENSITY|IODINE|QUANTITY|PARAMETRIC|CBF|CBV|MTT|TTP|TMAX|BLOOD[ _-]?(FLOW|VOLUME))([^A-Z]|$)')
              OR COALESCE(
                ABS(slope - FLOOR(slope + 0.5)) > 1e-7 OR ABS(intercept - FLOOR(intercept + 0.5)) > 1e-3, FALSE
              )
            )
          ) AS not_hu,
          MIN(rescale_type) AS first_rescale_type,
          MAX(rescale_type) AS last_rescale_type,
          MIN(NULLIF(TRIM(parts[SAFE_OFFSET(13)]), '')) AS ImageType,
          MIN(NULLIF(TRIM(parts[SAFE_OFFSET(21)]), '')) AS Manufacturer,
          MIN(NULLIF(TRIM(parts[SAFE_OFFSET(22)]), '')) AS ManufacturerModelName,
          MIN(NULLIF(TRIM(parts[SAFE_OFFSET(18)]), '')) AS ConvolutionKernel,
          MIN(NULLIF(TRIM(parts[SAFE_OFFSET(19)]), '')) AS ContrastBolusAgent,
          MIN(NULLIF(TRIM(parts[SAFE_OFFSET(23)]), '')) AS BodyPartExamined,
          MIN(NULLIF(TRIM(parts[SAFE_OFFSET(24)]), '')) AS PatientPosition,
          MIN(NULLIF(TRIM(parts[SAFE_OFFSET(20)]), '')) AS SeriesDescription,
          MIN(NULLIF(TRIM(parts[SAFE_OFFSET(25)]), '')) AS StudyDate,
          MIN(NULLIF(TRIM(parts[SAFE_OFFSET(26)]), '')) AS PatientAge,
          MIN(NULLIF(TRIM(parts[SAFE_OFFSET(27)]), '')) AS PatientSex,
          LOGICAL_OR(ARRAY_LENGTH(@manufacturers) > 0 AND (TRIM(parts[SAFE_OFFSET(21)]) != '' AND NOT REGEXP_CONTAINS(UPPER(parts[SAFE_OFFSET(21)]), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@manufacturers, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')))) AS manufacturers_fails,
          LOGICAL_OR(ARRAY_LENGTH(@manufacturers) > 0 AND TRIM(parts[SAFE_OFFSET(21)]) = '') AS manufacturers_missing,
          LOGICAL_OR(ARRAY_LENGTH(@models) > 0 AND (TRIM(parts[SAFE_OFFSET(22)]) != '' AND NOT REGEXP_CONTAINS(UPPER(parts[SAFE_OFFSET(22)]), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@models, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')))) AS models_fails,
          LOGICAL_OR(ARRAY_LENGTH(@models) > 0 AND TRIM(parts[SAFE_OFFSET(22)]) = '') AS models_missing,
          LOGICAL_OR(ARRAY_LENGTH(@kernels) > 0 AND (TRIM(parts[SAFE_OFFSET(18)]) != '' AND NOT REGEXP_CONTAINS(UPPER(SPLIT(parts[SAFE_OFFSET(18)], '\\')[SAFE_OFFSET(0)]), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@kernels, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')))) AS kernels_fails,
          LOGICAL_OR(ARRAY_LENGTH(@kernels) > 0 AND TRIM(parts[SAFE_OFFSET(18)]) = '') AS kernels_missing,
          LOGICAL_OR(ARRAY_LENGTH(@body_parts) > 0 AND (TRIM(parts[SAFE_OFFSET(23)]) != '' AND NOT REGEXP_CONTAINS(UPPER(parts[SAFE_OFFSET(23)]), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@body_parts, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')))) AS body_parts_fails,
          LOGICAL_OR(ARRAY_LENGTH(@body_parts) > 0 AND TRIM(parts[SAFE_OFFSET(23)]) = '') AS body_parts_missing,
          LOGICAL_OR(ARRAY_LENGTH(@positions) > 0 AND (TRIM(parts[SAFE_OFFSET(24)]) != '' AND NOT REGEXP_CONTAINS(UPPER(parts[SAFE_OFFSET(24)]), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@positions, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')))) AS positions_fails,
          LOGICAL_OR(ARRAY_LENGTH(@positions) > 0 AND TRIM(parts[SAFE_OFFSET(24)]) = '') AS positions_missing,
          LOGICAL_OR(ARRAY_LENGTH(@descriptions) > 0 AND (TRIM(parts[SAFE_OFFSET(20)]) != '' AND NOT REGEXP_CONTAINS(UPPER(parts[SAFE_OFFSET(20)]), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@descriptions, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')))) AS descriptions_fails,
          LOGICAL_OR(ARRAY_LENGTH(@descriptions) > 0 AND TRIM(parts[SAFE_OFFSET(20)]) = '') AS descriptions_missing,
          LOGICAL_OR(@contrast IS NOT NULL AND ((NOT REGEXP_CONTAINS(UPPER(parts[SAFE_OFFSET(19)]), r'^\s*(|NO|NONE|N|0)\s*$')) != (@contrast = 'yes'))) AS contrast_fails,
          LOGICAL_OR(@exclude_derived AND (REGEXP_CONTAINS(UPPER(parts[SAFE_OFFSET(13)]), r'^\s*DERIVED\s*(\\|$)'))) AS exclude_derived_fails,
          LOGICAL_OR(@exclude_derived AND TRIM(parts[SAFE_OFFSET(13)]) = '') AS exclude_derived_missing,
          LOGICAL_OR(ARRAY_LENGTH(@sexes) > 0 AND (TRIM(parts[SAFE_OFFSET(27)]) != '' AND NOT REGEXP_CONTAINS(UPPER(parts[SAFE_OFFSET(27)]), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@sexes, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')))) AS sexes_fails,
          LOGICAL_OR(ARRAY_LENGTH(@sexes) > 0 AND TRIM(parts[SAFE_OFFSET(27)]) = '') AS sexes_missing,
          LOGICAL_OR((@age_min IS NOT NULL OR @age_max IS NOT NULL) AND (COALESCE(NULLIF(SAFE_CAST(REGEXP_EXTRACT(parts[SAFE_OFFSET(26)], r'^\s*([0-9]{1,3})[DWMYdwmy]\s*$') AS FLOAT64), IF(UPPER(parts[SAFE_OFFSET(26)]) LIKE '%Y%', 0, -1)) / CASE UPPER(SUBSTR(TRIM(parts[SAFE_OFFSET(26)]), -1)) WHEN 'Y' THEN 1 WHEN 'M' THEN 12 WHEN 'W' THEN 52.1775 WHEN 'D' THEN 365.25 END < @age_min, FALSE) OR COALESCE(NULLIF(SAFE_CAST(REGEXP_EXTRACT(parts[SAFE_OFFSET(26)], r'^\s*([0-9]{1,3})[DWMYdwmy]\s*$') AS FLOAT64), IF(UPPER(parts[SAFE_OFFSET(26)]) LIKE '%Y%', 0, -1)) / CASE UPPER(SUBSTR(TRIM(parts[SAFE_OFFSET(26)]), -1)) WHEN 'Y' THEN 1 WHEN 'M' THEN 12 WHEN 'W' THEN 52.1775 WHEN 'D' THEN 365.25 END > @age_max, FALSE))) AS age_fails,
          LOGICAL_OR((@age_min IS NOT NULL OR @age_max IS NOT NULL) AND (NULLIF(SAFE_CAST(REGEXP_EXTRACT(parts[SAFE_OFFSET(26)], r'^\s*([0-9]{1,3})[DWMYdwmy]\s*$') AS FLOAT64), IF(UPPER(parts[SAFE_OFFSET(26)]) LIKE '%Y%', 0, -1)) / CASE UPPER(SUBSTR(TRIM(parts[SAFE_OFFSET(26)]), -1)) WHEN 'Y' THEN 1 WHEN 'M' THEN 12 WHEN 'W' THEN 52.1775 WHEN 'D' THEN 365.25 END) IS NULL) AS age_missing,
          LOGICAL_OR((@study_date_min IS NOT NULL OR @study_date_max IS NOT NULL) AND (COALESCE(NULLIF(REPLACE(parts[SAFE_OFFSET(25)], '-', ''), '') < REPLACE(@study_date_min, '-', ''), FALSE) OR COALESCE(NULLIF(REPLACE(parts[SAFE_OFFSET(25)], '-', ''), '') > REPLACE(@study_date_max, '-', ''), FALSE))) AS study_date_fails,
          LOGICAL_OR((@study_date_min IS NOT NULL OR @study_date_max IS NOT NULL) AND (NULLIF(REPLACE(parts[SAFE_OFFSET(25)], '-', ''), '')) IS NULL) AS study_date_missing,
          LOGICAL_OR(TRIM(parts[SAFE_OFFSET(11)]) = '01') AS lossy,
          COALESCE(MIN(parts[SAFE_OFFSET(2)]) < MAX(parts[SAFE_OFFSET(2)]), FALSE)
          OR COALESCE(MIN(parts[SAFE_OFFSET(1)]) < MAX(parts[SAFE_OFFSET(1)]), FALSE)
          OR COALESCE(MIN(NULLIF(parts[SAFE_OFFSET(0)], '')) < MAX(parts[SAFE_OFFSET(0)]), FALSE) AS mixed,
          LOGICAL_OR(
            NOT REGEXP_CONTAINS(parts[SAFE_OFFSET(2)], r'^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$')
            OR CHAR_LENGTH(parts[SAFE_OFFSET(2)]) > 64
            OR (
              parts[SAFE_OFFSET(3)] != ''
              AND NOT REGEXP_CONTAINS(parts[SAFE_OFFSET(3)], r'^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$')
            )
            OR CHAR_LENGTH(parts[SAFE_OFFSET(3)]) > 64
            OR REGEXP_CONTAINS(parts[SAFE_OFFSET(1)], r'[\\\x00-\x1f\x7f\x{FFFD}]') OR CHAR_LENGTH(TRIM(parts[SAFE_OFFSET(1)])) > 64
            OR REGEXP_CONTAINS(parts[SAFE_OFFSET(28)], r'[\\\x00-\x1f\x7f\x{FFFD}]') OR CHAR_LENGTH(TRIM(parts[SAFE_OFFSET(28)])) > 16
            OR REGEXP_CONTAINS(parts[SAFE_OFFSET(29)], r'[\\\x00-\x1f\x7f\x{FFFD}]') OR CHAR_LENGTH(TRIM(parts[SAFE_OFFSET(29)])) > 16
            OR ARRAY_LENGTH(parts) != 31
          ) AS unsafe_header
        FROM (
          SELECT
            *,
            rescaled AND COALESCE(slope = 0 OR slope IS NULL OR intercept IS NULL, TRUE) AS bad_rescale
          FROM (
            SELECT
              parts,
              UPPER(parts[SAFE_OFFSET(13)]) AS image_type,
              parts[SAFE_OFFSET(6)] = '1.2.840.10008.5.1.4.1.1.2' AS is_ct,
              parts[SAFE_OFFSET(6)] IN ('1.2.840.10008.5.1.4.1.1.2.1', '1.2.840.10008.5.1.4.1.1.2.2') AS is_enhanced,
              TRIM(parts[SAFE_OFFSET(8)]) != '' OR TRIM(parts[SAFE_OFFSET(9)]) != '' AS rescaled,
              -- no rescale reaches 1e10, NaN and infinity are none
              IF(
                ABS(SAFE_CAST(TRIM(parts[SAFE_OFFSET(8)]) AS FLOAT64)) < 1e10,
                SAFE_CAST(TRIM(parts[SAFE_OFFSET(8)]) AS FLOAT64),
                NULL
              ) AS slope,
              IF(
                ABS(SAFE_CAST(TRIM(parts[SAFE_OFFSET(9)]) AS FLOAT64)) < 1e10,
                SAFE_CAST(TRIM(parts[SAFE_OFFSET(9)]) AS FLOAT64),
                NULL
              ) AS intercept,
              UPPER(TRIM(parts[SAFE_OFFSET(10)])) AS rescale_type
            FROM (
              SELECT SPLIT(entry.header, '\n|\n') AS parts
              FROM UNNEST(headers) AS entry
            )
          )
        )
      ) AS facts,
      -- attributes that divide the slices into groups: a value comes back after another one
      (
        SELECT
          CONCAT(
            IF(
              COUNTIF(parts_before IS NULL OR AcquisitionNumber_mark != AcquisitionNumber_before) > COUNT(DISTINCT AcquisitionNumber_mark),
              CONCAT('AcquisitionNumber: ', MIN(AcquisitionNumber_mark), ' ... ', MAX(AcquisitionNumber_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR TemporalPositionIdentifier_mark != TemporalPositionIdentifier_before) > COUNT(DISTINCT TemporalPositionIdentifier_mark),
              CONCAT('TemporalPositionIdentifier: ', MIN(TemporalPositionIdentifier_mark), ' ... ', MAX(TemporalPositionIdentifier_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR ContrastBolusAgent_mark != ContrastBolusAgent_before) > COUNT(DISTINCT ContrastBolusAgent_mark),
              CONCAT('ContrastBolusAgent: ', MIN(ContrastBolusAgent_mark), ' ... ', MAX(ContrastBolusAgent_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR ConvolutionKernel_mark != ConvolutionKernel_before) > COUNT(DISTINCT ConvolutionKernel_mark),
              CONCAT('ConvolutionKernel: ', MIN(ConvolutionKernel_mark), ' ... ', MAX(ConvolutionKernel_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR KVP_mark != KVP_before) > COUNT(DISTINCT KVP_mark),
              CONCAT('KVP: ', MIN(KVP_mark), ' ... ', MAX(KVP_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR FilterType_mark != FilterType_before) > COUNT(DISTINCT FilterType_mark),
              CONCAT('FilterType: ', MIN(FilterType_mark), ' ... ', MAX(FilterType_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR ImageType3_mark != ImageType3_before) > COUNT(DISTINCT ImageType3_mark),
              CONCAT('ImageType3: ', MIN(ImageType3_mark), ' ... ', MAX(ImageType3_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR ImageType4_mark != ImageType4_before) > COUNT(DISTINCT ImageType4_mark),
              CONCAT('ImageType4: ', MIN(ImageType4_mark), ' ... ', MAX(ImageType4_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR ImageType5_mark != ImageType5_before) > COUNT(DISTINCT ImageType5_mark),
              CONCAT('ImageType5: ', MIN(ImageType5_mark), ' ... ', MAX(ImageType5_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR SeriesDescription_mark != SeriesDescription_before) > COUNT(DISTINCT SeriesDescription_mark),
              CONCAT('SeriesDescription: ', MIN(SeriesDescription_mark), ' ... ', MAX(SeriesDescription_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR SeriesNumber_mark != SeriesNumber_before) > COUNT(DISTINCT SeriesNumber_mark),
              CONCAT('SeriesNumber: ', MIN(SeriesNumber_mark), ' ... ', MAX(SeriesNumber_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR SliceThickness_mark != SliceThickness_before) > COUNT(DISTINCT SliceThickness_mark),
              CONCAT('SliceThickness: ', MIN(SliceThickness_mark), ' ... ', MAX(SliceThickness_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR PatientPosition_mark != PatientPosition_before) > COUNT(DISTINCT PatientPosition_mark),
              CONCAT('PatientPosition: ', MIN(PatientPosition_mark), ' ... ', MAX(PatientPosition_mark), '; '),
              ''
            ),
            IF(
              COUNTIF(parts_before IS NULL OR ManufacturerModelName_mark != ManufacturerModelName_before) > COUNT(DISTINCT ManufacturerModelName_mark),
              CONCAT('ManufacturerModelName: ', MIN(ManufacturerModelName_mark), ' ... ', MAX(ManufacturerModelName_mark), '; '),
              ''
            )
          )
        FROM (
          SELECT
            UPPER(TRIM(parts[SAFE_OFFSET(14)])) AS AcquisitionNumber_mark,
            UPPER(TRIM(parts_before[SAFE_OFFSET(14)])) AS AcquisitionNumber_before,
            UPPER(TRIM(parts[SAFE_OFFSET(15)])) AS TemporalPositionIdentifier_mark,
            UPPER(TRIM(parts_before[SAFE_OFFSET(15)])) AS TemporalPositionIdentifier_before,
            UPPER(TRIM(parts[SAFE_OFFSET(19)])) AS ContrastBolusAgent_mark,
            UPPER(TRIM(parts_before[SAFE_OFFSET(19)])) AS ContrastBolusAgent_before,
            UPPER(TRIM(parts[SAFE_OFFSET(18)])) AS ConvolutionKernel_mark,
            UPPER(TRIM(parts_before[SAFE_OFFSET(18)])) AS ConvolutionKernel_before,
            COALESCE(
                CAST(CAST(FLOOR(IF(ABS(SAFE_CAST(TRIM(parts[SAFE_OFFSET(16)]) AS FLOAT64)) < 1e9, SAFE_CAST(TRIM(parts[SAFE_OFFSET(16)]) AS FLOAT64), NULL) + 0.5) AS INT64) AS STRING),
                UPPER(TRIM(parts[SAFE_OFFSET(16)]))
              ) AS KVP_mark,
            COALESCE(
                CAST(CAST(FLOOR(IF(ABS(SAFE_CAST(TRIM(parts_before[SAFE_OFFSET(16)]) AS FLOAT64)) < 1e9, SAFE_CAST(TRIM(parts_before[SAFE_OFFSET(16)]) AS FLOAT64), NULL) + 0.5) AS INT64) AS STRING),
                UPPER(TRIM(parts_before[SAFE_OFFSET(16)]))
              ) AS KVP_before,
            UPPER(TRIM(parts[SAFE_OFFSET(17)])) AS FilterType_mark,
            UPPER(TRIM(parts_before[SAFE_OFFSET(17)])) AS FilterType_before,
            COALESCE(UPPER(TRIM(SPLIT(parts[SAFE_OFFSET(13)], '\\')[SAFE_OFFSET(2)])), '') AS ImageType3_mark,
            COALESCE(UPPER(TRIM(SPLIT(parts_before[SAFE_OFFSET(13)], '\\')[SAFE_OFFSET(2)])), '') AS ImageType3_before,
            COALESCE(UPPER(TRIM(SPLIT(parts[SAFE_OFFSET(13)], '\\')[SAFE_OFFSET(3)])), '') AS ImageType4_mark,
            COALESCE(UPPER(TRIM(SPLIT(parts_before[SAFE_OFFSET(13)], '\\')[SAFE_OFFSET(3)])), '') AS ImageType4_before,
            COALESCE(REGEXP_EXTRACT(UPPER(parts[SAFE_OFFSET(13)]), r'^(?:[^\\]*\\){4}(.*)$'), '') AS ImageType5_mark,
            COALESCE(REGEXP_EXTRACT(UPPER(parts_before[SAFE_OFFSET(13)]), r'^(?:[^\\]*\\){4}(.*)$'), '') AS ImageType5_before,
            UPPER(TRIM(parts[SAFE_OFFSET(20)])) AS SeriesDescription_mark,
            UPPER(TRIM(parts_before[SAFE_OFFSET(20)])) AS SeriesDescription_before,
            UPPER(TRIM(parts[SAFE_OFFSET(30)])) AS SeriesNumber_mark,
            UPPER(TRIM(parts_before[SAFE_OFFSET(30)])) AS SeriesNumber_before,
            COALESCE(
                FORMAT('%.2f', IF(ABS(SAFE_CAST(TRIM(parts[SAFE_OFFSET(12)]) AS FLOAT64)) < 1e9, SAFE_CAST(TRIM(parts[SAFE_OFFSET(12)]) AS FLOAT64), NULL)),
                UPPER(TRIM(parts[SAFE_OFFSET(12)]))
              ) AS SliceThickness_mark,
            COALESCE(
                FORMAT('%.2f', IF(ABS(SAFE_CAST(TRIM(parts_before[SAFE_OFFSET(12)]) AS FLOAT64)) < 1e9, SAFE_CAST(TRIM(parts_before[SAFE_OFFSET(12)]) AS FLOAT64), NULL)),
                UPPER(TRIM(parts_before[SAFE_OFFSET(12)]))
              ) AS SliceThickness_before,
            UPPER(TRIM(parts[SAFE_OFFSET(24)])) AS PatientPosition_mark,
            UPPER(TRIM(parts_before[SAFE_OFFSET(24)])) AS PatientPosition_before,
            UPPER(TRIM(parts[SAFE_OFFSET(22)])) AS ManufacturerModelName_mark,
            UPPER(TRIM(parts_before[SAFE_OFFSET(22)])) AS ManufacturerModelName_before,
            parts_before
          FROM (
            SELECT
              SPLIT(entry.header, '\n|\n') AS parts,
              SPLIT(entry.before, '\n|\n') AS parts_before
            FROM UNNEST(IF(ARRAY_LENGTH(headers) > 1, headers, [])) AS entry
          )
        )
      ) AS mark_mixtures
    FROM series
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
    FROM described
    LEFT JOIN others USING (SeriesInstanceUID)
  ),

  -- what only all slices show: holes, and times that divide the slices into groups
  compared AS (
    SELECT
      *,
      SeriesInstanceUID IN UNNEST(@incomplete) AS lacks_slices,
      (
        SELECT AS STRUCT
          -- every gap is the lower median gap times a whole number, within tolerance, and one of them twice or more
          base > 0
          AND LOGICAL_AND(
            COALESCE(
              FLOOR(SAFE_DIVIDE(slice.gap, base) + 0.5) >= 1
              AND ABS(slice.gap - FLOOR(SAFE_DIVIDE(slice.gap, base) + 0.5) * base)
              <= LEAST(GREATEST(@spacing_relative * base, @spacing_absolute), base / 4),
              TRUE
            )
          )
          AND LOGICAL_OR(COALESCE(FLOOR(SAFE_DIVIDE(slice.gap, base) + 0.5) >= 2, FALSE)) AS holes,
          acquired_missing >= 2
          OR (
            acquired_forward > 0
            AND acquired_back > 0
            AND (
              (
                COUNTIF(slice.acquired IS NOT NULL AND (slice.acquired_before IS NULL OR slice.acquired != slice.acquired_before)) > COUNT(DISTINCT slice.acquired)
                AND (
                  5 * LEAST(acquired_forward, acquired_back) >= acquired_last - acquired_first
                  OR COUNTIF(slice.acquired IS NOT NULL AND (slice.acquired_before IS NULL OR slice.acquired != slice.acquired_before)) >= 3 * COUNT(DISTINCT slice.acquired)
                )
              )
              OR (
                COUNTIF(
                  (2 * slice.acquired >= acquired_first + acquired_last)
                  != (2 * slice.acquired_before >= acquired_first + acquired_last)
                ) >= 2
                AND 5 * (
                  MIN(IF(2 * slice.acquired >= acquired_first + acquired_last, slice.acquired, NULL))
                  - MAX(IF(2 * slice.acquired < acquired_first + acquired_last, slice.acquired, NULL))
                ) >= acquired_last - acquired_first
              )
            )
          ) AS acquired_mixed,
          made_missing >= 2
          OR (
            made_forward > 0
            AND made_back > 0
            AND (
              (
                COUNTIF(slice.made IS NOT NULL AND (slice.made_before IS NULL OR slice.made != slice.made_before)) > COUNT(DISTINCT slice.made)
                AND (
                  5 * LEAST(made_forward, made_back) >= made_last - made_first
                  OR COUNTIF(slice.made IS NOT NULL AND (slice.made_before IS NULL OR slice.made != slice.made_before)) >= 3 * COUNT(DISTINCT slice.made)
                )
              )
              OR (
                COUNTIF(
                  (2 * slice.made >= made_first + made_last)
                  != (2 * slice.made_before >= made_first + made_last)
                ) >= 2
                AND 5 * (
                  MIN(IF(2 * slice.made >= made_first + made_last, slice.made, NULL))
                  - MAX(IF(2 * slice.made < made_first + made_last, slice.made, NULL))
                ) >= made_last - made_first
              )
            )
          ) AS made_mixed
        FROM
          UNNEST(
            IF(
              NOT uniform OR (acquired_forward > 0 AND acquired_back > 0) OR (made_forward > 0 AND made_back > 0),
              slices,
              []
            )
          ) AS slice
      ) AS order_
    FROM spaced
  ),

  named AS (
    SELECT
      *,
      RTRIM(
        CONCAT(
          mark_mixtures,
          IF(
            COALESCE(order_.acquired_mixed, FALSE),
            FORMAT(
              'AcquisitionTime: %02d:%02d:%02d ... %02d:%02d:%02d; ',
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
            COALESCE(order_.made_mixed, FALSE),
            FORMAT(
              'ContentTime: %02d:%02d:%02d ... %02d:%02d:%02d; ',
              DIV(made_first, 3600000000),
              MOD(DIV(made_first, 60000000), 60),
              MOD(DIV(made_first, 1000000), 60),
              DIV(made_last, 3600000000),
              MOD(DIV(made_last, 60000000), 60),
              MOD(DIV(made_last, 1000000), 60)
            ),
            ''
          )
        ),
        '; '
      ) AS mixtures
    FROM compared
  ),

  reasoned AS (
    SELECT
      *,
      ordered AND NOT same_place AND mixtures != '' AS is_mixed,
      ARRAY_CONCAT(
        IF(facts.not_ct OR other_modality IS NOT NULL, ['NOT_CT'], []),
        IF(facts.localizer, ['LOCALIZER'], []),
        IF(facts.reformatted, ['DERIVED_REFORMATTED'], []),
        IF(facts.multiframe, ['MULTIFRAME'], []),
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
        IF(ordered AND NOT uniform AND COALESCE(order_.holes, FALSE), ['MISSING_SLICE'], []),
        IF(ordered AND NOT uniform AND NOT COALESCE(order_.holes, FALSE), ['IRREGULAR_SPACING'], []),
        IF(facts.several_frames, ['MULTI_FRAME_OF_REFERENCE'], []),
        IF(facts.no_frame, ['MISSING_FRAME_OF_REFERENCE'], []),
        IF(facts.not_hu AND NOT @allow_not_hu, ['NOT_HU'], []),
        IF(@near_axial AND NOT axial, ['NOT_AXIAL'], []),
        IF(
          (@slice_thickness_min IS NOT NULL AND COALESCE(facts.thinnest < @slice_thickness_min, TRUE))
          OR (@slice_thickness_max IS NOT NULL AND COALESCE(facts.slice_thickness > @slice_thickness_max, TRUE)),
          ['SLICE_THICKNESS'],
          []
        ),
        IF(
          COALESCE(num_instances < @slice_count_min, FALSE) OR COALESCE(num_instances > @slice_count_max, FALSE),
          ['SLICE_COUNT'],
          []
        ),
        IF(ARRAY_LENGTH(@manufacturers) > 0 AND facts.manufacturers_fails, ['MANUFACTURER'], []),
        IF(ARRAY_LENGTH(@models) > 0 AND facts.models_fails, ['MANUFACTURER_MODEL'], []),
        IF(ARRAY_LENGTH(@kernels) > 0 AND facts.kernels_fails, ['CONVOLUTION_KERNEL'], []),
        IF(ARRAY_LENGTH(@body_parts) > 0 AND facts.body_parts_fails, ['BODY_PART'], []),
        IF(ARRAY_LENGTH(@positions) > 0 AND facts.positions_fails, ['PATIENT_POSITION'], []),
        IF(ARRAY_LENGTH(@descriptions) > 0 AND facts.descriptions_fails, ['SERIES_DESCRIPTION'], []),
        IF(@contrast IS NOT NULL AND facts.contrast_fails, ['CONTRAST_AGENT'], []),
        IF(@exclude_derived AND facts.exclude_derived_fails, ['DERIVED_IMAGE'], []),
        IF(ARRAY_LENGTH(@sexes) > 0 AND facts.sexes_fails, ['PATIENT_SEX'], []),
        IF((@age_min IS NOT NULL OR @age_max IS NOT NULL) AND facts.age_fails, ['PATIENT_AGE'], []),
        IF((@study_date_min IS NOT NULL OR @study_date_max IS NOT NULL) AND facts.study_date_fails, ['STUDY_DATE'], []),
        IF(
          (ARRAY_LENGTH(@manufacturers) > 0 AND facts.manufacturers_missing)
          OR (ARRAY_LENGTH(@models) > 0 AND facts.models_missing)
          OR (ARRAY_LENGTH(@kernels) > 0 AND facts.kernels_missing)
          OR (ARRAY_LENGTH(@body_parts) > 0 AND facts.body_parts_missing)
          OR (ARRAY_LENGTH(@positions) > 0 AND facts.positions_missing)
          OR (ARRAY_LENGTH(@descriptions) > 0 AND facts.descriptions_missing)
          OR (@exclude_derived AND facts.exclude_derived_missing)
          OR (ARRAY_LENGTH(@sexes) > 0 AND facts.sexes_missing)
          OR ((@age_min IS NOT NULL OR @age_max IS NOT NULL) AND facts.age_missing)
          OR ((@study_date_min IS NOT NULL OR @study_date_max IS NOT NULL) AND facts.study_date_missing)
          , ['NOT_STATED'], []
        ),
        IF(NOT @allow_lossy AND facts.lossy, ['LOSSY_COMPRESSION'], []),
        IF(NOT positive_screen, ['CLINICAL_CRITERION'], []),
        IF(
          unsafe_instance OR facts.unsafe_header
          OR NOT REGEXP_CONTAINS(SeriesInstanceUID, r'^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*$') OR CHAR_LENGTH(SeriesInstanceUID) > 64,
          ['UNSAFE_IDENTIFIER'],
          []
        ),
        IF(volume_bytes > @max_volume, ['DECOMPRESSION_BOMB'], []),
        IF(repeated_uid, ['CONFLICTING_DUPLICATE'], []),
        IF(facts.mixed OR COALESCE(other_patient, FALSE), ['MIXED_SERIES'], []),
        IF(facts.bad_rescale, ['HU_RANGE'], [])
      ) AS own_reasons
    FROM named
  ),

  -- one series a study, among those that fail nothing
  ranked AS (
    SELECT
      *,
      ROW_NUMBER() OVER (
        PARTITION BY facts.StudyInstanceUID, ARRAY_LENGTH(own_reasons) = 0 AND NOT lacks_slices
        ORDER BY
          IF(@study_order = 'most_slices', -num_instances, 0),
          IF(@study_order IN ('most_slices', 'thinnest'), COALESCE(facts.slice_thickness, 1e9), 0),
          IF(@study_order = 'thinnest', -num_instances, 0),
          SeriesInstanceUID
      ) AS choice
    FROM reasoned
  )

SELECT
  facts.collection_id AS collection_id,
  facts.PatientID AS PatientID,
  facts.StudyInstanceUID AS StudyInstanceUID,
  SeriesInstanceUID,
  crdc_series_uuid,
  facts.FrameOfReferenceUID AS FrameOfReferenceUID,
  facts.license_short_name AS license_short_name,
  facts.Source_DOI AS Source_DOI,
  num_instances,
  size_bytes,
  IF(ordered, slice_spacing, NULL) AS slice_spacing,
  facts.slice_thickness AS slice_thickness,
  facts.ImageType AS ImageType,
  facts.Manufacturer AS Manufacturer,
  facts.ManufacturerModelName AS ManufacturerModelName,
  facts.ConvolutionKernel AS ConvolutionKernel,
  facts.ContrastBolusAgent AS ContrastBolusAgent,
  facts.BodyPartExamined AS BodyPartExamined,
  facts.PatientPosition AS PatientPosition,
  facts.SeriesDescription AS SeriesDescription,
  facts.StudyDate AS StudyDate,
  facts.PatientAge AS PatientAge,
  facts.PatientSex AS PatientSex,
  IF(
    @one_per_study AND ARRAY_LENGTH(own_reasons) = 0 AND choice > 1 AND NOT lacks_slices,
    ['OTHER_SERIES_OF_STUDY'],
    own_reasons
  ) AS failed,
  CASE
    WHEN other_modality IS NOT NULL THEN CONCAT('Modality: ', COALESCE(NULLIF(other_modality, ''), '(none)'))
    WHEN is_mixed THEN mixtures
    WHEN facts.not_hu AND NOT @allow_not_hu AND facts.last_rescale_type NOT IN ('', 'HU', 'US')
      THEN CONCAT('RescaleType: ', facts.first_rescale_type, IF(facts.first_rescale_type < facts.last_rescale_type, CONCAT(' ... ', facts.last_rescale_type), ''))
    ELSE NULLIF(
      RTRIM(
        CONCAT(
          IF(
            ARRAY_LENGTH(@manufacturers) > 0 AND (facts.manufacturers_fails OR facts.manufacturers_missing),
            CONCAT('Manufacturer: ', COALESCE(facts.Manufacturer, '(none)'), '; '),
            ''
          ),
          IF(
            ARRAY_LENGTH(@models) > 0 AND (facts.models_fails OR facts.models_missing),
            CONCAT('ManufacturerModelName: ', COALESCE(facts.ManufacturerModelName, '(none)'), '; '),
            ''
          ),
          IF(
            ARRAY_LENGTH(@kernels) > 0 AND (facts.kernels_fails OR facts.kernels_missing),
            CONCAT('ConvolutionKernel: ', COALESCE(facts.ConvolutionKernel, '(none)'), '; '),
            ''
          ),
          IF(
            ARRAY_LENGTH(@body_parts) > 0 AND (facts.body_parts_fails OR facts.body_parts_missing),
            CONCAT('BodyPartExamined: ', COALESCE(facts.BodyPartExamined, '(none)'), '; '),
            ''
          ),
          IF(
            ARRAY_LENGTH(@positions) > 0 AND (facts.positions_fails OR facts.positions_missing),
            CONCAT('PatientPosition: ', COALESCE(facts.PatientPosition, '(none)'), '; '),
            ''
          ),
          IF(
            ARRAY_LENGTH(@descriptions) > 0 AND (facts.descriptions_fails OR facts.descriptions_missing),
            CONCAT('SeriesDescription: ', COALESCE(facts.SeriesDescription, '(none)'), '; '),
            ''
          ),
          IF(
            @contrast IS NOT NULL AND (facts.contrast_fails),
            CONCAT('ContrastBolusAgent: ', COALESCE(facts.ContrastBolusAgent, '(none)'), '; '),
            ''
          ),
          IF(
            @exclude_derived AND (facts.exclude_derived_fails OR facts.exclude_derived_missing),
            CONCAT('ImageType: ', COALESCE(facts.ImageType, '(none)'), '; '),
            ''
          ),
          IF(
            ARRAY_LENGTH(@sexes) > 0 AND (facts.sexes_fails OR facts.sexes_missing),
            CONCAT('PatientSex: ', COALESCE(facts.PatientSex, '(none)'), '; '),
            ''
          ),
          IF(
            (@age_min IS NOT NULL OR @age_max IS NOT NULL) AND (facts.age_fails OR facts.age_missing),
            CONCAT('PatientAge: ', COALESCE(facts.PatientAge, '(none)'), '; '),
            ''
          ),
          IF(
            (@study_date_min IS NOT NULL OR @study_date_max IS NOT NULL) AND (facts.study_date_fails OR facts.study_date_missing),
            CONCAT('StudyDate: ', COALESCE(facts.StudyDate, '(none)'), '; '),
            ''
          )
        ),
        '; '
      ),
      ''
    )
  END AS detail,
  IF(
    ARRAY_LENGTH(own_reasons) = 0 AND (choice = 1 OR lacks_slices OR NOT @one_per_study),
    instances,
    []
  ) AS instances
FROM ranked
ORDER BY SeriesInstanceUID
