"""Parts of data sets: loaded once per process, and recognised by the fingerprints of their images, labels and masks."""

import functools
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from saliency_lib import paths
from saliency_lib.core.files import replace_file
from saliency_lib.data.splits import crop
from saliency_lib.data.table import DATASETS, Dataset, Images, Split
from saliency_lib.networks.table import Preparation

FINGERPRINTED = ("images", "labels", "masks")
AT_ONCE = 1000  # images that are read at once only to be recognised
SETTLED = 2.0  # seconds after which the time of a file tells two versions of it apart


class Part(NamedTuple):
    """Which images of a data set; the arguments of `saliency_lib.load`."""

    dataset: str
    split: str = "test"
    start: int = 0
    stop: int | None = None
    stride: int = 1
    preparation: Preparation | None = None

    @property
    def way(self) -> dict[str, Any]:
        """Return the options that bring the pictures to the side of the preparation."""
        if not self.preparation:
            return {}
        own = self.preparation
        border = own.resize / own.side
        resize = functools.partial(crop, border=border, interpolation=own.interpolation, stretched=own.stretched)
        return {"size": own.side, "resize": resize}


_known: dict[tuple[Part, Dataset | None], Mapping[str, Any]] = {}  # fingerprints


def entry_of(dataset: str) -> Dataset | None:
    """Return the entry of a data set, to tell what it gave before it was registered again; None for a folder."""
    return dict(DATASETS).get(dataset)


def borrow(part: Part) -> Images:
    """Return images, which all who borrow them share; the last few parts are kept in memory. They must not be changed."""
    return _borrowed(part, entry_of(part.dataset))


@functools.lru_cache(maxsize=4)
def _borrowed(part: Part, entry: Dataset | None) -> Images:
    data = DATASETS[part.dataset](part.split, start=part.start, stop=part.stop, stride=part.stride, **part.way)
    _known[part, entry] = MappingProxyType({"count": len(data), **_sums([vars(data)])})
    return data


def copy(data: Images) -> Images:
    """Return images whose tensors can be changed without changing those of others."""
    masks = None if data.masks is None else data.masks.clone()
    return replace(data, images=data.images.clone(), labels=data.labels.clone(), indices=data.indices.clone(), masks=masks)


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of the values of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return np.ascontiguousarray(tensor.detach().cpu().numpy()).data


def _sums(blocks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the shape of an image, and the SHA-256 of the images, labels and masks, of blocks that follow each other."""
    shape: list[int] = []
    sums: dict[str, Any] = {}
    for block in blocks:
        shape = list(block["images"].shape[1:])
        for name in FINGERPRINTED:
            if block.get(name) is not None:
                sums.setdefault(name, hashlib.sha256()).update(_bytes(block[name]))
    return {"shape": shape} | {name: digest.hexdigest() for name, digest in sums.items()}


def fingerprints(part: Part) -> Mapping[str, Any]:
    """Return how many images a part has, of which shape, and the SHA-256 of its images, its labels and, if any, its masks.

    A part is read to be recognised once per process, and not even that if the files of its data set have the size and the times
    that they had when it was last read, which is remembered in outputs/.fingerprints/.
    """
    return _known.get((part, entry_of(part.dataset))) or _read(part)


def _read(part: Part, *, trust: bool = True) -> Mapping[str, Any]:
    """Return the fingerprints of a part as it is now, and keep them in memory.

    Args:
        trust: whether what is remembered of it in outputs/.fingerprints/ counts.
    """
    found = _known[part, entry_of(part.dataset)] = MappingProxyType(_fingerprints(part, trust))
    return found


def _fingerprints(part: Part, trust: bool) -> dict[str, Any]:
    entry = DATASETS[part.dataset]
    whole: Split = entry.written(part.split, False)
    chosen = range(whole.total)[part.start : part.stop : part.stride]
    state, note = _state(whole), _note(part)
    try:
        known = json.loads(note.read_text())
        if trust and state and known["state"] == state:
            return {"count": len(chosen), **known["sums"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not known yet
    way = dict(part.way)
    side = way.pop("size", entry.shape[1])
    sums = _sums(whole.read(chosen[start : start + AT_ONCE], side, **way) for start in range(0, len(chosen), AT_ONCE))
    if state:
        _remember(note, {"state": state, "sums": sums})
    return {"count": len(chosen), **sums}


def _note(part: Part) -> Path:
    name = hashlib.sha256(repr(part).encode("utf-8", "replace")).hexdigest()[:16]
    return paths.OUTPUTS / ".fingerprints" / f"{name}.json"


def _state(whole: Split) -> str:
    """Return a digest of the size and the times of the files of a split, and of the programs that read them.

    It is empty if they do not tell: the split has to be read, or one of the files has just been written.
    """
    if whole.sources is None:
        return ""
    readers = [file for file in Path(paths.__file__).parent.joinpath("data").iterdir() if file.is_file()]
    digest = hashlib.sha256(repr([version(name) for name in ("numpy", "pillow", "torch", "torchvision")]).encode())
    for file in (Path(__file__), *sorted(readers), *whole.sources):
        facts = file.stat()
        if max(facts.st_mtime, facts.st_ctime) > time.time() - SETTLED:
            return ""
        digest.update(repr((str(file), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)).encode("utf-8", "replace"))
    return digest.hexdigest()


def _remember(note: Path, content: dict[str, Any]) -> None:
    try:
        if paths.OUTPUTS.is_dir():
            note.parent.mkdir(exist_ok=True)
            replace_file(note, lambda draft: draft.write_text(json.dumps(content)))
    except OSError:
        pass  # it is read again next time


def forget() -> None:
    """Forget all parts that are kept in memory, for instance because the files of a data set have changed."""
    _borrowed.cache_clear()
    _known.clear()


def described(part: Part, data: Images) -> dict[str, Any]:
    """Return what a provenance says of a part: which images, and their fingerprints.

    Args:
        data: the part as it was borrowed, and used.

    Raises:
        ValueError: somebody has changed the borrowed images in place.
    """
    now, before = _sums([vars(data)]), fingerprints(part)
    if spoilt := [name for name, digest in now.items() if digest != before[name]]:
        forget()
        raise ValueError(
            f"the {' and '.join(spoilt)} of {part.dataset} ({part.split}) were changed in memory by the method, the metric, the "
            "objective or the model that used them; nothing was stored; let it work on a copy (images.clone()) and run again"
        )
    return {**_named(part), **before}


def _named(part: Part) -> dict[str, Any]:
    return {name: getattr(part, name) for name in ("dataset", "split", "start", "stop", "stride")}


def _changed(part: Part, recorded: Mapping[str, Any]) -> list[str]:
    now = {**_named(part), **fingerprints(part)}
    return [name for name in dict.fromkeys((*now, *recorded)) if now.get(name) != recorded.get(name)]


def check(part: Part, recorded: Mapping[str, Any], place: Path) -> None:
    """Check that a part is still the one from which something was made; a data set that is not there is not compared.

    Args:
        recorded: what `described` returned then.
        place: what was made, for the message.

    Raises:
        ValueError: its images, labels or masks are others now.
    """
    try:
        changed = _changed(part, recorded)
        if changed:  # it may be what is remembered of the part that is wrong
            forget()
            _read(part, trust=False)
            changed = _changed(part, recorded)
    except FileNotFoundError:
        return
    if changed:
        what = " and ".join(name for name in changed if name in FINGERPRINTED) or "images"
        name = paths.relative(place)
        raise ValueError(
            f"the {what} of {part.dataset} ({part.split}) are not those that {name} was made from; "
            f"put them back, or delete {name} and run again"
        )
