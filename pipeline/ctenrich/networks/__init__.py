"""Networks other than nnU-Net: lungmask's 2D U-Net, bundles of MONAI, TorchScript files."""
