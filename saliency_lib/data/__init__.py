"""Data sets of images and of time series. Importing this fills DATASETS."""

# ruff: noqa: I001  (the order of the imports is that of the table)
from saliency_lib.core.plugins import accept_plugins
from saliency_lib.data.table import DATASETS, Dataset, Images, Split
from saliency_lib.data import embedded, shapes, folders, downloads, series, texts, sentences, references

__all__ = [
    "DATASETS", "Dataset", "Images", "Split", "Text", "downloads", "embedded", "folders", "references", "sentences", "series",
    "shapes", "texts",
]  # fmt: skip

accept_plugins(DATASETS)
