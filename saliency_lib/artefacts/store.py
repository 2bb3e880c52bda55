"""The store: artefacts in outputs/<kind>/<name>/, written once, checked when read, never a pickle.

The default models come with the checkout and are only read: outputs/defaults/<kind>/<name>/.

`provenance.json` has the SHA-256 of each file, the contents of the artefacts that it was made from, and a seal: the SHA-256 of
all that it says. A seal shows accidents and edits. It is no signature, and does not protect from somebody who seals again.
"""

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
from typing import Any

import filelock
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from saliency_lib import paths
from saliency_lib.artefacts.specs import Spec, from_dict
from saliency_lib.core.files import explain_disk_errors

FORMAT = 2  # of the provenance; the first had no seal
PROVENANCE = "provenance.json"
PACKAGES = ("torch", "torchvision", "numpy", "captum", "safetensors", "saliency-compendium")


@dataclass(frozen=True)
class Artefact:
    """A stored result: its folder, and where it comes from."""

    folder: Path
    provenance: dict[str, Any]

    def __repr__(self) -> str:
        return f"Artefact({paths.relative(self.folder)})"

    @property
    def facts(self) -> dict[str, Any]:
        """Return the few values that were recorded when it was made, for instance the test accuracy."""
        return self.provenance["facts"]

    @property
    def content(self) -> str:
        """Return the SHA-256 of all that artefacts which are made from it depend on: its files, or its published weights."""
        return _digest([self.provenance["digest"], self.provenance["files"], self.facts.get("weights_sha256")])

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


def place(spec: Spec) -> Path:
    """Return the folder into which the artefact of a specification is written."""
    return paths.inside(paths.OUTPUTS, f"{spec.kind}/{spec.name}")


def _tops() -> tuple[Path, Path]:
    return paths.OUTPUTS, paths.OUTPUTS / "defaults"


def find(spec: Spec) -> Artefact | None:
    """Return the stored artefact of a specification, or None; its files are checked against their digests.

    Raises:
        ValueError: its folder exists but is damaged, or holds something else.
    """
    folders = (paths.inside(top, f"{spec.kind}/{spec.name}") for top in _tops())
    return next((_read(folder, spec) for folder in folders if folder.exists()), None)


def known(kind: str) -> list[Spec]:
    """Return the specifications of the stored artefacts of a kind, without those that this version would not find.

    Args:
        kind: for instance `training`.
    """
    specs: dict[str, Spec] = {}
    for file in (file for top in _tops() for file in (top / kind).glob(f"*/{PROVENANCE}")):
        try:
            spec = from_dict(json.loads(file.read_text())["spec"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged, or written by another version
        if file.parent.name == spec.name:
            specs[spec.name] = spec
    return [specs[name] for name in sorted(specs)]


def _read(folder: Path, spec: Spec) -> Artefact:
    artefact = _opened(folder)
    provenance = artefact.provenance
    if provenance["digest"] != spec.digest or provenance["spec"] != spec.to_dict():
        raise damaged(folder, f"{PROVENANCE} describes another specification")
    for name, expected in provenance["files"].items():
        file = folder / name
        if not file.is_file():
            raise damaged(folder, f"{name} is missing")
        if _sha256(file) != expected:
            raise damaged(folder, f"{name} is not the file that was written (truncated or changed)")
    _check_upstream(folder, provenance["upstream"], spec)
    return artefact


def _opened(folder: Path) -> Artefact:
    """Return the artefact in a folder, without a look at its files."""
    file = folder / PROVENANCE
    try:
        provenance = json.loads(file.read_text() if file.is_file() else "")
        known, sealed = int(provenance.get("format", 1)), provenance.get("seal") == seal(provenance)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise damaged(folder, f"{PROVENANCE} cannot be read ({type(error).__name__})") from None
    if known != FORMAT:
        place, age = paths.relative(folder), "an earlier" if known < FORMAT else "a later"
        raise ValueError(
            f"artefact {place} was written by {age} version of the library (its format is {known}, and this one reads {FORMAT}); "
            f"delete the folder {place} and run again to rebuild it, or use that version"
        )
    if not sealed:
        raise damaged(folder, f"{PROVENANCE} was changed after it was written (its seal does not fit)")
    return Artefact(folder, provenance)


def stored(spec: Spec) -> Artefact | None:
    """Return the artefact of a specification without checking its files, or None.

    Raises:
        ValueError: its provenance is damaged.
    """
    folders = (paths.inside(top, f"{spec.kind}/{spec.name}") for top in _tops())
    return next((_opened(folder) for folder in folders if folder.exists()), None)


def _check_upstream(folder: Path, recorded: list[dict[str, Any]], spec: Spec) -> None:
    """Check that the artefacts from which one was made are still those, as far as they are stored, and so are their own."""
    for entry, one in zip(recorded, spec.upstream, strict=True):
        now = stored(one)
        if now and entry["content"] and now.content != entry["content"]:
            made, others = paths.relative(folder), [paths.relative(other) for other in _made_from(one) if other != folder]
            names = f" and, for the same reason, {', '.join(others[:5])}" if others else ""
            more = f" and {len(others) - 5} more" if len(others) > 5 else ""
            raise ValueError(
                f"artefact {made} was made from {paths.relative(now.folder)}, which has been made again since, with another "
                f"content; delete the folder {made}{names}{more}, and run again to rebuild them"
            )
        _check_upstream(folder, entry["upstream"], one)


def _made_from(spec: Spec) -> list[Path]:
    """Return the folders of the artefacts that were made, directly or not, from another content of an artefact."""
    now = stored(spec)

    def names_another(entries: list[dict[str, Any]]) -> bool:
        return any(
            (entry["name"] == spec.name and entry["content"] not in (None, now and now.content))
            or names_another(entry["upstream"])
            for entry in entries
        )

    found = []
    for file in sorted(file for top in _tops() for file in top.glob(f"*/*/{PROVENANCE}")):
        try:
            if names_another(json.loads(file.read_text())["upstream"]):
                found.append(file.parent)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged, or written by another version
    return found


def fetch(spec: Spec, build: Callable[[Path], dict[str, Any]]) -> Artefact:
    """Return the artefact of a specification, and build it if it is not stored.

    The folder gets its name only when it is complete. A second process that wants the same artefact waits for the first.

    Args:
        build: writes the files into the empty folder that it is given, and returns facts (plain values, with device and
            seconds).

    Raises:
        ValueError: the stored artefact is damaged.
        OSError: outputs/ is full or cannot be written; nothing half-written is left.
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
                _check_digest(spec, folder)
                _write_provenance(draft, spec, facts)
                draft.chmod(0o755)
                draft.rename(folder)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
    return _read(folder, spec)


def _check_digest(spec: Spec, folder: Path) -> None:
    """Check that a specification still has the digest that it had before it was built."""
    if place(spec) != folder:
        names = ", ".join(name.removeprefix("code of ") for name in spec.implied() if name.startswith("code of "))
        raise ValueError(
            f"{names or spec.slug} changed values that it holds while it ran, for instance a global list or a counter, so its "
            "results could not be found again; nothing was stored; keep what changes inside the function"
        )


def _clear_drafts(folder: Path) -> None:
    """Delete what killed processes left of an artefact, except its checkpoint. The caller holds the lock."""
    name = glob.escape(folder.name)
    for left in folder.parent.glob(f".{name}-*"):
        shutil.rmtree(left)
    for left in folder.parent.glob(f".{name}.checkpoint.safetensors.*"):
        left.unlink()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(provenance: dict[str, Any]) -> str:
    """Return the SHA-256 of all that a provenance says, its own seal aside."""
    return _digest({name: value for name, value in provenance.items() if name != "seal"})


def _write_provenance(folder: Path, spec: Spec, facts: dict[str, Any]) -> None:
    content = {
        "format": FORMAT,
        "spec": spec.to_dict(),
        "implied": spec.implied(),
        "digest": spec.digest,
        "upstream": _upstream(spec),
        "files": {file.name: _sha256(file) for file in sorted(folder.iterdir())},
        "facts": facts,
        "command": rebuild_command(spec),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(),
    }
    content = json.loads(json.dumps(content))  # as it is read again
    (folder / PROVENANCE).write_text(json.dumps(content | {"seal": seal(content)}, indent=1) + "\n")


def _upstream(spec: Spec) -> list[dict[str, Any]]:
    """Return what a provenance says of the artefacts that one is made from, and of those that they were made from."""
    entries = []
    for one in spec.upstream:
        found = stored(one)
        content, above = (found.content, found.provenance["upstream"]) if found else (None, _upstream(one))
        entries.append({"kind": one.kind, "name": one.name, "digest": one.digest, "content": content, "upstream": above})
    return entries


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


def _commit() -> dict[str, Any]:
    """Return the checkout's commit and whether the code differs from it; None outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout.strip()

    if paths.CHECKOUT is None:  # the working folder may be in another project's repository
        return {"commit": None, "dirty": None}
    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "saliency_lib", "params"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def checkpoint(spec: Spec) -> Path:
    """Return the hidden file, beside the future artefact, in which an unfinished training keeps its state."""
    folder = place(spec)
    return folder.with_name(f".{folder.name}.checkpoint.safetensors")
