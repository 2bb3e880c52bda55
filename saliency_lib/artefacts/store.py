"""The store: artefacts in outputs/<kind>/<name>/, written once, checked when read, never a pickle.

The default models come with the checkout and are only read: outputs/defaults/<kind>/<name>/.
"""

import glob
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from saliency_lib import paths
from saliency_lib.artefacts.provenance import PROVENANCE, Artefact, damaged, opened, sha256, write_provenance
from saliency_lib.artefacts.provenance import rebuild_command as rebuild_command
from saliency_lib.artefacts.provenance import surroundings as surroundings
from saliency_lib.artefacts.specs import Spec, from_dict
from saliency_lib.core.files import explain_disk_errors, flush, is_held, locked


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
    return next((_read(folder, spec) for folder in folders if os.path.lexists(folder)), None)


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
    artefact = opened(folder)
    provenance = artefact.provenance
    if provenance["digest"] != spec.digest or provenance["spec"] != spec.to_dict():
        raise damaged(folder, f"{PROVENANCE} describes another specification")
    for name, expected in provenance["files"].items():
        file = folder / name
        if not file.is_file():
            raise damaged(folder, f"{name} is missing")
        if sha256(file) != expected:
            raise damaged(folder, f"{name} is not the file that was written (truncated or changed)")
    return replace(artefact, upstream=_upstream_of(folder, provenance["upstream"]))


def _find_recorded(entry: dict[str, Any]) -> Artefact | None:
    """Return the artefact that a provenance names as one that it was made from, without a look at its files, if it is stored."""
    folders = (top / entry["kind"] / Path(entry["name"]).name for top in _tops())
    return next((opened(folder) for folder in folders if folder.exists()), None)


def _upstream_of(folder: Path, recorded: list[dict[str, Any]]) -> tuple[Artefact | None, ...]:
    """Return the artefacts from which one was made, as far as they are stored.

    Raises:
        ValueError: one of them, or of those that they were made from, has another content now.
    """
    found = []
    for entry in recorded:
        now = _find_recorded(entry)
        if now and entry["content"] and now.content != entry["content"]:
            stale = [other for other in _made_from_another(now) if other.name != folder.name]  # outputs/ may be a link
            made, others = paths.relative(folder), [paths.relative(other) for other in stale]
            names = f" and, for the same reason, {', '.join(others[:5])}" if others else ""
            more = f" and {len(others) - 5} more" if len(others) > 5 else ""
            raise ValueError(
                f"artefact {made} was made from {paths.relative(now.folder)}, which has been made again since, with another "
                f"content; delete the folder {made}{names}{more}, and run again to rebuild them"
            )
        above = _upstream_of(folder, entry["upstream"])
        found.append(now and replace(now, upstream=above))
    return tuple(found)


def _made_from_another(now: Artefact) -> list[Path]:
    """Return the folders of the artefacts that were made, directly or not, from another content of an artefact."""

    def names_another(entries: list[dict[str, Any]]) -> bool:
        own = (entry for entry in entries if entry["name"] == now.folder.name)
        return any(entry["content"] not in (None, now.content) for entry in own) or any(
            names_another(entry["upstream"]) for entry in entries
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
        with locked(lock_of(spec), folder.name):
            found = find(spec)
            if found:
                return found
            _clear_drafts(folder)
            _tell_of_others(spec, folder)
            draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                facts = build(draft)
                _check_digest(spec, folder)
                write_provenance(draft, spec, _upstream(spec), facts)
                draft.chmod(0o755)
                for file in draft.iterdir():
                    flush(file)
                draft.rename(folder)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
    return _read(folder, spec)


def _tell_of_others(spec: Spec, folder: Path) -> None:
    """Warn of artefacts of the same specification that another version has made, which are not found any more."""
    others = []
    for file in folder.parent.glob(f"{glob.escape(folder.name[:-8])}????????/{PROVENANCE}"):
        try:
            same = json.loads(file.read_text())["spec"] == spec.to_dict()
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged, or of another program
        others += [paths.relative(file.parent)] if same else []
    if others:
        more = f" (so were {len(others) - 1} others)" if others[1:] else ""
        warnings.warn(
            f"{min(others)} was made by another version of the library or of what it calls{more}, and is not used; "
            "it may be deleted",
            stacklevel=2,
        )


def _check_digest(spec: Spec, folder: Path) -> None:
    """Check that a specification still has the digest that it had before it was built."""
    if place(spec) != folder:
        names = ", ".join(name.removeprefix("code of ") for name in spec.implied() if name.startswith("code of "))
        raise ValueError(
            f"{names or spec.slug} changed values that it holds while it ran, for instance a global list or a counter, so its "
            "results could not be found again; nothing was stored; keep what changes inside the function"
        )


def lock_of(spec: Spec) -> Path:
    """Return the file of the lock that the builder of an artefact holds."""
    return paths.OUTPUTS / ".locks" / f"{spec.kind}-{spec.name}"


def _clear_drafts(folder: Path) -> None:
    """Delete the drafts of artefacts that killed processes left, except checkpoints. The caller holds the lock of this one."""
    kind, locks = folder.parent, paths.OUTPUTS / ".locks"
    for left in kind.glob(".*-????????"):
        name = left.name[1:-9]  # without what makes the draft's name unique
        if left.is_dir() and (name == folder.name or not is_held(locks / f"{kind.name}-{name}")):
            shutil.rmtree(left, ignore_errors=True)
    for left in kind.glob(f".{glob.escape(folder.name)}.checkpoint.*.*"):
        left.unlink()


def _upstream(spec: Spec) -> list[dict[str, Any]]:
    """Return what a provenance says of the artefacts that one is made from, and of those that they were made from."""
    entries = []
    for one in spec.upstream:
        entry: dict[str, Any] = {"kind": one.kind, "name": one.name, "digest": one.digest}
        found = _find_recorded(entry)
        above = found.provenance["upstream"] if found else _upstream(one)
        entries.append(entry | {"content": found and found.content, "upstream": above})
    return entries


def checkpoint(spec: Spec) -> Path:
    """Return the hidden file, beside the future artefact, in which an unfinished training keeps its state."""
    folder = place(spec)
    return folder.with_name(f".{folder.name}.checkpoint.safetensors")
