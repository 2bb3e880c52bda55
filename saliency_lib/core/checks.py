"""Checks of what a kernel is given."""

import torch
from torch import Tensor, nn


def check_model(model: nn.Module) -> None:
    """Refuse what is no torch.nn.Module."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model must be a torch.nn.Module, got {type(model).__name__}; wrap a function in one")


def positive(name: str, number: int) -> int:
    """The number, refused where it is not whole and from 1."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{name} must be a whole number from 1, got {number!r}")
    return number


def check_images(images: Tensor) -> Tensor:
    """The images without a graph; refused where they are not a non-empty, finite batch (B, C, H, W) of floats.

    Raises:
        ValueError: with what was got and what to pass.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        got = f"{tuple(images.shape)} of {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images must be floats of shape (B, C, H, W), got {got}; one image is images[None]")
    if images.numel() == 0:
        raise ValueError(f"images {tuple(images.shape)} are empty; pass at least one image")
    if not torch.isfinite(images).all():
        bad = (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten().tolist()
        raise ValueError(f"images hold NaN or infinity (images {bad[:5]}); check how they were loaded")
    return images.detach()


def check_maps(maps: Tensor, images: Tensor) -> None:
    """Refuse maps that do not fit the images one to one, or hold NaN or infinity.

    Raises:
        ValueError: with both shapes, or the maps that are damaged.
    """
    if not isinstance(maps, Tensor) or maps.ndim != 3 or maps.shape != images[:, 0].shape:
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(f"maps {got} do not fit images {tuple(images.shape)}; maps must be (B, H, W)")
    if not maps.is_floating_point():
        raise ValueError(f"maps must be floats, got {maps.dtype}; convert them with maps.float()")
    if not torch.isfinite(maps).all():
        bad = (~torch.isfinite(maps)).flatten(1).any(1).nonzero().flatten().tolist()
        raise ValueError(f"maps hold NaN or infinity (maps {bad[:5]}); look at the method and at the model's weights")


def check_logits(logits: Tensor) -> Tensor:
    """The logits, refused where they are not (B, K)."""
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the model must give logits (B, K), got {type(logits).__name__}; wrap it in a module that gives one tensor"
        )
    if logits.ndim != 2:
        raise ValueError(f"the model must give logits (B, K), got {tuple(logits.shape)}")
    return logits


def check_targets(targets: Tensor | int, logits: Tensor) -> Tensor:
    """Targets (B,) as class indices that fit the logits (B, K); one number stands for all.

    Raises:
        ValueError: wrong shape, not whole numbers, or outside 0..K-1.
    """
    targets = as_targets(targets, logits)
    if targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise ValueError(f"targets run from {targets.min()} to {targets.max()}, the model has classes 0 to {logits.shape[1] - 1}")
    return targets


def as_targets(targets: Tensor | int, rows: Tensor) -> Tensor:
    """Targets (B,) as whole numbers, one for each of the rows (B, ...); how many classes there are is not looked at."""
    targets = torch.as_tensor(targets, device=rows.device)
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(f"targets must be class indices (whole numbers), got {targets.dtype}")
    targets = targets.long().expand(len(rows)) if targets.ndim == 0 else targets.long()
    if targets.shape != rows.shape[:1]:
        raise ValueError(f"targets {tuple(targets.shape)} do not fit {len(rows)} images; targets must be (B,)")
    return targets
