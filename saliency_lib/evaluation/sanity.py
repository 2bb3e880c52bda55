"""Sanity: does a map depend on the model's weights, and does it stay when the image hardly changes?"""
