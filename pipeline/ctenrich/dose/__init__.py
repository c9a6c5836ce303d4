"""Dose of radiotherapy: read RT Dose objects, dose in structures with uncertainties, sums. For research only."""
