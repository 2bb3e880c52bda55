"""Write files whole or not at all, take turns, and say what to do if the disk refuses."""

import contextlib
import errno
import glob
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import filelock
import numpy as np
from safetensors.numpy import save
from tqdm.auto import tqdm

from saliency_lib import paths

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file is larger than allowed",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT), "it cannot be written"),
    **dict.fromkeys((errno.EEXIST, errno.EISDIR, errno.ELOOP), "something else is in the way"),
}
PATIENCE = 10.0  # seconds after which a process says for whom it waits
OLD = 3600.0  # seconds after which a draft is one that a killed process left
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
    """Write a file so that it is either the old one or the whole new one, whenever the process or the machine stops.

    Args:
        write: writes the new content to the path that it is given.
    """
    _clear_old_drafts(file)
    draft = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_native_id()}")
    try:
        write(draft)
        flush(draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _clear_old_drafts(file: Path) -> None:
    """Delete what killed processes left of a file an hour ago or longer; nobody writes a file for so long."""
    for left in file.parent.glob(f"{glob.escape(file.name)}.*"):
        with contextlib.suppress(FileNotFoundError):  # another process may do the same
            is_draft = re.fullmatch(r"\d+-\d+", left.name[len(file.name) + 1 :])
            if is_draft and time.time() - left.stat().st_mtime > OLD:
                left.unlink()


def flush(file: Path) -> None:
    """Have a file written to the disk, so that a name that it is given afterwards is never that of half a file."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(file: Path, what: str) -> Iterator[None]:
    """While active, no other thread or process holds this lock. Who has to wait for it says so, on stderr.

    Args:
        file: the lock's file, whose folder is made if it does not exist; beside it, another one tells who holds it.
        what: what the lock is for, for the message.
    """
    paths.made(file.parent)
    lock, holder = filelock.FileLock(file), file.with_name(f"{file.name}.holder")
    try:
        lock.acquire(timeout=PATIENCE)
    except filelock.Timeout:
        try:
            who = holder.read_text()
        except OSError:
            who = "another process"
        tqdm.write(f"waiting for {who}, which is making {what}", file=sys.stderr)
        lock.acquire()
    try:
        holder.write_text(f"process {os.getpid()} on {platform.node()} (since {datetime.now():%H:%M:%S})")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def is_held(file: Path) -> bool:
    """Return whether somebody holds a lock."""
    try:
        with filelock.FileLock(file, timeout=0):
            return False
    except filelock.Timeout:
        return True


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write arrays to a safetensors file.

    Python writes the bytes, not safetensors, whose own errors hide the system's error number.
    """
    file.write_bytes(save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata))
