"""Training stages as nnU-Net trainers."""
