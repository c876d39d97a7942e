"""Ablations: a grid of losses, conditions and densities, trained and compared on one data set."""
