-- Purpose: landmarks and regions out of the raw attributes, with the column names of the published annotations' queries.
-- Parameters:
--   @description STRING = "BPR landmark annotations%" -- LIKE pattern of the Series Description; "BPR region%": the regions
-- Columns:
--   PatientID STRING -- patient
--   SOPInstanceUID STRING -- SR
--   SeriesDescription STRING -- of the SR
--   measurementGroup_number INT64 -- position in its container, from 0
--   trackingIdentifier STRING -- (112039, DCM)
--   Quantity STRING -- meaning of the concept name (Finding Site)
--   Value STRING -- meaning of the anatomy
--   topographical_modifier STRING -- Top, Center or Bottom; NULL for regions
--   ReferencedSOPInstanceUID STRING -- slice
SELECT
  d.PatientID,
  d.SOPInstanceUID,
  d.SeriesDescription,
  measurementGroup_number,
  (SELECT MIN(i.TextValue) FROM UNNEST(g.ContentSequence) AS i
    WHERE i.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeValue = '112039') AS trackingIdentifier,
  n.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeMeaning AS Quantity,
  n.ConceptCodeSequence[SAFE_OFFSET(0)].CodeMeaning AS Value,
  (SELECT MIN(m.ConceptCodeSequence[SAFE_OFFSET(0)].CodeMeaning) FROM UNNEST(n.ContentSequence) AS m
    WHERE m.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeValue = '106233006') AS topographical_modifier,
  (SELECT MIN(i.ReferencedSOPSequence[SAFE_OFFSET(0)].ReferencedSOPInstanceUID) FROM UNNEST(g.ContentSequence) AS i
    WHERE i.ValueType = 'IMAGE') AS ReferencedSOPInstanceUID
FROM dicom_metadata AS d
CROSS JOIN UNNEST(d.ContentSequence) AS container
CROSS JOIN UNNEST(container.ContentSequence) AS g WITH OFFSET AS measurementGroup_number
CROSS JOIN UNNEST(g.ContentSequence) AS n
WHERE d.Modality = 'SR'
  AND d.SeriesDescription LIKE @description
  AND g.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeMeaning = 'Measurement Group'
  AND n.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeValue = '363698007'
ORDER BY SOPInstanceUID, measurementGroup_number, Value
