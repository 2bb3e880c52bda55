"""Where an artefact comes from: `provenance.json`, sealed by a digest of all that it says.

`provenance.json` has the SHA-256 of each file, the contents of the artefacts that it was made from, and a seal: the SHA-256 of
all that it says. A seal shows accidents and edits. It is no signature, and does not protect from somebody who seals again.
"""

import functools
import hashlib
import json
import platform
import shlex
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from saliency_lib import paths
from saliency_lib.artefacts.specs import Spec
from saliency_lib.core.seals import digest, seal, sealed

FORMAT = 2  # of the provenance; the first had no seal
PROVENANCE = "provenance.json"
PACKAGES = ("torch", "torchvision", "numpy", "captum", "safetensors", "openvino", "saliency-compendium")


@dataclass(frozen=True)
class Artefact:
    """A stored result: its folder, where it comes from, and the artefacts that it was made from as far as they are stored."""

    folder: Path
    provenance: dict[str, Any]
    upstream: tuple["Artefact | None", ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        return f"Artefact({paths.relative(self.folder)})"

    @property
    def facts(self) -> dict[str, Any]:
        """Return the few values that were recorded when it was made, for instance the test accuracy."""
        return self.provenance["facts"]

    @property
    def content(self) -> str:
        """Return the SHA-256 of all that artefacts which are made from it depend on: its files, or its published weights."""
        return digest([self.provenance["digest"], self.provenance["files"], self.facts.get("weights_sha256")])

    def tensors(self, file: str) -> dict[str, np.ndarray]:
        """Return the arrays of one of its safetensors files.

        Raises:
            ValueError: the file cannot be read.
        """
        try:
            return load_file(self.folder / file)
        except (SafetensorError, OSError) as error:
            raise damaged(self.folder, f"{file} cannot be read ({error})") from None


def damaged(folder: Path, what: str) -> ValueError:
    """Return the error for an artefact that cannot be used: what is wrong, and the way out."""
    place = paths.relative(folder)
    return ValueError(f"artefact {place} is damaged or foreign: {what}; delete the folder {place} and run again to rebuild it")


def opened(folder: Path) -> Artefact:
    """Return the artefact in a folder, without a look at its files."""
    file = folder / PROVENANCE
    try:
        provenance = json.loads(file.read_text() if file.is_file() else "")
        known, fits = int(provenance.get("format", 1)), provenance.get("seal") == seal(provenance)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise damaged(folder, f"{PROVENANCE} cannot be read ({type(error).__name__})") from None
    if known != FORMAT:
        place, age = paths.relative(folder), "an earlier" if known < FORMAT else "a later"
        raise ValueError(
            f"artefact {place} was written by {age} version of the library (its format is {known}, and this one reads {FORMAT}); "
            f"delete the folder {place} and run again to rebuild it (`make clean` deletes all results), or use that version"
        )
    if not fits:
        raise damaged(folder, f"{PROVENANCE} was changed after it was written (its seal does not fit)")
    return Artefact(folder, provenance)


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_provenance(folder: Path, spec: Spec, upstream: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Write the provenance of an artefact whose other files are in the folder."""
    content = {
        "format": FORMAT,
        "spec": spec.to_dict(),
        "implied": spec.implied(),
        "digest": spec.digest,
        "upstream": upstream,
        "files": {file.name: sha256(file) for file in sorted(folder.iterdir())},
        "facts": facts,
        "command": rebuild_command(spec),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(),
    }
    (folder / PROVENANCE).write_text(json.dumps(sealed(content), indent=1) + "\n")


def rebuild_command(spec: Spec) -> str:
    """Return the shell command that makes an artefact from nothing."""
    return shlex.join(["python", "-m", "saliency_lib", json.dumps(spec.to_dict())])


def surroundings() -> dict[str, Any]:
    """Return the commit of the code and the versions of the packages in use."""
    return {**_commit(), "python": platform.python_version(), "versions": {name: _version(name) for name in PACKAGES}}


@functools.cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def _commit() -> dict[str, Any]:
    """Return the checkout's commit and whether the code differs from it, when first asked; None outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout.strip()

    if paths.CHECKOUT is None:  # the working folder may be in another project's repository
        return {"commit": None, "dirty": None}
    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "saliency_lib", "params"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
