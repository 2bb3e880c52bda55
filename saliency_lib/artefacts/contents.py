"""What the files of artefacts must contain: names, shapes and types of tensors, finite values."""

import io
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

Kind = tuple[tuple[int, ...], torch.dtype]  # shape and type


def problem(tensors: Mapping[str, Any], wanted: Mapping[str, Kind]) -> str:
    """Return what is wrong with tensors, in words that follow "file: "; empty if nothing is.

    Args:
        wanted: the shape and the type of each tensor; no other may be there.
    """
    if missing := wanted.keys() - tensors.keys():
        return f"{min(missing)} is missing"
    if foreign := tensors.keys() - wanted.keys():
        return f"{min(foreign)} does not belong there"
    for name, (shape, dtype) in wanted.items():
        tensor = tensors[name]
        if not isinstance(tensor, Tensor):
            return f"{name} is a {type(tensor).__name__} instead of a tensor"
        if tuple(tensor.shape) != shape:
            return f"{name} has the shape {tuple(tensor.shape)} instead of {shape}"
        if tensor.dtype != dtype:
            return f"{name} has the type {tensor.dtype} instead of {dtype}"
        if not torch.isfinite(tensor).all():
            return f"{name} has NaN or infinity"
    return ""


def problem_of_curve(curve: Mapping[str, Any], images: int) -> str:
    """Return what is wrong with the tensors of a curve of so many images; empty if nothing is."""
    fractions = curve.get("fractions")
    points = len(fractions) if isinstance(fractions, Tensor) and fractions.ndim else 0
    wanted = {"fractions": (points,), "values": (images, points), "area": (images,)}
    wanted |= {name: (images,) for name in ("tied", "error") if curve.get(name) is not None}
    found = problem(
        {name: value for name, value in curve.items() if value is not None},
        {name: (shape, torch.float32) for name, shape in wanted.items()},
    )
    return found or ("fractions decreases" if (curve["fractions"].diff() < 0).any() else "")


def problem_of_maps(tensors: Mapping[str, Tensor], recorded: Mapping[str, Any], classes: int) -> str:
    """Return what is wrong with maps, their targets and the positions of their images; empty if nothing is.

    Args:
        recorded: what the provenance says of the images.
        classes: how many the model predicts.
    """
    number = (recorded["count"],), torch.int64
    shape = (recorded["count"], *recorded["shape"][1:])
    wrong = problem(tensors, {"maps": (shape, torch.float32), "targets": number, "indices": number})
    wrong = wrong or _problem_of_classes(tensors["targets"], classes, "targets")
    return wrong or problem_of_indices(tensors["indices"], recorded)


def problem_of_samples(tensors: Mapping[str, Tensor], count: int, recorded: Mapping[str, Any], classes: int) -> str:
    """Return what is wrong with so many samples and their labels; empty if nothing is.

    Args:
        recorded: what the provenance says of the test images, whose shape they have.
        classes: how many there are.
    """
    number = (count,), torch.int64
    wrong = problem(tensors, {"images": ((count, *recorded["shape"]), torch.float32), "labels": number, "indices": number})
    wrong = wrong or _problem_of_classes(tensors["labels"], classes, "labels")
    return wrong or ("" if torch.equal(tensors["indices"], torch.arange(count)) else "indices do not count the images")


def _problem_of_classes(labels: Tensor, classes: int, name: str) -> str:
    return "" if ((labels >= 0) & (labels < classes)).all() else f"{name} has values that are none of the {classes} classes"


def problem_of_indices(indices: Tensor, recorded: Mapping[str, Any]) -> str:
    """Return what is wrong with the positions of images in their split; empty if nothing is."""
    expected = recorded["start"] + recorded["stride"] * torch.arange(recorded["count"])
    same = indices.dtype == torch.int64 and torch.equal(indices, expected)
    return "" if same else "indices are not those of the images"


def problem_of_weights(weights: Mapping[str, Tensor], model: nn.Module) -> str:
    """Return what is wrong with the weights of a model; empty if nothing is. A file has no tensors without an axis."""
    return problem(weights, {name: (tuple(value.shape) or (1,), value.dtype) for name, value in model.state_dict().items()})


def history_of(text: str) -> pd.DataFrame | None:
    """Return the history of a training, one row per epoch; None if the text is not one."""
    try:
        history = pd.read_csv(io.StringIO(text))
        numbers = history[["epoch", "loss", "learning_rate", "test_accuracy"]].to_numpy(float)
    except (ValueError, KeyError, pd.errors.ParserError):
        return None
    counted = len(history) > 0 and history["epoch"].tolist() == list(range(1, len(history) + 1))
    return history if counted and bool(torch.isfinite(torch.from_numpy(numbers)).all()) else None
