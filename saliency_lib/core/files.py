"""Write files whole or not at all, and say what to do if the disk refuses."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from saliency_lib import paths

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is larger than allowed",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT), "it cannot be written"),
}
REMEDY = "free some space or set SALIENCY_OUTPUTS to a folder that can be written, and run again"


@contextlib.contextmanager
def explain_disk_errors(folder: Path) -> Iterator[None]:
    """While active, turn an error of the disk below outputs/ into one that says what to do. Other errors pass unchanged.

    Args:
        folder: what was being written, for the message.

    Raises:
        OSError: with the system's error number, the folder, the reason and the remedy.
    """
    try:
        yield
    except OSError as error:
        ours = error.filename is None or Path(error.filename).resolve().is_relative_to(paths.OUTPUTS.resolve())
        if error.errno not in REASONS or not ours or REMEDY in str(error):
            raise
        reason = f"{REASONS[error.errno]} ({os.strerror(error.errno)})"
        raise OSError(error.errno, f"nothing was stored in {paths.relative(folder)}: {reason}; {REMEDY}") from error


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is either the old one or the whole new one, whenever the process ends.

    Args:
        write: writes the new content to the path that it is given.
    """
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        write(draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write arrays to a safetensors file.

    Python writes the bytes, not safetensors, whose own errors hide the system's error number.
    """
    file.write_bytes(save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata))
