"""Writing files whole or not at all, and saying what to do where the disk refuses."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from saliency_lib import paths

REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is larger than allowed",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT), "it cannot be written"),
}
REMEDY = "free some space or set SALIENCY_OUTPUTS to a folder that can be written, and run again"


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """While active, an error of the disk below outputs/ says what to do; other errors pass as they are.

    Raises:
        OSError: with the system's number, the folder, the reason and the remedy.
    """
    try:
        yield
    except OSError as error:
        ours = error.filename is None or Path(error.filename).resolve().is_relative_to(paths.OUTPUTS.resolve())
        if error.errno not in REFUSALS or not ours or REMEDY in str(error):
            raise
        reason = f"{REFUSALS[error.errno]} ({os.strerror(error.errno)})"
        raise OSError(error.errno, f"nothing was stored in {paths.relative(folder)}: {reason}; {REMEDY}") from error


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is either the old one or the whole new one, whenever the process ends."""
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        write(draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write arrays to a safetensors file.

    Raises:
        OSError: with the system's error number, which safetensors hides in a text.
    """
    try:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, file, metadata)
    except SafetensorError as error:
        number = next((int(word.strip(").,")) for word in str(error).split() if word.strip(").,").isdigit()), errno.EIO)
        raise OSError(number, str(error), str(file)) from None
    file.chmod(0o644)
