"""Decode pictures as the eye sees them: upright, on white where they are transparent, with 8 bits per channel."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from saliency_lib import paths

GREY = ("1", "L", "LA", "La", "I", "F")  # modes of grey pictures; those of 16 bits begin with "I;"


@contextmanager
def opened(file: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image file.

    Args:
        content: of the file, if it is inside another file; then `file` says where, for the message.

    Raises:
        ValueError: the file is not an image, or a damaged one.
    """
    try:
        if content is None and not file.is_file():  # opening a pipe would wait for ever
            raise OSError("it is not a file")
        with Image.open(file if content is None else io.BytesIO(content)) as picture:
            yield picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{paths.relative(file)} cannot be read as an image ({error}); replace or delete it") from error


def is_grey(picture: Image.Image) -> bool:
    """Return whether a picture has no colours, according to its mode."""
    return picture.mode in GREY or picture.mode.startswith("I;")


def seen(picture: Image.Image) -> Image.Image:
    """Return a picture as it is seen, grey (mode L) or in colour (mode RGB).

    It is turned as its EXIF orientation says, and lies on white where it is transparent. Grey values of 16 bits (also those that
    are stored with 32) are scaled from [0, 65535], and those with a fraction from [0, 1].

    Raises:
        ValueError: values of more than 8 bits are not in these ranges.
    """
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "F" or upright.mode.startswith("I"):
        return _of_many_bits(upright)
    mode = "L" if is_grey(upright) else "RGB"
    if upright.mode.endswith(("A", "a")) or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert(mode)
    return upright.convert(mode)


def _of_many_bits(picture: Image.Image) -> Image.Image:
    values, largest = np.asarray(picture, np.float64), 1.0 if picture.mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= largest):
        raise ValueError(
            f"its values are from {values.min():g} to {values.max():g}, and those of mode {picture.mode} must be from 0 to "
            f"{largest:g}; save it with 8 or 16 bits"
        )
    return Image.fromarray((values * (255 / largest)).round().astype(np.uint8))
