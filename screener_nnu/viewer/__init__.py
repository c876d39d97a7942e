"""Anomaly maps to look at: a page a scan that needs nothing but a browser, and a picture."""
