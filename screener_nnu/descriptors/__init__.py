"""What a detector sees of an image: descriptor maps from networks that others or we trained."""
