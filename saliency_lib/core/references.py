"""References: `<scheme>:<place>?<option>=<value>&...`, which name networks and pictures of the user's own."""

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from saliency_lib.core.options import no_such

Parsers = dict[str, tuple[Callable[[str], Any], str]]  # by option: what reads its value, and what the value has to be


def scheme_of(name: str, schemes: Iterable[str], kind: str) -> tuple[str, str] | None:
    """Return the scheme of a reference and what follows it; None if the name has no colon.

    Args:
        kind: what is referred to, for the message ("model").

    Raises:
        ValueError: the scheme is none of `schemes`.
    """
    scheme, colon, rest = name.partition(":")
    if not colon:
        return None
    if scheme not in schemes:
        raise no_such(f"kind of reference to a {kind}", scheme, schemes)
    return scheme, rest


def place_and_options(rest: str) -> tuple[str, dict[str, str]]:
    """Return the place of a reference and its options, whose values are written as in a web address."""
    place, _, query = rest.partition("?")
    return place, dict(parse_qsl(query, keep_blank_values=True))


def values(reference: str, options: Mapping[str, str], parsers: Parsers) -> dict[str, Any]:
    """Return the options of a reference as values.

    Raises:
        ValueError: an option is unknown, or its value cannot be read.
    """
    found = {}
    for name, text in options.items():
        if name not in parsers:
            raise no_such(f"option of {reference!r}", name, parsers)
        parse, wanted = parsers[name]
        try:
            found[name] = parse(text)
        except ValueError:
            raise ValueError(f"{name} of {reference!r} must be {wanted}, got {text!r}") from None
    return found


def slug(text: str) -> str:
    """Return a text as a part of the name of a file: without spaces, slashes and colons."""
    return re.sub(r"[^\w.,=+-]+", "_", text)


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content, computed again if the file has changed."""
    state = file.stat()
    return _hashed(file, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@functools.lru_cache(maxsize=64)
def _hashed(file: Path, *state: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
