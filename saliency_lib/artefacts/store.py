"""The store: artefacts in outputs/<kind>/<name>/, written once, checked when read, never a pickle."""

import functools
import glob
import hashlib
import json
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import filelock
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from saliency_lib import paths
from saliency_lib.artefacts.specs import Spec
from saliency_lib.core.files import explain_disk_errors

PROVENANCE = "provenance.json"
PACKAGES = ("torch", "torchvision", "numpy", "captum", "safetensors", "saliency-compendium")


@dataclass(frozen=True)
class Artefact:
    """One stored result: its folder and where it comes from."""

    folder: Path
    provenance: dict

    @property
    def facts(self) -> dict:
        """The few numbers that its maker wrote down, for instance the test accuracy."""
        return self.provenance["facts"]

    def tensors(self, file: str) -> dict[str, np.ndarray]:
        """The arrays of one safetensors file of this artefact."""
        try:
            return load_file(self.folder / file)
        except (SafetensorError, OSError) as error:
            raise _damaged(self.folder, f"{file} cannot be read ({error})") from None


def _damaged(folder: Path, what: str) -> ValueError:
    place = paths.relative(folder)
    return ValueError(f"artefact {place} is damaged or foreign: {what}; delete the folder {place} and run again to rebuild it")


def place(spec: Spec) -> Path:
    """The folder in which the artefact of a specification lies or will lie."""
    return paths.inside(paths.OUTPUTS, f"{spec.kind}/{spec.name}")


def find(spec: Spec) -> Artefact | None:
    """The stored artefact of a specification, its files checked against their digests; None if there is none.

    Raises:
        ValueError: the folder is there but damaged, or holds something else.
    """
    folder = place(spec)
    if not folder.exists():
        return None
    try:
        provenance = json.loads((folder / PROVENANCE).read_text())
        files, digest, _ = provenance["files"], provenance["digest"], provenance["facts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{PROVENANCE} cannot be read ({type(error).__name__})") from None
    if digest != spec.digest or provenance.get("spec") != spec.to_dict():
        raise _damaged(folder, f"{PROVENANCE} describes another specification")
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            raise _damaged(folder, f"{name} is missing")
        if _sha256(file) != expected:
            raise _damaged(folder, f"{name} is not the file that was written (truncated or changed)")
    return Artefact(folder, provenance)


def fetch(spec: Spec, build: Callable[[Path], dict]) -> Artefact:
    """The artefact of a specification, built if it is not there.

    `build(folder)` writes the files into an empty folder and returns facts (plain values, with device and seconds). The folder
    gets its name only when it is complete. A second process that wants the same artefact waits for the first.

    Raises:
        ValueError: the stored artefact is damaged.
        OSError: outputs/ cannot be written or is full; nothing half-written stays.
    """
    found = find(spec)
    if found:
        return found
    folder = place(spec)
    with explain_disk_errors(folder.parent):
        paths.made(folder.parent)
        locks = paths.OUTPUTS / ".locks"
        locks.mkdir(exist_ok=True)
        with filelock.FileLock(locks / f"{spec.kind}-{folder.name}"):
            found = find(spec)
            if found:
                return found
            _clear_drafts(folder)
            draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                facts = build(draft)
                _write_provenance(draft, spec, facts)
                draft.chmod(0o755)
                draft.rename(folder)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
    return find(spec)


def _clear_drafts(folder: Path) -> None:
    """Delete what killed processes left of an artefact, but not its checkpoint; the caller holds the lock."""
    name = glob.escape(folder.name)
    for left in folder.parent.glob(f".{name}-*"):
        shutil.rmtree(left)
    for left in folder.parent.glob(f".{name}.checkpoint.safetensors.*"):
        left.unlink()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_provenance(folder: Path, spec: Spec, facts: dict) -> None:
    content = {
        "spec": spec.to_dict(),
        "implied": spec.implied(),
        "digest": spec.digest,
        "upstream": [{"kind": one.kind, "name": one.name, "digest": one.digest} for one in spec.upstream],
        "files": {file.name: _sha256(file) for file in sorted(folder.iterdir())},
        "facts": facts,
        "command": rebuild_command(spec),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(),
    }
    (folder / PROVENANCE).write_text(json.dumps(content, indent=1) + "\n")


def rebuild_command(spec: Spec) -> str:
    """The shell command that makes an artefact from nothing."""
    return shlex.join(["python", "-m", "saliency_lib", json.dumps(spec.to_dict())])


def surroundings() -> dict:
    """The state of the code and the versions that an artefact or a notebook was made with."""
    return {**_commit(), "python": platform.python_version(), "versions": {name: _version(name) for name in PACKAGES}}


@functools.cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> dict:
    """The checkout's commit and whether its code differs from it; None outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "saliency_lib", "params"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def checkpoint(spec: Spec) -> Path:
    """Where an unfinished training keeps its state; hidden beside the artefact to be."""
    folder = place(spec)
    return folder.with_name(f".{folder.name}.checkpoint.safetensors")
