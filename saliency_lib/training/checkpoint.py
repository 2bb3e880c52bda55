"""The state of a training after a whole epoch, in one file, so that a stopped run can continue."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from saliency_lib import paths
from saliency_lib.core.files import explain_disk_errors, replace_file, write_tensors
from saliency_lib.training.selection import Best, Row


def _sha256(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of all that a checkpoint says: names, types, shapes, values and metadata."""
    digest = hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def save_checkpoint(file: Path, model: nn.Module, optimiser: torch.optim.Optimizer, history: list[Row], best: Best) -> None:
    """Write the weights, the optimiser's state, the history and the best epoch to a safetensors file, whole or not at all."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.weights.items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": torch.as_tensor(value) for name, value in state.items() if value is not None}
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
    metadata = {"history": json.dumps(history), "best": json.dumps([best.epoch, best.value if best.epoch else None])}
    metadata["sha256"] = _sha256(arrays, metadata)
    with explain_disk_errors(file.parent):
        replace_file(file, lambda draft: write_tensors(draft, arrays, metadata))


def load_checkpoint(file: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[list[Row], Best]:
    """Restore the weights and the optimiser's state, and return the history and the best epoch.

    Raises:
        ValueError: the file is damaged (truncated or changed), or belongs to another model.
    """
    try:
        with safe_open(file, "pt") as stored:
            metadata = stored.metadata()
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        digest = metadata.pop("sha256")
        if _sha256({name: tensor.numpy() for name, tensor in tensors.items()}, metadata) != digest:
            raise ValueError("its content is not what was written")
        history, (epoch, value) = (json.loads(metadata[name]) for name in ("history", "best"))
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, rest = name.split(".", 1)
            parts[part][rest] = tensor
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            number, key = name.split(".", 1)
            state.setdefault(int(number), {})[key] = tensor
        model.load_state_dict(parts["model"])
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    except (SafetensorError, OSError, KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        name = paths.relative(file)
        raise ValueError(f"checkpoint {name} is damaged ({str(error)[:120]}); delete {name} to train from the start") from None
    return history, Best(epoch, -math.inf if value is None else value, parts["best"])
