"""What a score in nats means: percentiles, case scores and thresholds from held-out scans."""
