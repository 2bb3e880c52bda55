"""What every kernel checks and prepares: images, maps, targets, random numbers, fills."""

import hashlib
import operator
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn

from saliency_lib.batching import arranged, chunk_size, exact, in_chunks
from saliency_lib.registry import no_such

Fill = str | float | Tensor | Callable[[Tensor], Tensor]


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


def logits_of(model: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Logits (B, K) of a model that the caller has frozen, in chunks and without a graph."""
    chunks: list[Tensor] = []
    with torch.no_grad():
        size = chunk_size(images, batch_size)
        in_chunks(lambda i, j: chunks.append(check_logits(model(arranged(images[i:j])))), len(images), size)
    return torch.cat(chunks)


def check_logits(logits: Tensor) -> Tensor:
    """The logits, refused where they are not (B, K)."""
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the model must give logits (B, K), got {type(logits).__name__}; wrap it in a module that gives one tensor"
        )
    if logits.ndim != 2:
        raise ValueError(f"the model must give logits (B, K), got {tuple(logits.shape)}")
    return logits


def classes_of(logits: Tensor, targets: Tensor | None) -> Tensor:
    """The targets (B,), checked against logits (B, K); the predicted classes where they are None."""
    return check_logits(logits).argmax(1) if targets is None else check_targets(targets, check_logits(logits))


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


def resolve_targets(model: nn.Module, images: Tensor, targets: Tensor | int | None, batch_size: int | None = None) -> Tensor:
    """Targets (B,): the predicted classes where None is given, else the given ones, checked."""
    logits = logits_of(model, images if targets is None else images[:1], batch_size)
    if targets is None:
        return logits.argmax(1)
    return check_targets(targets, logits[:1].expand(len(images), -1))


def row_indices(images: Tensor, indices: Tensor | None) -> list[int]:
    """The number of each image in its data set, which with a seed fixes its random numbers; 0..B-1 if left out."""
    if indices is None:
        return list(range(len(images)))
    numbers = [int(i) for i in indices]
    if len(numbers) != len(images):
        raise ValueError(f"indices has {len(numbers)} entries for {len(images)} images")
    return numbers


def stream(purpose: str, *key: int) -> int:
    """A seed fixed by what it is for and by a key, for instance (seed, image, draw), unrelated to that of any other key."""
    try:
        numbers = [operator.index(part) for part in key]  # NumPy's whole numbers count as Python's
    except TypeError:
        raise ValueError(f"seeds and indices must be whole numbers, got {key} for {purpose}") from None
    return int.from_bytes(hashlib.sha256(repr((purpose, *numbers)).encode()).digest()[:4])  # torch's CPU generator reads 32 bits


def generator(device: torch.device, purpose: str, *key: int) -> torch.Generator:
    """A generator whose random numbers are fixed by what they are for and by a key."""
    return torch.Generator(device).manual_seed(stream(purpose, *key))


def pixel_mean(model: nn.Module, images: Tensor) -> Tensor:
    """The colour (C, 1, 1) that is zero after the model's normalisation; 0 where the model does not say."""
    mean = getattr(model, "pixel_mean", None)
    if mean is None:
        return images.new_zeros(images.shape[1], 1, 1)
    return torch.as_tensor(mean).to(images).reshape(-1, 1, 1).expand(images.shape[1], 1, 1)


def blur(images: Tensor, *, size: int = 11, sigma: float = 5.0, outside: Tensor | float = 0.0) -> Tensor:
    """Gaussian blur of images (B, C, H, W) with RISE's kernel: a delta of `size` pixels filtered with `sigma`.

    Args:
        outside: colour beyond the border, (C, 1, 1) or a number.

    Source: Petsiuk et al. 2018, released evaluation code: 11 pixels, sigma 5, zero padding of the normalised image.
    """
    if size % 2 == 0 or size < 1:
        raise ValueError(f"size of the blur must be odd and positive, got {size}")
    delta = np.zeros(size)
    delta[size // 2] = 1
    kernel = torch.as_tensor(gaussian_filter1d(delta, sigma)).to(images)
    channels = images.shape[1]
    centred = images - outside
    rows = kernel.view(1, 1, 1, size).expand(channels, 1, 1, size)
    columns = kernel.view(1, 1, size, 1).expand(channels, 1, size, 1)
    centred = F.conv2d(centred, rows, padding=(0, size // 2), groups=channels)
    return F.conv2d(centred, columns, padding=(size // 2, 0), groups=channels) + outside


def wide_blur(images: Tensor, *, size: int = 127, sigma: float = 17.0) -> Tensor:
    """Gaussian blur of images (B, C, H, W) that are mirrored at their borders, however small they are.

    Source: the saliency benchmark's insertion (torchvision's gaussian_blur, 127 pixels, sigma 17). Differs: torchvision
    refuses images of less than 64 pixels; here they are mirrored more than once.
    """
    places = torch.arange(-(size // 2), size // 2 + 1, dtype=torch.float64)
    kernel = torch.exp(-places.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(images)
    for axis in (2, 3):
        side = images.shape[axis]
        period = max(1, 2 * (side - 1))
        place = torch.arange(-(size // 2), side + size // 2, device=images.device).remainder(period)
        lines = images.index_select(axis, torch.minimum(place, period - place)).movedim(axis, -1)
        images = F.conv1d(lines.reshape(-1, 1, lines.shape[-1]), kernel.view(1, 1, -1)).view(*lines.shape[:-1], side)
        images = images.movedim(-1, axis)
    return images.contiguous()


def image_mean(images: Tensor) -> Tensor:
    """The mean colour (B, C, 1, 1) of each image."""
    return images.mean((2, 3), keepdim=True)


Draw = Callable[..., Tensor]


def noise(images: Tensor, numbers: list[int], seed: int, purpose: str = "noise", draw: Draw = torch.rand) -> Tensor:
    """Random numbers the shape of the images (B, C, H, W), drawn for each in float32 from a stream of its own.

    Args:
        numbers, seed, purpose: fix the numbers, see `stream`.
        draw: torch.rand (uniform in [0, 1)) or torch.randn.
    """
    sources = [generator(images.device, purpose, seed, number) for number in numbers]
    draws = [draw(images.shape[1:], generator=source, device=images.device) for source in sources]
    return torch.stack(draws).to(images.dtype)


def within(images: Tensor, shares: Tensor) -> Tensor:
    """Values at these shares of the way from each channel's least value to its greatest, image by image."""
    least, greatest = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.lerp(least, greatest, shares)


def _colour(images: Tensor, numbers: list[int], seed: int) -> Tensor:
    """One normal draw (B, C, 1, 1) for each channel of each image."""
    return noise(images[:, :, :1, :1], numbers, seed, "gaussian", torch.randn)


FILLS: dict[str, Callable[[nn.Module, Tensor, list[int], int], Tensor]] = {
    "mean": lambda model, images, numbers, seed: pixel_mean(model, images),
    "black": lambda model, images, numbers, seed: images.new_zeros(()),
    "white": lambda model, images, numbers, seed: images.new_ones(()),
    "grey": lambda model, images, numbers, seed: images.new_full((), 0.5),
    "blur": lambda model, images, numbers, seed: blur(images, outside=pixel_mean(model, images)),
    "wide_blur": lambda model, images, numbers, seed: wide_blur(images),
    "noise": lambda model, images, numbers, seed: noise(images, numbers, seed),
    "corner": lambda model, images, numbers, seed: images[:, :, :1, :1],
    "image_mean": lambda model, images, numbers, seed: image_mean(images),
    "uniform": lambda model, images, numbers, seed: within(images, noise(images, numbers, seed, "uniform")),
    "gaussian": lambda model, images, numbers, seed: image_mean(images) + _colour(images, numbers, seed),
}


def filled(fill: Fill, model: nn.Module, images: Tensor, *, indices: Tensor | None = None, seed: int = 0) -> Tensor:
    """What stands where a pixel is taken away, expanded to the shape of images (B, C, H, W).

    Args:
        fill: `mean` (zero after the model's normalisation), `black`, `white`, `grey`, `blur` (RISE's), `wide_blur` (127
            pixels, sigma 17, mirrored outside), `corner` (the image's top left pixel), `image_mean` (its mean colour),
            `noise` (uniform in [0, 1]), `uniform` (in the range of the image's channel), `gaussian` (its mean colour plus
            one normal draw a channel), a number, a tensor that broadcasts to the images, or a function of the images.
            Random fills are fixed by seed and index.

    Raises:
        ValueError: unknown name, a tensor that does not broadcast, or a result with NaN.
    """
    if isinstance(fill, str):
        if fill not in FILLS:
            raise no_such("fill", fill, FILLS)
        with exact(images):
            substrate = FILLS[fill](model, images, row_indices(images, indices), seed)
    else:
        substrate = fill(images) if callable(fill) else torch.tensor(fill) if isinstance(fill, (int, float)) else fill
        if not isinstance(substrate, Tensor):
            raise ValueError(
                f"fill must be a name, a number, a tensor or a function that gives a tensor, got {type(substrate).__name__}"
            )
        substrate = substrate.to(images)
    try:
        substrate = substrate.expand(images.shape)
    except RuntimeError:
        raise ValueError(f"fill {tuple(substrate.shape)} does not broadcast to images {tuple(images.shape)}") from None
    if not torch.isfinite(substrate).all():
        raise ValueError("fill holds NaN or infinity")
    return substrate
