"""Lists of pictures: text files with a path per line, and the metadata of Hugging Face's folders of images."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from saliency_lib import paths
from saliency_lib.core.lines import objects, text_of
from saliency_lib.core.options import no_such
from saliency_lib.data.albums import CLASSES, Album
from saliency_lib.data.classes import natural


class Row(NamedTuple):
    """A line of a list: where it is, for messages, the picture, and its class if it is known."""

    where: str
    file: Path
    kind: str | None


def _cells(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield where each line is, and its cells, which commas separate."""
    reader = csv.reader(text_of(file).splitlines(), skipinitialspace=True)
    for row in reader:
        if cells := [cell.strip() for cell in row]:
            yield f"{paths.relative(file)}, line {reader.line_num}", cells


def read_list(file: Path) -> list[Row]:
    """Return the pictures that a file lists: a line is `path` or `path,class`, and the first one may say so.

    A path is relative to the folder of the list, or absolute. A path or a class with a comma is quoted.

    Raises:
        ValueError: a line is neither.
    """
    found: list[Row] = []
    for where, cells in _cells(file):
        if cells in (["path"], ["path", "class"]) and not found:
            continue
        if len(cells) > 2 or not all(cells):
            raise ValueError(f"{where} must be `path` or `path,class`, got {','.join(cells)!r}; quote a cell that has a comma")
        found.append(Row(where, file.parent / cells[0], cells[1] if len(cells) > 1 else None))
    return found


def read_metadata(file: Path, column: str | None) -> list[Row]:
    """Return the pictures of a file metadata.csv or metadata.jsonl, whose column file_name has paths inside its folder.

    Args:
        column: the name of the column of the classes; None means `label`, if there is one.

    Raises:
        ValueError: a column is missing, a line cannot be read, or a path leads out of the folder.
    """
    found = []
    lines = ((f"{paths.relative(file)}, line {number}", row) for number, row in objects(file))
    for where, row in lines if file.suffix == ".jsonl" else _table(file):
        for name in ("file_name", *([column] if column else [])):
            if name not in row:
                raise no_such(f"{where}: column", name, row)
        kind = row.get(column or "label")
        if isinstance(kind, (list, Mapping, float)):
            raise ValueError(f"{where}: the class must be a text or a whole number, got {kind!r}; name the column by ?label=")
        picture = paths.inside(file.parent, str(row["file_name"]))
        found.append(Row(where, picture, None if kind in (None, "") else str(kind)))
    return found


def _table(file: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    lines = _cells(file)
    _, names = next(lines, ("", ["nothing"]))
    for where, cells in lines:
        if len(cells) != len(names):
            raise ValueError(f"{where} has {len(cells)} cells, and the first line {len(names)}; quote a cell that has a comma")
        yield where, dict(zip(names, cells, strict=True))


def listed_album(
    root: Path, parts: Mapping[str, Sequence[Row]], sources: Sequence[Path], *, whole: bool = True, imagenet: bool = False
) -> Album:
    """Return the album of listed pictures.

    Raises:
        ValueError: a list is empty or has a picture twice, or the classes of only some pictures are known.
    """
    lists = " and ".join(map(paths.relative, sources))
    for split, part in parts.items():
        if not part:
            raise ValueError(f"the list of the {split} pictures, {lists}, has none; write a path per line")
    rows = [row for part in parts.values() for row in part]
    first: dict[Path, Row] = {}
    for row in rows:
        if row.file in first:
            raise ValueError(f"{row.where} has a picture that {first[row.file].where} has already; remove one of them")
        first[row.file] = row
    known = [row for row in rows if row.kind is not None]
    if known and len(known) < len(rows):
        unknown = next(row for row in rows if row.kind is None)
        raise ValueError(f"{unknown.where} says no class, and {known[0].where} does; give the class of every picture, or of none")
    kinds = {row.file: str(row.kind) for row in known}
    named = bool(kinds) or (root / CLASSES).is_file()
    files = {split: [row.file for row in part] for split, part in parts.items()}
    return Album(root, files, kinds, natural(kinds.values()), sources, whole, imagenet or not named)
