"""Names of classes that several data sets share."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from saliency_lib import paths
from saliency_lib.core.lines import text_of
from saliency_lib.core.options import no_such

DIGITS = tuple("0123456789")
NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")  # a label, for a class without a name
WORDNET_IDS = tuple(Path(__file__).with_name("imagenet_wordnet_ids.txt").read_text().split())


def imagenet_classes() -> tuple[str, ...]:
    """Return readable names of ImageNet's 1,000 classes, in the order of their WordNet ids."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES  # here, since importing it takes seconds

    return tuple(_IMAGENET_CATEGORIES)


def read_classes(file: Path) -> dict[str, str]:
    """Return the readable names of the classes that a file lists, in label order, by the names of their folders.

    A line is `name`, or `folder = name` if the folder of the class has another name. Empty lines do not count.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text, lists nothing, or lists a class twice.
    """
    lines = [line.strip() for line in text_of(file).splitlines()]
    found: dict[str, str] = {}
    for line in filter(None, lines):
        folder, _, name = (part.strip() for part in line.partition("="))
        if folder in found:
            raise ValueError(
                f"{paths.relative(file)} lists the class {folder!r} twice; list each once, in the order of the labels"
            )
        found[folder] = name or folder
    if not found:
        raise ValueError(f"{paths.relative(file)} lists no class; write one per line, in the order of the labels")
    return found


def readable(classes: Sequence[str]) -> tuple[str, ...]:
    """Return readable names of classes, which differ from the given ones if all of these are WordNet ids."""
    if not set(classes) <= set(WORDNET_IDS):
        return tuple(classes)
    known = dict(zip(WORDNET_IDS, imagenet_classes(), strict=True))
    return tuple(known[name] for name in classes)


def natural(kinds: Iterable[str]) -> list[str]:
    """Return classes in label order: sorted, or all numbers from 0 to the largest if they are whole numbers."""
    found = sorted(set(kinds))
    if all(map(NUMBER.fullmatch, found)):
        return [str(label) for label in range(max(map(int, found), default=-1) + 1)]
    return found


def ranks(kinds: Sequence[str], file: Path | None) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the label of each class, and the readable names of all classes in label order.

    Args:
        kinds: the classes in label order, unless a file gives another order.
        file: lists the classes, see `read_classes`, or None. Whole numbers that it does not list are labels.

    Raises:
        ValueError: a class is not in the file.
    """
    if file is None:
        return {kind: label for label, kind in enumerate(kinds)}, readable(kinds)
    listed = read_classes(file)
    rank = {kind: label for label, kind in enumerate(listed)}
    if kinds and all(map(NUMBER.fullmatch, kinds)) and not set(kinds) & set(listed):
        rank = {kind: int(kind) for kind in kinds if int(kind) < len(listed)}
    if strange := [kind for kind in kinds if kind not in rank]:
        raise ValueError(
            f"{paths.relative(file)} lists {len(listed)} classes, and {strange[:5]} are none of them; add a line for each, "
            "`folder = name` if its readable name is another"
        )
    return rank, tuple(listed.values())


def imagenet_label(name: str) -> int:
    """Return the index of one of ImageNet's classes, given its WordNet id, its readable name, or the index itself.

    Raises:
        ValueError: there is no such class, or more than one.
    """
    if name in WORDNET_IDS:
        return WORDNET_IDS.index(name)
    if name.isdecimal() and int(name) < len(WORDNET_IDS):
        return int(name)
    names = imagenet_classes()
    if (count := names.count(name)) > 1:
        raise ValueError(f"ImageNet has {count} classes named {name!r}; use the WordNet id")
    if not count:
        raise no_such("ImageNet class", name, names)
    return names.index(name)
