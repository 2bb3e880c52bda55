"""Seals: a JSON file says the SHA-256 of all that it says, which shows accidents and edits. It is no signature."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(content: Any) -> str:
    """Return the SHA-256 of plain values, however their JSON is written."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all that a mapping says, its own seal aside."""
    return digest({name: value for name, value in content.items() if name != "seal"})


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values with their seal."""
    plain = json.loads(json.dumps(dict(content)))  # as it is read again
    return plain | {"seal": seal(plain)}


def unsealed(text: str) -> dict[str, Any]:
    """Return the content of a JSON file that `sealed` made, without the seal.

    Raises:
        ValueError: the text is not JSON, or the seal does not fit.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it is not a mapping")
    if content.pop("seal", None) != digest(content):
        raise ValueError("its seal does not fit")
    return content
