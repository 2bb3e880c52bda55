"""LIME on images: superpixels as masks, weighed by a ridge regression."""
