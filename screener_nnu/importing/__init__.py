"""Exports of a picture archive turned into nnU-Net raw datasets."""
