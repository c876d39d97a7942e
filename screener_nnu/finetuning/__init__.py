"""From a distilled student to a labelled dataset, on stock nnU-Net."""
