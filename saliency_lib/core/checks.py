"""Check what a kernel is given."""

import math
from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saliency_lib.core.calls import look_at_pixels
from saliency_lib.core.options import shown


def check_model(model: nn.Module) -> None:
    """Refuse a model that is not a torch.nn.Module, or whose output for an image depends on the other images of the batch.

    BatchNorm without running statistics normalises by those of the batch, in evaluation mode too.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model must be a torch.nn.Module, got {type(model).__name__}; wrap a function in a module")
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None and module.running_var is None:
            raise ValueError(
                f"{name or 'the model'} is a {type(module).__name__} without running statistics, so the output for an image "
                "depends on its batch; train the model with track_running_stats=True, or replace the layer by GroupNorm"
            )


def positive(name: str, number: int) -> int:
    """Return the number if it is a whole number of at least 1, and refuse it otherwise."""
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")
    return number


def not_negative(name: str, number: float) -> float:
    """Return the number if it is finite and at least 0, and refuse it otherwise."""
    if isinstance(number, bool) or not isinstance(number, Real) or not 0 <= number < math.inf:
        raise ValueError(f"{name} must be a finite number of at least 0, got {number!r}")
    return number


def check_images(images: Tensor) -> Tensor:
    """Return the images without a graph, and refuse what is not a non-empty, finite batch (B, C, H, W) of floats.

    Raises:
        ValueError: the message says what was given and what to pass.
    """
    check_kind("images", images, 4)
    if damaged := rows_not_finite(images):
        raise ValueError(f"images contain NaN or infinity (images {damaged}); check how they were loaded")
    look_at_pixels(images)
    return images.detach()


def check_maps(maps: Tensor, images: Tensor) -> None:
    """Refuse maps that do not fit the images one to one, or that contain NaN or infinity.

    Raises:
        ValueError: the message gives both shapes, or says which maps are damaged.
    """
    check_map_shape(maps, images)
    refuse_damaged_maps((~torch.isfinite(maps)).flatten(1).any(1))


def check_map_shape(maps: Tensor, images: Tensor) -> None:
    """Refuse maps that do not fit the images one to one, whatever their values."""
    if not isinstance(maps, Tensor):
        check_kind("maps", maps, 3)
    if maps.shape != images[:, 0].shape:
        reduce = "; reduce attributions (B, C, H, W) with sl.as_maps(attributions)" if maps.ndim == 4 else ""
        raise ValueError(f"maps {tuple(maps.shape)} do not fit images {tuple(images.shape)}; maps must be (B, H, W){reduce}")
    check_kind("maps", maps, 3)


def refuse_damaged_maps(rows: Tensor) -> None:
    """Refuse maps of which some (B,), bool, contain NaN or infinity. A GPU is asked once."""
    if damaged := first_rows(rows):
        raise ValueError(f"maps contain NaN or infinity (maps {damaged}); check the method and the model's weights")


def check_kind(name: str, values: Tensor, axes: int) -> None:
    """Refuse what is not a tensor of floats with so many axes, (B, C, H, W) or (B, H, W), and say how to convert it.

    Args:
        name: `images` or `maps`.

    Raises:
        ValueError: see above.
    """
    if isinstance(values, Tensor) and values.ndim == axes and values.is_floating_point():
        if values.numel() == 0:
            raise ValueError(f"{name} {tuple(values.shape)} are empty; pass at least one of some pixels")
        return
    shape, got = {4: "(B, C, H, W)", 3: "(B, H, W)"}[axes], shown(values)
    if isinstance(values, np.ndarray):
        convert = f"convert the array with torch.from_numpy({name}).float()"
    elif isinstance(inner := getattr(values, name, None), Tensor):
        got, convert = type(values).__name__, f"pass its tensor, {name}.{name}, of shape {tuple(inner.shape)}"
    elif not isinstance(values, Tensor) or values.ndim == axes - 1:
        convert = f"pass one of them as {name}[None]"
    elif values.ndim == axes:
        convert = f"convert them with {name}.float()" + (", and divide bytes by 255" if values.dtype == torch.uint8 else "")
    else:
        convert = "arrange the axes in this order"
    raise ValueError(f"{name} must be floats of shape {shape}, got {got}; {convert}")


def rows_not_finite(values: Tensor) -> list[int]:
    """Return the numbers of the first five rows of values (B, ...) that contain NaN or infinity."""
    return first_rows((~torch.isfinite(values)).flatten(1).any(1))


def first_rows(chosen: Tensor) -> list[int]:
    """Return the numbers of the first five rows that are chosen (B,), bool. A GPU is asked once."""
    return [number for number, one in enumerate(chosen.tolist()) if one][:5]


def check_logits(logits: Tensor) -> Tensor:
    """Return the logits if they have the shape (B, K), and refuse them otherwise."""
    if isinstance(logits, Tensor) and logits.ndim == 2:
        return logits
    part = f"output[{next(iter(logits))!r}]" if isinstance(logits, Mapping) and logits else "output[0]"
    score = f"{'output' if isinstance(logits, Tensor) else part}.flatten(1).mean(1)"
    raise ValueError(
        f"the model must return logits (B, K), got {outline(logits)}; wrap it in a module that returns one tensor, or explain a "
        f"number of its output with sl.Scalar(model, function), for instance sl.Scalar(model, lambda output: {score})"
    )


def outline(output: object) -> str:
    """Return what a model returned as an error message shows it: the shape of a tensor, the parts of a dictionary or tuple."""
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    if isinstance(output, Mapping):
        return f"{type(output).__name__} of " + (
            ", ".join(f"{name!r} {outline(part)}" for name, part in output.items()) or "nothing"
        )
    if isinstance(output, list | tuple):
        return f"{type(output).__name__} of {', '.join(map(outline, output)) or 'nothing'}"
    return type(output).__name__


def check_targets(targets: Tensor | int, logits: Tensor) -> Tensor:
    """Return targets (B,) as class indices that fit the logits (B, K); one number is used for all rows.

    Raises:
        ValueError: the targets have another shape, are not whole numbers, or are outside 0..K-1.
    """
    targets = as_targets(targets, logits)
    check_classes(targets, logits.shape[1])
    return targets


def check_classes(targets: Tensor, classes: int) -> None:
    """Refuse targets (B,) that are outside 0..classes-1. A GPU is asked once."""
    least, greatest = torch.stack(targets.aminmax()).tolist()
    if least < 0 or greatest >= classes:
        raise ValueError(f"targets must be classes of the model, from 0 to {classes - 1}; they range from {least} to {greatest}")


def as_targets(targets: Tensor | int, rows: Tensor, name: str = "targets") -> Tensor:
    """Return targets (B,) as whole numbers, one for each of the rows (B, ...). The number of classes is not checked.

    Args:
        name: of the argument, for error messages.
    """
    given = targets
    try:
        targets = torch.as_tensor(given, device=rows.device)
    except (TypeError, ValueError, RuntimeError):
        scalar = "; explain what a function makes of the output with sl.Scalar(model, function)" if callable(given) else ""
        raise ValueError(f"{name} must be class indices (B,), or one number for all images, got {shown(given)}{scalar}") from None
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"{name} must be class indices (whole numbers), got {shown(given)} ({targets.dtype})")
    targets = targets.long().expand(len(rows)) if targets.ndim == 0 else targets.long()
    if targets.shape != rows.shape[:1]:
        raise ValueError(f"{name} {tuple(targets.shape)} do not fit {len(rows)} images; {name} must be (B,), one class per image")
    return targets


def check_fit(model: nn.Module, images: Tensor) -> None:
    """Refuse images whose precision or device is not the model's; for use after the model has failed on them.

    Raises:
        ValueError: the message says how to convert the images.
    """
    like = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), images)
    if (like.dtype, like.device.type) != (images.dtype, images.device.type):
        raise ValueError(
            f"images are {images.dtype} on {images.device} and the model's parameters {like.dtype} on {like.device}; "
            f"pass images.to({str(like.device)!r}, {like.dtype})"
        )
