"""The table of data sets, and what a data set returns."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saliency_lib.core.previews import strip, table
from saliency_lib.core.registry import Entry, Registry

TRAIN_AND_TEST = ("train", "test")


@dataclass(frozen=True)
class Text:
    """A text as it is read.

    Args:
        tokens: its words.
        offset: how many tokens of the document come before the first.
        lost: the share in [0, 1] of the tokens of the human rationale that are not read.
    """

    tokens: tuple[str, ...]
    offset: int = 0
    lost: float = 0.0


@dataclass(frozen=True, eq=False)
class Images:
    """Part of a split of a data set, in memory.

    Args:
        images: (N, C, H, W) float32 in [0, 1]; time series (N, 1, T, F) are not limited to [0, 1]; texts (N, 1, 1, T) are the
            numbers of their words, 0 after their end.
        labels: (N,) int64, indices into `classes`; -1 where the class is not known.
        classes: readable class names.
        indices: (N,) int64, position of each image in the whole split.
        masks: (N, H, W) bool, true on the object or on what is salient; None if the data set does not know it.
        names: the name of each image; None if the images have no names.
        texts: the words of each text; None of images.
        vocabulary: the words by their numbers; empty unless the set has texts.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    indices: Tensor
    masks: Tensor | None = None
    names: tuple[str, ...] | None = None
    texts: tuple[Text, ...] | None = None
    vocabulary: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = f"{self.images.shape[3]} tokens" if self.texts else " x ".join(map(str, self.images.shape[1:]))
        masks = ", with masks" if self.masks is not None else ""
        return f"Images({len(self)} of {shape}, {len(self.classes)} classes{masks})"

    def _repr_html_(self) -> str:
        if self.texts:
            beginnings = {str(row): " ".join(text.tokens[:12]) for row, text in enumerate(self.texts[:5])}
            return table(repr(self), beginnings)
        return strip(repr(self), self.images)

    def words(self, labels: Tensor) -> list[str]:
        """Return the readable names of labels (B,)."""
        return [self.classes[label] if label >= 0 else "class not known" for label in labels.tolist()]


@dataclass(frozen=True)
class Split:
    """A split of which nothing has been decoded yet.

    Args:
        total: how many images the split has.
        classes: readable class names.
        read: `read(indices, side)` returns the remaining fields of `Images`. Splits of image files take an option `resize`.
        sources: the files that alone determine the split besides the library's code: while they keep their size and time, the
            split is known to be the same without reading it. None means that it has to be read.
    """

    total: int
    classes: tuple[str, ...]
    read: Callable[..., dict[str, Any]]
    sources: Sequence[Path] | None = None


@dataclass(frozen=True, eq=False)
class Dataset(Entry):
    """A data set: (split="test", *, start, stop, stride, size, resize, download) -> Images.

    It is registered as a function (split, download) -> Split. Calling it loads the images `start`, `start + stride`, and so on
    before `stop`, with `size` pixels per side (the set's own side if None). A set of image files brings a picture to that side
    with `resize(picture, size)` if it is given.

    Args:
        shape: (channels, side) of an image.
        splits: the names of its splits.
        imagenet: whether labels index ImageNet's 1,000 classes.
        texts: whether its images are texts, of `side` tokens in one row.
        labelled: whether the classes of its images are known. If not, their labels are -1, the predicted class is explained, and
            what needs labels is refused.
    """

    shape: tuple[int, int]
    splits: tuple[str, ...] = TRAIN_AND_TEST
    imagenet: bool = False
    texts: bool = False
    labelled: bool = True

    @classmethod
    def adapt(cls, function: Callable[[str, bool], Split], name: str, **facts: Any) -> Callable[..., Images]:
        """Return the function that loads part of a split."""
        side, splits = facts["shape"][1], facts.get("splits", TRAIN_AND_TEST)

        def load(
            split: str = "test",
            *,
            start: int = 0,
            stop: int | None = None,
            stride: int = 1,
            size: int | None = None,
            resize: Callable[..., Any] | None = None,
            download: bool = False,
        ) -> Images:
            if split not in splits:
                raise ValueError(f"dataset {name!r} has no split {split!r}; it has {' and '.join(splits)}")
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise ValueError(f"size must be the side in whole pixels from 1, or None, got {size!r}")
            wanted = f"start={start}, stop={stop}, stride={stride}"
            if start < 0 or stride < 1 or (stop is not None and stop < 0):
                raise ValueError(f"start and stop count from 0 and stride from 1, got {wanted}")
            whole = function(split, download)
            chosen = range(whole.total)[start:stop:stride]
            if not chosen:
                raise ValueError(
                    f"{wanted} selects none of the {whole.total} images of {name} {split} (splits: {', '.join(splits)}); "
                    "lower start, or use fewer shards"
                )
            way = {} if resize is None else {"resize": resize}
            if way.keys() - inspect.signature(whole.read).parameters:
                raise ValueError(f"dataset {name!r} is not one of image files, so resize cannot apply; leave it out, or use size")
            return Images(classes=whole.classes, indices=torch.tensor(chosen), **whole.read(chosen, size or side, **way))

        load.__name__, load.__doc__ = name, function.__doc__
        load.__module__, load.__qualname__ = function.__module__, function.__qualname__
        return load

    @property
    def row(self) -> dict[str, str]:
        """The data set's row when the table is printed."""
        channels, side = self.shape
        shape = f"{side} tokens" if self.texts else f"{channels} x {side} x {side}"
        return {"name": self.name, "shape": shape, "splits": ", ".join(self.splits)}


DATASETS: Registry[Dataset] = Registry("dataset", Dataset)
