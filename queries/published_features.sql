-- Purpose: radiomics features out of the raw attributes, with the column names of the published annotations' query.
-- Parameters:
--   @description STRING = "%Measurements%" -- LIKE pattern of the Series Description
-- Columns:
--   PatientID STRING -- patient
--   SOPInstanceUID STRING -- SR
--   SeriesDescription STRING -- of the SR
--   measurementGroup_number INT64 -- position in its container, from 0
--   Quantity STRING -- meaning of the feature
--   Value STRING -- the number as it is written
--   Units STRING -- UCUM
--   finding STRING -- meaning of the finding
--   findingSite STRING -- meaning of the finding site
SELECT
  d.PatientID,
  d.SOPInstanceUID,
  d.SeriesDescription,
  measurementGroup_number,
  n.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeMeaning AS Quantity,
  n.MeasuredValueSequence[SAFE_OFFSET(0)].NumericValue[SAFE_OFFSET(0)] AS Value,
  n.MeasuredValueSequence[SAFE_OFFSET(0)].MeasurementUnitsCodeSequence[SAFE_OFFSET(0)].CodeValue AS Units,
  (SELECT MIN(i.ConceptCodeSequence[SAFE_OFFSET(0)].CodeMeaning) FROM UNNEST(g.ContentSequence) AS i
    WHERE i.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeValue = '121071') AS finding,
  (SELECT MIN(i.ConceptCodeSequence[SAFE_OFFSET(0)].CodeMeaning) FROM UNNEST(g.ContentSequence) AS i
    WHERE i.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeValue = '363698007') AS findingSite
FROM dicom_metadata AS d
CROSS JOIN UNNEST(d.ContentSequence) AS container
CROSS JOIN UNNEST(container.ContentSequence) AS g WITH OFFSET AS measurementGroup_number
CROSS JOIN UNNEST(g.ContentSequence) AS n
WHERE d.Modality = 'SR'
  AND d.ContentTemplateSequence[SAFE_OFFSET(0)].TemplateIdentifier = '1500'
  AND d.SeriesDescription LIKE @description
  AND g.ConceptNameCodeSequence[SAFE_OFFSET(0)].CodeMeaning = 'Measurement Group'
  AND n.ValueType = 'NUM'
ORDER BY SOPInstanceUID, measurementGroup_number, Quantity
