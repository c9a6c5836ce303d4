-- Purpose: CT series by IDC's series index (catalog idc), which has no geometry of instances.
--   Where volume_geometry_index was fetched, it tells the reasons that hold under our rules too. It compares
--   orientation and pixel spacing as text, and spacing to 1 % alone, where our rules compare numbers within a tolerance:
--   what fails only there, and what the index does not list, has geometry_known = false, and the verdict falls after the
--   fetch, by the same rules as everywhere.
-- Parameters:
--   @collections ARRAY<STRING> = [] -- collection_id of the collections to search; none: all
--   @patients ARRAY<STRING> = [] -- PatientID of the patients to search; none: all
--   @series ARRAY<STRING> = [] -- SeriesInstanceUID of the series to look at; none: all
--   @original_only BOOL = false -- leave out series that are analysis results (analysis_result_id)
--   @minimum_slices INT64 = 2 -- fewer slices are TOO_FEW_SLICES
--   @allow_not_hu BOOL = false -- admit values that are not Hounsfield units, where Image Type names a map
--   @slice_count_min INT64 = null -- smallest number of slices asked for
--   @slice_count_max INT64 = null -- largest number of slices asked for
--   @slice_thickness_min FLOAT64 = null -- smallest Slice Thickness asked for, mm, where ct_index tells it
--   @slice_thickness_max FLOAT64 = null -- largest Slice Thickness asked for, mm, where ct_index tells it
--   @manufacturers ARRAY<STRING> = [] -- manufacturers asked for, without regard to case; none: all
--   @index_doubts STRING = "fetch" {fetch, exclude} -- a series that fails only by the index's stricter comparison: fetch
--       it and let our rules decide, or exclude it at once
--   @one_per_study BOOL = false -- keep one series a study, by @study_order
--   @study_order STRING = "most_slices" {most_slices, thinnest, smallest_uid} -- which one: most slices, then thinnest,
--       then smallest UID; or thinnest, then most slices, then smallest UID; or smallest UID
-- Columns:
--   collection_id STRING -- collection
--   PatientID STRING -- patient
--   StudyInstanceUID STRING -- study
--   SeriesInstanceUID STRING -- series
--   crdc_series_uuid STRING -- identifier of this version of the series
--   license_short_name STRING -- licence
--   Source_DOI STRING -- DOI of the data
--   num_instances INT64 -- instances of the series
--   size_bytes INT64 [bytes] -- sum of the instances, as precise as the index (megabytes with six decimals)
--   series_url STRING -- folder of the series' objects
--   geometry_known BOOL -- whether volume_geometry_index tells the verdict
--   failed ARRAY<STRING> -- codes of all rules that the series is known to fail

WITH
  ct AS (
    SELECT
      i.collection_id,
      i.PatientID,
      i.StudyInstanceUID,
      i.SeriesInstanceUID,
      i.crdc_series_uuid,
      i.license_short_name,
      i.source_DOI,
      i.SOPClassUID,
      i.instanceCount,
      i.series_size_MB,
      i.series_aws_url,
      COALESCE(v.regularly_spaced_3d_volume, FALSE) AS regular,
      COALESCE(NOT v.single_orientation, FALSE) AS turned,
      COALESCE(NOT v.orthogonal_orientation, FALSE) AS skewed,
      COALESCE(NOT v.consistent_pixel_spacing, FALSE) AS several_spacings,
      COALESCE(NOT v.consistent_image_dimensions, FALSE) AS several_sizes,
      COALESCE(NOT v.unique_slice_positions, FALSE) AS same_place,
      COALESCE(NOT v.consistent_in_plane_row, FALSE) OR COALESCE(NOT v.consistent_in_plane_col, FALSE) AS drifts,
      COALESCE(NOT v.uniform_slice_spacing, FALSE) AS uneven,
      @index_doubts = 'exclude' AS strict,
      SAFE_CAST(c.SliceThickness AS FLOAT64) AS thickness,
      COALESCE(UPPER(ARRAY_TO_STRING(c.ImageType, '\\')), '') AS image_type,
      COALESCE(
        UPPER(TRIM(i.Manufacturer)) IN (SELECT UPPER(TRIM(name)) FROM UNNEST(@manufacturers) AS name), FALSE
      ) AS made_by
    FROM idc_index AS i
    LEFT JOIN volume_geometry_index AS v ON v.SeriesInstanceUID = i.SeriesInstanceUID
    LEFT JOIN ct_index AS c ON c.SeriesInstanceUID = i.SeriesInstanceUID
    WHERE
      i.Modality = 'CT'
      AND (ARRAY_LENGTH(@collections) = 0 OR i.collection_id IN UNNEST(@collections))
      AND (ARRAY_LENGTH(@patients) = 0 OR i.PatientID IN UNNEST(@patients))
      AND (ARRAY_LENGTH(@series) = 0 OR i.SeriesInstanceUID IN UNNEST(@series))
      AND (NOT @original_only OR i.analysis_result_id IS NULL)
  ),

  reasoned AS (
    SELECT
      *,
      ARRAY_CONCAT(
        IF(
          NOT COALESCE(
            SOPClassUID IN (
              '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.5.1.4.1.1.2.1', '1.2.840.10008.5.1.4.1.1.2.2'
            ),
            FALSE
          ),
          ['NOT_CT'],
          []
        ),
        IF(REGEXP_CONTAINS(image_type, r'(^|\\)\s*(LOCALIZER|SCOUT|TOPOGRAM)\s*(\\|$)'), ['LOCALIZER'], []),
        IF(
          REGEXP_CONTAINS(image_type, r'^\s*DERIVED\s*\\(.*[^A-Z])?(REFORMAT(TED)?|MPR|MPVR|CPR|CURVED|PROJECTION|SLAB|MIP|MINIP|M(AX|IN)[ _-]?I?P|MAXIMUM|MINIMUM|VRT?|SSD|RENDER(ED|ING)?|SUBTRACT(ED|ION)?|DSA|FUSED|FUSION|DIVISION|MULTIPLICATION|MASKED|STD_DEVIATION|SCREEN)([^A-Z]|$)'),
          ['DERIVED_REFORMATTED'],
          []
        ),
        IF(
          SOPClassUID IN ('1.2.840.10008.5.1.4.1.1.2.1', '1.2.840.10008.5.1.4.1.1.2.2'),
          ['MULTIFRAME'],
          []
        ),
        IF(turned AND strict, ['MULTI_ORIENTATION'], []),
        IF(skewed, ['NOT_ORTHOGONAL'], []),
        IF(several_spacings AND strict, ['MULTI_PIXEL_SPACING'], []),
        IF(several_sizes, ['MULTI_MATRIX'], []),
        IF(instanceCount > 1 AND instanceCount < @minimum_slices, ['TOO_FEW_SLICES'], []),
        IF(instanceCount = 1, ['ONE_SLICE'], []),
        IF(same_place AND (strict OR NOT turned), ['DUPLICATE_POSITION'], []),
        IF(drifts AND (strict OR NOT turned), ['LATERAL_DRIFT'], []),
        IF(uneven AND strict, ['IRREGULAR_SPACING'], []),
        IF(
          NOT @allow_not_hu AND REGEXP_CONTAINS(image_type, r'(^|[^A-Z])(MAT_(SPECIFIC|FRACTIONAL|VALUE_BASED)|EFF_ATOMIC_NUM|Z[ _-]?EFF|EFFECTIVE[ _-]?Z|ELECTRON[ _-]DENSITY|IODINE|QUANTITY)([^A-Z]|$)'),
          ['NOT_HU'],
          []
        ),
        IF(
          COALESCE(thickness < @slice_thickness_min, FALSE) OR COALESCE(thickness > @slice_thickness_max, FALSE),
          ['SLICE_THICKNESS'],
          []
        ),
        IF(
          COALESCE(instanceCount < @slice_count_min, FALSE) OR COALESCE(instanceCount > @slice_count_max, FALSE),
          ['SLICE_COUNT'],
          []
        ),
        IF(ARRAY_LENGTH(@manufacturers) > 0 AND NOT made_by, ['MANUFACTURER'], [])
      ) AS own_reasons
    FROM ct
  ),

  ranked AS (
    SELECT
      *,
      ROW_NUMBER() OVER (
        PARTITION BY StudyInstanceUID, ARRAY_LENGTH(own_reasons) = 0
        ORDER BY
          IF(@study_order = 'most_slices', -instanceCount, 0),
          IF(@study_order IN ('most_slices', 'thinnest'), COALESCE(thickness, 1e9), 0),
          IF(@study_order = 'thinnest', -instanceCount, 0),
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
  license_short_name,
  source_DOI AS Source_DOI,
  instanceCount AS num_instances,
  CAST(ROUND(series_size_MB * 1000000) AS INT64) AS size_bytes,
  REGEXP_REPLACE(series_aws_url, r'\*$', '') AS series_url,
  regular AS geometry_known,
  IF(
    @one_per_study AND ARRAY_LENGTH(own_reasons) = 0 AND choice > 1,
    ['OTHER_SERIES_OF_STUDY'],
    own_reasons
  ) AS failed
FROM ranked
ORDER BY SeriesInstanceUID
