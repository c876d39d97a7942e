"""Folder for nnU-Net's `nnUNet_extTrainer`: modules here only re-export."""
