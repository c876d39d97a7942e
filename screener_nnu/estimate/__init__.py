"""What a run will cost: a few scans go through all of it, and the rest is multiplied."""
