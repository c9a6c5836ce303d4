-- Purpose: measurement groups out of the raw attributes, with the column names of the published annotations' query.
-- Parameters:
--   @description STRING = "%Measurements%" -- LIKE pattern of the Series Description; "BPR%" gives the image-level groups
-- Columns:
--   SOPInstanceUID STRING -- SR
--   measurementGroup_number INT64 -- position in its container, from 0
--   trackingUniqueIdentifier STRING -- (112040, DCM)
--   trackingIdentifier STRING -- (112039, DCM)
--   PatientID STRING -- patient
--   SeriesDescription STRING -- of the SR
--   finding STRING -- meaning of the finding
--   sourceSegmentedSeriesUID STRING -- (121232, DCM)
--   segmentationInstanceUID STRING -- SEG
--   segmentationSegmentNumber INT64 -- segment
SELECT
  d.SOPInstanceUID,
  measurementGroup_number,
  (SELECT MIN(i.UID) FROM UNNEST(g.ContentSequence) AS i
    WHERE i.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeValue = '112040') AS trackingUniqueIdentifier,
  (SELECT MIN(i.TextValue) FROM UNNEST(g.ContentSequence) AS i
    WHERE i.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeValue = '112039') AS trackingIdentifier,
  d.PatientID,
  d.SeriesDescription,
  (SELECT MIN(i.ConceptCodeSequence[SAFE_OFFSET(0)].CodeMeaning) FROM UNNEST(g.ContentSequence) AS i
    WHERE i.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeValue = '121071') AS finding,
  (SELECT MIN(i.UID) FROM UNNEST(g.ContentSequence) AS i
    WHERE i.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeValue = '121232') AS sourceSegmentedSeriesUID,
  (SELECT MIN(i.ReferencedSOPSequence[SAFE_OFFSET(0)].ReferencedSOPInstanceUID) FROM UNNEST(g.ContentSequence) AS i
    WHERE i.ReferencedSOPSequence[SAFE_OFFSET(0)].ReferencedSOPClassUID = '1.2.840.10008.5.1.4.1.1.66.4'
  ) AS segmentationInstanceUID,
  (SELECT MIN(i.ReferencedSOPSequence[SAFE_OFFSET(0)].ReferencedSegmentNumber[SAFE_OFFSET(0)])
    FROM UNNEST(g.ContentSequence) AS i
    WHERE i.ReferencedSOPSequence[SAFE_OFFSET(0)].ReferencedSOPClassUID = '1.2.840.10008.5.1.4.1.1.66.4'
  ) AS segmentationSegmentNumber
FROM dicom_metadata AS d
CROSS JOIN UNNEST(d.ContentSequence) AS container
CROSS JOIN UNNEST(container.ContentSequence) AS g WITH OFFSET AS measurementGroup_number
WHERE d.Modality = 'SR'
  AND d.ContentTemplateSequence[SAFE_OFFSET(0)].TemplateIdentifier = '1500'
  AND d.SeriesDescription LIKE @description
  AND g.ValueType = 'CONTAINER'
  AND g.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeMeaning = 'Measurement Group'
ORDER BY SOPInstanceUID, measurementGroup_number
