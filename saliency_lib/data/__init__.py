"""Data sets of images and of time series. Importing this fills DATASETS."""

# ruff: noqa: I001
from saliency_lib.data.table import DATASETS, Dataset, Images, Split
from saliency_lib.data import datasets, series

__all__ = ["DATASETS", "Dataset", "Images", "Split", "datasets", "series"]
