"""SIDU: thresholded feature maps as masks, weighed by similarity and uniqueness."""
