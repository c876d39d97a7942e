"""Find every kind of pathology in CT without labels, as an extension of nnU-Net."""

__version__ = "0.1.0"
