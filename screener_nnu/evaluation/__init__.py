"""Metrics in 3D from streamed histograms, baselines without learning, and their report."""
