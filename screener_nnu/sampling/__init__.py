"""Crop pairs, positives, colour jitter and block masks: batched, on the device, seeded."""
