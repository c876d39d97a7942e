"""The least volume of a finding, wherever places of a map are listed, counted or judged."""

MINIMUM_ML = 0.1
"""A sphere of 6 mm; smaller places of a map are counted, not listed."""
MINIMUM_PX = 10
"""The least area (pixels) of a finding in a picture."""
PIXEL_ML = 0.999
"""Volume (ml) of a pixel, which is a voxel of 1 x 1 x 999 mm: areas are counted as volumes."""
