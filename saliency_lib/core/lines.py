"""Text files that people write or get: UTF-8, and a JSON object per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saliency_lib import paths


def text_of(file: Path) -> str:
    """Return the text of a file in UTF-8, without the mark with which some programs begin it.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{paths.relative(file)} is not UTF-8 (byte {error.start}); save it as UTF-8, or get it again") from None


def objects(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the JSON object of each line of a file that is not empty, after the line's number from 1.

    Raises:
        ValueError: a line is no JSON object.
    """
    for number, line in enumerate(text_of(file).split("\n"), 1):  # splitlines() would also split within strings, at U+2028
        if line.strip():
            where = f"{paths.relative(file)}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{where}: it is not JSON ({error}); correct it, or get the file again") from None
            if not isinstance(row, dict):
                raise ValueError(f"{where}: it is not a JSON object, but {line[:40]!r}; correct it, or get the file again")
            yield number, row
