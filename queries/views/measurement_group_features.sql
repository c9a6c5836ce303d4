-- Purpose: measurement groups of the shape SRs, under the name that the published queries give them.
SELECT * FROM measurement_groups WHERE SeriesDescription LIKE '%Measurements%'
