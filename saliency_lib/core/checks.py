"""Check what a kernel is given."""

import math
from numbers import Real

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
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
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        got = f"{tuple(images.shape)} of {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images must be floats of shape (B, C, H, W), got {got}; pass one image as images[None]")
    if images.numel() == 0:
        raise ValueError(f"images {tuple(images.shape)} are empty; pass at least one image")
    if damaged := rows_not_finite(images):
        raise ValueError(f"images contain NaN or infinity (images {damaged}); check how they were loaded")
    return images.detach()


def check_maps(maps: Tensor, images: Tensor) -> None:
    """Refuse maps that do not fit the images one to one, or that contain NaN or infinity.

    Raises:
        ValueError: the message gives both shapes, or says which maps are damaged.
    """
    if not isinstance(maps, Tensor) or maps.ndim != 3 or maps.shape != images[:, 0].shape:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"maps {got} do not fit images {tuple(images.shape)}; maps must be (B, H, W)")
    if not maps.is_floating_point():
        raise ValueError(f"maps must be floats, got {maps.dtype}; convert them with maps.float()")
    if damaged := rows_not_finite(maps):
        raise ValueError(f"maps contain NaN or infinity (maps {damaged}); check the method and the model's weights")


def rows_not_finite(values: Tensor) -> list[int]:
    """Return the numbers of the first five rows of values (B, ...) that contain NaN or infinity."""
    return (~torch.isfinite(values)).flatten(1).any(1).nonzero().flatten()[:5].tolist()


def check_logits(logits: Tensor) -> Tensor:
    """Return the logits if they have the shape (B, K), and refuse them otherwise."""
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        raise ValueError(f"the model must return logits (B, K), got {kind}; wrap it in a module that returns one tensor")
    if logits.ndim != 2:
        raise ValueError(f"the model must return logits (B, K), got {tuple(logits.shape)}")
    return logits


def check_targets(targets: Tensor | int, logits: Tensor) -> Tensor:
    """Return targets (B,) as class indices that fit the logits (B, K); one number is used for all rows.

    Raises:
        ValueError: the targets have another shape, are not whole numbers, or are outside 0..K-1.
    """
    targets = as_targets(targets, logits)
    if targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise ValueError(
            f"targets must be classes of the model, from 0 to {logits.shape[1] - 1}; "
            f"they range from {targets.min()} to {targets.max()}"
        )
    return targets


def as_targets(targets: Tensor | int, rows: Tensor) -> Tensor:
    """Return targets (B,) as whole numbers, one for each of the rows (B, ...). The number of classes is not checked."""
    targets = torch.as_tensor(targets, device=rows.device)
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(f"targets must be class indices (whole numbers), got {targets.dtype}")
    targets = targets.long().expand(len(rows)) if targets.ndim == 0 else targets.long()
    if targets.shape != rows.shape[:1]:
        raise ValueError(f"targets {tuple(targets.shape)} do not fit {len(rows)} images; targets must be (B,)")
    return targets
