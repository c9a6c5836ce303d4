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
--   @manufacturers ARRAY<STRING> = [] -- manufacturers asked for; case does not count, * is any text; none: all
--   @models ARRAY<STRING> = [] -- scanner models asked for (Manufacturer's Model Name); case does not count, * is any text; none: all
--   @body_parts ARRAY<STRING> = [] -- body parts examined that are asked for; case does not count, * is any text; none: all
--   @descriptions ARRAY<STRING> = [] -- series descriptions asked for; case does not count, * is any text; none: all
--   @exclude_derived BOOL = false -- leave out images whose Image Type begins with DERIVED
--   @sexes ARRAY<STRING> = [] -- patient's sexes asked for: M, F, O; case does not count, * is any text; none: all
--   @age_min FLOAT64 = null -- smallest age of the patient, years (000Y is an age that was removed)
--   @age_max FLOAT64 = null -- largest age of the patient, years (000Y is an age that was removed)
--   @study_date_min STRING = null -- smallest study date, as 2020-12-31 or 20201231
--   @study_date_max STRING = null -- largest study date, as 2020-12-31 or 20201231
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
--   slice_thickness FLOAT64 [mm] -- Slice Thickness, where ct_index tells it
--   Manufacturer STRING -- the attribute; null where the index has no value
--   ManufacturerModelName STRING -- the attribute; null where the index has no value
--   BodyPartExamined STRING -- the attribute; null where the index has no value
--   SeriesDescription STRING -- the attribute; null where the index has no value
--   ImageType STRING -- the attribute; null where the index has no value
--   StudyDate STRING -- the attribute; null where the index has no value
--   PatientAge STRING -- the attribute; null where the index has no value
--   PatientSex STRING -- the attribute; null where the index has no value
--   failed ARRAY<STRING> -- codes of all rules that the series is known to fail
--   detail STRING -- the attributes that a rule asked about and that it fails; null where there is nothing to add

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
      COALESCE(TRIM(i.Manufacturer), '') AS Manufacturer,
      COALESCE(TRIM(i.ManufacturerModelName), '') AS ManufacturerModelName,
      COALESCE(TRIM(i.BodyPartExamined), '') AS BodyPartExamined,
      COALESCE(TRIM(i.SeriesDescription), '') AS SeriesDescription,
      COALESCE(TRIM(ARRAY_TO_STRING(c.ImageType, '\\')), '') AS ImageType,
      COALESCE(TRIM(CAST(i.StudyDate AS STRING)), '') AS StudyDate,
      COALESCE(TRIM(i.PatientAge), '') AS PatientAge,
      COALESCE(TRIM(i.PatientSex), '') AS PatientSex,
      COALESCE(UPPER(ARRAY_TO_STRING(c.ImageType, '\\')), '') AS image_type
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
          SOPClassUID NOT IN (
            '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.5.1.4.1.1.2.1', '1.2.840.10008.5.1.4.1.1.2.2'
          ),
          ['NOT_CT'],
          []
        ),
        IF(REGEXP_CONTAINS(image_type, r'(^|\\)\s*(LOCALIZER|SCOUT|TOPOGRAM)\s*(\\|$)'), ['LOCALIZER'], []),
        IF(
          REGEXP_CONTAINS(image_type, r'^\s*DERIVED\s*\\(.*[^A-Z])?(REFORMAT(TED)?|MPR|MPVR|CPR|CURVED|PROJECTION|SLAB|MIP|MINIP|M(AX|IN)[ _-]?I?P|MAXIMUM|MINIMUM|TMIP|RAY[ _-]?SUM|VRT?|SSD|RENDER(ED|ING)?|SUB|SUBTRACT(ED|ION)?|DSA|FUSED|FUSION|DIVISION|MULTIPLICATION|MASKED|STD_DEVIATION|SCREEN(SHOT)?|STRAIGHTENED|UNFOLDED|ENDO(SCOPY)?|DRR|OVERLAY|BONE[ _-]?REMOV(ED|AL))([^A-Z]|$)'),
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
          NOT @allow_not_hu AND REGEXP_CONTAINS(image_type, r'(^|[^A-Z])(MAT_(SPECIFIC|FRACTIONAL|VALUE_BASED)|EFF_ATOMIC_NUM|Z[ _-]?EFF|EFF(ECTIVE)?[ _-]?Z|RHO([ _-]?Z)?|ELECTRON[ _-]?DENSITY|E[ _-]?DENSITY|IODINE|QUANTITY|PARAMETRIC|CBF|CBV|MTT|TTP|TMAX|BLOOD[ _-]?(FLOW|VOLUME))([^A-Z]|$)'),
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
        IF(ARRAY_LENGTH(@manufacturers) > 0 AND (TRIM(Manufacturer) != '' AND NOT REGEXP_CONTAINS(UPPER(Manufacturer), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@manufacturers, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$'))), ['MANUFACTURER'], []),
        IF(ARRAY_LENGTH(@models) > 0 AND (TRIM(ManufacturerModelName) != '' AND NOT REGEXP_CONTAINS(UPPER(ManufacturerModelName), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@models, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$'))), ['MANUFACTURER_MODEL'], []),
        IF(ARRAY_LENGTH(@body_parts) > 0 AND (TRIM(BodyPartExamined) != '' AND NOT REGEXP_CONTAINS(UPPER(BodyPartExamined), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@body_parts, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$'))), ['BODY_PART'], []),
        IF(ARRAY_LENGTH(@descriptions) > 0 AND (TRIM(SeriesDescription) != '' AND NOT REGEXP_CONTAINS(UPPER(SeriesDescription), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@descriptions, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$'))), ['SERIES_DESCRIPTION'], []),
        IF(@exclude_derived AND (REGEXP_CONTAINS(UPPER(ImageType), r'^\s*DERIVED\s*(\\|$)')), ['DERIVED_IMAGE'], []),
        IF(ARRAY_LENGTH(@sexes) > 0 AND (TRIM(PatientSex) != '' AND NOT REGEXP_CONTAINS(UPPER(PatientSex), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@sexes, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$'))), ['PATIENT_SEX'], []),
        IF((@age_min IS NOT NULL OR @age_max IS NOT NULL) AND (COALESCE(NULLIF(SAFE_CAST(REGEXP_EXTRACT(PatientAge, r'^\s*([0-9]{1,3})[DWMYdwmy]\s*$') AS FLOAT64), IF(UPPER(PatientAge) LIKE '%Y%', 0, -1)) / CASE UPPER(SUBSTR(TRIM(PatientAge), -1)) WHEN 'Y' THEN 1 WHEN 'M' THEN 12 WHEN 'W' THEN 52.1775 WHEN 'D' THEN 365.25 END < @age_min, FALSE) OR COALESCE(NULLIF(SAFE_CAST(REGEXP_EXTRACT(PatientAge, r'^\s*([0-9]{1,3})[DWMYdwmy]\s*$') AS FLOAT64), IF(UPPER(PatientAge) LIKE '%Y%', 0, -1)) / CASE UPPER(SUBSTR(TRIM(PatientAge), -1)) WHEN 'Y' THEN 1 WHEN 'M' THEN 12 WHEN 'W' THEN 52.1775 WHEN 'D' THEN 365.25 END > @age_max, FALSE)), ['PATIENT_AGE'], []),
        IF((@study_date_min IS NOT NULL OR @study_date_max IS NOT NULL) AND (COALESCE(NULLIF(REPLACE(StudyDate, '-', ''), '') < REPLACE(@study_date_min, '-', ''), FALSE) OR COALESCE(NULLIF(REPLACE(StudyDate, '-', ''), '') > REPLACE(@study_date_max, '-', ''), FALSE)), ['STUDY_DATE'], []),
        IF(
          (ARRAY_LENGTH(@manufacturers) > 0 AND TRIM(Manufacturer) = '')
          OR (ARRAY_LENGTH(@models) > 0 AND TRIM(ManufacturerModelName) = '')
          OR (ARRAY_LENGTH(@body_parts) > 0 AND TRIM(BodyPartExamined) = '')
          OR (ARRAY_LENGTH(@descriptions) > 0 AND TRIM(SeriesDescription) = '')
          OR (@exclude_derived AND TRIM(ImageType) = '')
          OR (ARRAY_LENGTH(@sexes) > 0 AND TRIM(PatientSex) = '')
          OR ((@age_min IS NOT NULL OR @age_max IS NOT NULL) AND (NULLIF(SAFE_CAST(REGEXP_EXTRACT(PatientAge, r'^\s*([0-9]{1,3})[DWMYdwmy]\s*$') AS FLOAT64), IF(UPPER(PatientAge) LIKE '%Y%', 0, -1)) / CASE UPPER(SUBSTR(TRIM(PatientAge), -1)) WHEN 'Y' THEN 1 WHEN 'M' THEN 12 WHEN 'W' THEN 52.1775 WHEN 'D' THEN 365.25 END) IS NULL)
          OR ((@study_date_min IS NOT NULL OR @study_date_max IS NOT NULL) AND (NULLIF(REPLACE(StudyDate, '-', ''), '')) IS NULL)
          , ['NOT_STATED'], []
        )
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
  thickness AS slice_thickness,
  NULLIF(Manufacturer, '') AS Manufacturer,
  NULLIF(ManufacturerModelName, '') AS ManufacturerModelName,
  NULLIF(BodyPartExamined, '') AS BodyPartExamined,
  NULLIF(SeriesDescription, '') AS SeriesDescription,
  NULLIF(ImageType, '') AS ImageType,
  NULLIF(StudyDate, '') AS StudyDate,
  NULLIF(PatientAge, '') AS PatientAge,
  NULLIF(PatientSex, '') AS PatientSex,
  IF(
    @one_per_study AND ARRAY_LENGTH(own_reasons) = 0 AND choice > 1,
    ['OTHER_SERIES_OF_STUDY'],
    own_reasons
  ) AS failed,
  NULLIF(
    RTRIM(
      CONCAT(
        IF(
          ARRAY_LENGTH(@manufacturers) > 0 AND (TRIM(Manufacturer) != '' AND NOT REGEXP_CONTAINS(UPPER(Manufacturer), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@manufacturers, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')) OR TRIM(Manufacturer) = ''),
          CONCAT('Manufacturer: ', COALESCE(NULLIF(Manufacturer, ''), '(none)'), '; '),
          ''
        ),
        IF(
          ARRAY_LENGTH(@models) > 0 AND (TRIM(ManufacturerModelName) != '' AND NOT REGEXP_CONTAINS(UPPER(ManufacturerModelName), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@models, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')) OR TRIM(ManufacturerModelName) = ''),
          CONCAT('ManufacturerModelName: ', COALESCE(NULLIF(ManufacturerModelName, ''), '(none)'), '; '),
          ''
        ),
        IF(
          ARRAY_LENGTH(@body_parts) > 0 AND (TRIM(BodyPartExamined) != '' AND NOT REGEXP_CONTAINS(UPPER(BodyPartExamined), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@body_parts, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')) OR TRIM(BodyPartExamined) = ''),
          CONCAT('BodyPartExamined: ', COALESCE(NULLIF(BodyPartExamined, ''), '(none)'), '; '),
          ''
        ),
        IF(
          ARRAY_LENGTH(@descriptions) > 0 AND (TRIM(SeriesDescription) != '' AND NOT REGEXP_CONTAINS(UPPER(SeriesDescription), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@descriptions, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')) OR TRIM(SeriesDescription) = ''),
          CONCAT('SeriesDescription: ', COALESCE(NULLIF(SeriesDescription, ''), '(none)'), '; '),
          ''
        ),
        IF(
          @exclude_derived AND (REGEXP_CONTAINS(UPPER(ImageType), r'^\s*DERIVED\s*(\\|$)') OR TRIM(ImageType) = ''),
          CONCAT('ImageType: ', COALESCE(NULLIF(ImageType, ''), '(none)'), '; '),
          ''
        ),
        IF(
          ARRAY_LENGTH(@sexes) > 0 AND (TRIM(PatientSex) != '' AND NOT REGEXP_CONTAINS(UPPER(PatientSex), CONCAT(r'^\s*(', REPLACE(REGEXP_REPLACE(REGEXP_REPLACE(UPPER(TRIM(ARRAY_TO_STRING(@sexes, '\n'))), r'([\\.+?()\[\]{}^$|])', r'\\\1'), r' *\n *', '|'), '*', '.*'), r')\s*$')) OR TRIM(PatientSex) = ''),
          CONCAT('PatientSex: ', COALESCE(NULLIF(PatientSex, ''), '(none)'), '; '),
          ''
        ),
        IF(
          (@age_min IS NOT NULL OR @age_max IS NOT NULL) AND (COALESCE(NULLIF(SAFE_CAST(REGEXP_EXTRACT(PatientAge, r'^\s*([0-9]{1,3})[DWMYdwmy]\s*$') AS FLOAT64), IF(UPPER(PatientAge) LIKE '%Y%', 0, -1)) / CASE UPPER(SUBSTR(TRIM(PatientAge), -1)) WHEN 'Y' THEN 1 WHEN 'M' THEN 12 WHEN 'W' THEN 52.1775 WHEN 'D' THEN 365.25 END < @age_min, FALSE) OR COALESCE(NULLIF(SAFE_CAST(REGEXP_EXTRACT(PatientAge, r'^\s*([0-9]{1,3})[DWMYdwmy]\s*$') AS FLOAT64), IF(UPPER(PatientAge) LIKE '%Y%', 0, -1)) / CASE UPPER(SUBSTR(TRIM(PatientAge), -1)) WHEN 'Y' THEN 1 WHEN 'M' THEN 12 WHEN 'W' THEN 52.1775 WHEN 'D' THEN 365.25 END > @age_max, FALSE) OR (NULLIF(SAFE_CAST(REGEXP_EXTRACT(PatientAge, r'^\s*([0-9]{1,3})[DWMYdwmy]\s*$') AS FLOAT64), IF(UPPER(PatientAge) LIKE '%Y%', 0, -1)) / CASE UPPER(SUBSTR(TRIM(PatientAge), -1)) WHEN 'Y' THEN 1 WHEN 'M' THEN 12 WHEN 'W' THEN 52.1775 WHEN 'D' THEN 365.25 END) IS NULL),
          CONCAT('PatientAge: ', COALESCE(NULLIF(PatientAge, ''), '(none)'), '; '),
          ''
        ),
        IF(
          (@study_date_min IS NOT NULL OR @study_date_max IS NOT NULL) AND (COALESCE(NULLIF(REPLACE(StudyDate, '-', ''), '') < REPLACE(@study_date_min, '-', ''), FALSE) OR COALESCE(NULLIF(REPLACE(StudyDate, '-', ''), '') > REPLACE(@study_date_max, '-', ''), FALSE) OR (NULLIF(REPLACE(StudyDate, '-', ''), '')) IS NULL),
          CONCAT('StudyDate: ', COALESCE(NULLIF(StudyDate, ''), '(none)'), '; '),
          ''
        )
      ),
      '; '
    ),
    ''
  ) AS detail
FROM ranked
ORDER BY SeriesInstanceUID
