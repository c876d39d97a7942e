"""Fingerprint of unlabelled CT and the plan made from it."""
