"""Shards: pictures in Parquet files, as Hugging Face stores data sets; they are read a group of rows at a time."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from saliency_lib import paths
from saliency_lib.core.optional import optional
from saliency_lib.core.options import no_such
from saliency_lib.data.albums import CLASSES, IMAGENET, UNKNOWN, shape_of
from saliency_lib.data.classes import imagenet_classes, imagenet_label, natural, ranks
from saliency_lib.data.pictures import opened
from saliency_lib.data.splits import Resize, crop, decoded, imagenet_crop
from saliency_lib.data.table import DATASETS, Dataset, Split

Parts = Mapping[str, Sequence[Path]]  # per split its files


@contextmanager
def _parquet(file: Path) -> Iterator[Any]:
    with optional("hf"):
        import pyarrow
        from pyarrow import parquet
    try:
        with parquet.ParquetFile(file) as content:
            yield content
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{paths.relative(file)} cannot be read as Parquet ({error}); get it again") from error


def _rows(files: Iterable[Path], column: str, chosen: Sequence[int] | None = None) -> Iterator[tuple[Path, Any]]:
    """Yield some values of a column, or all, each after where it is; only groups of rows that have one are read."""
    begun, wanted = 0, None if chosen is None else set(chosen)
    for file in files:
        with _parquet(file) as content:
            for group in range(content.num_row_groups):
                count = content.metadata.row_group(group).num_rows
                own = [row for row in range(count) if wanted is None or begun + row in wanted]
                if own:
                    values = content.read_row_group(group, columns=[column]).column(0).take(own).to_pylist()
                    yield from ((Path(f"{file}, row {begun + row}"), value) for row, value in zip(own, values, strict=True))
                begun += count


def _picture(root: Path, where: Path, value: Any) -> AbstractContextManager[Image.Image]:
    """Open the picture of a row: bytes, or a path inside the folder."""
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, Mapping) else (value, None)
    if isinstance(content, bytes):
        return opened(where, content)
    if not path:
        raise ValueError(f"{paths.relative(where)} has no picture, but {content!r}; leave it out, or name the column by ?image=")
    return opened(paths.inside(root, path))


def _names(schema: Any, label: str) -> list[str]:
    """Return the names of the classes as Hugging Face stores them in the metadata of a file; empty if it does not."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def shards(reference: str, about: str, root: Path, parts: Parts, image: str, label: str | None, *, imagenet: bool) -> Dataset:
    """Return the data set of Parquet files, whose pictures are in the order of their rows.

    Args:
        about: the docstring of the function that loads it.
        root: their folder, which may have classes.txt.
        image: the column of the pictures: bytes, or a struct of bytes and path.
        label: that of the classes, numbers or texts; None means `label`, if there is one.
        imagenet: whether the labels are indices into ImageNet's classes.

    Raises:
        ValueError: a column is missing, or a file or its first picture cannot be read.
    """
    with _parquet(next(iter(parts.values()))[0]) as content:
        schema = content.schema_arrow
    if empty := [file for files in parts.values() for file in files if not _count(file)]:
        raise ValueError(f"{paths.relative(empty[0])} has no rows; remove it")
    for name in (image, *([label] if label else [])):
        if name not in schema.names:
            raise no_such(f"column of {reference!r} (choose by ?image= and &label=)", name, schema.names)
    label = label or ("label" if "label" in schema.names else None)
    file, names = root / CLASSES, _names(schema, label or "")
    imagenet = imagenet or not (label or file.is_file())
    shape = IMAGENET
    if not imagenet:
        with _picture(root, *next(_rows(next(iter(parts.values())), image, [0]))) as picture:
            shape = shape_of(picture)

    def load(split: str, download: bool) -> Split:
        kinds = {part: [_kind(*row) for row in _rows(files, label)] if label else [] for part, files in parts.items()}
        every = {kind for part in kinds.values() for kind in part}
        if imagenet:
            rank, classes = {kind: imagenet_label(kind) for kind in every}, imagenet_classes()
        elif names and not file.is_file():
            rank, classes = {str(number): number for number in range(len(names))}, tuple(names)
        else:
            rank, classes = ranks(natural(every), file if file.is_file() else None)
        if strange := sorted(every - set(rank)):
            raise ValueError(
                f"{reference!r} has the labels {strange[:5]}, and its classes are {len(classes)}; leave these rows out"
            )
        labels = [rank[kind] for kind in kinds[split]] if label else [UNKNOWN] * sum(map(_count, parts[split]))

        def read(chosen: range, side: int, resize: Resize = imagenet_crop if imagenet else crop) -> dict[str, Any]:
            rows = list(_rows(parts[split], image, chosen))
            found = decoded(lambda row: _picture(root, *rows[row]), len(rows), shape[0], side, resize)
            return {**found, "labels": torch.tensor([labels[row] for row in chosen])}

        return Split(len(labels), classes, read, [*parts[split], *([file] if file.is_file() else [])])

    load.__doc__ = about
    return DATASETS.entry(load, reference, splits=tuple(parts), shape=shape, imagenet=imagenet, labelled=label is not None)


def _kind(where: Path, value: Any) -> str:
    if not isinstance(value, (int, str)) or (isinstance(value, int) and value < 0):  # -1 stands for a class that is not told
        raise ValueError(f"{paths.relative(where)} has the class {value!r}, which is no number from 0 and no text; leave it out")
    return str(value)


def _count(file: Path) -> int:
    with _parquet(file) as content:
        return content.metadata.num_rows
