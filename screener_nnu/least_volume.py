"""The least volume of a finding, wherever places of a map are listed, counted or judged."""

MINIMUM_ML = 0.1
"""A sphere of 6 mm; smaller places of a map are counted, not listed."""
