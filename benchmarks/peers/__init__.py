"""Side by side with nnU-Net and a MONAI script on the same whole heads; README.md says how."""
