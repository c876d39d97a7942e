"""From a scan to a map: tiles, models, export."""
