"""nnU-Net models, v1 and v2: plans, preprocessing, inference, postprocessing."""
