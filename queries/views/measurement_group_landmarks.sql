-- Purpose: measurement groups of the landmarks SRs, under the name that the published queries give them.
SELECT * FROM measurement_groups WHERE SeriesDescription LIKE 'BPR landmark annotations%'
