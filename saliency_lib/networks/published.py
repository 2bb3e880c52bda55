"""Published weights: read from a file, checked, and loaded into a network."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from saliency_lib import paths


def load_weights(network: nn.Module, state: Mapping[str, Tensor], known: int, classes: int) -> None:
    """Load published weights; if they are for another number of classes, the head keeps its initial ones.

    Args:
        known: the number of classes of the weights; classes: that of the network.
    """
    own = network.state_dict()
    other = {key: own[key] for key in state if known != classes and key in own and own[key].shape != state[key].shape}
    network.load_state_dict({**state, **other})


def read_named(file: Path) -> dict[str, Tensor]:
    """Read a file of weights, whose name ends with the first digits of its SHA-256.

    Raises:
        ValueError: the file is damaged.
    """
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    try:
        if not digest.startswith(file.stem.rpartition("-")[2]):
            raise ValueError(f"its SHA-256 begins with {digest[:8]}")
        return torch.load(file, map_location="cpu", weights_only=True)
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{paths.relative(file)} is damaged ({error}); delete it and download or install it again") from error


def values_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of weights, in the order of their names."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode() + state[key].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_safetensors(file: Path, remedy: str) -> dict[str, Tensor]:
    """Read a file of safetensors.

    Raises:
        ValueError: it cannot be read; the message ends with the remedy.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{paths.relative(file)} is damaged, or no safetensors ({error}); {remedy}") from error


def stored(name: str, content: str, origin: str) -> dict[str, Tensor]:
    """Read data/weights/<name>.safetensors.

    Args:
        content: the first digits of the SHA-256 of the published values, in the order of their names.
        origin: the repository that publishes them, for the error message.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold the published weights.
    """
    file = paths.DATA / "weights" / f"{name}.safetensors"
    place = paths.relative(file)
    if not file.is_file():
        raise FileNotFoundError(
            f"{place} is missing; convert the weights of the repository {origin} to that file, as data/README.md says, or "
            "train the network (recipe standard)"
        )
    state = read_safetensors(file, "copy it again")
    if not values_sha256(state).startswith(content):
        raise ValueError(
            f"{place} does not hold the weights of the repository {origin} (their digest is {content}); copy it again"
        )
    return state
