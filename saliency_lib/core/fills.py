"""Fills: the values that replace removed pixels."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn

from saliency_lib.core.batching import without_autocast
from saliency_lib.core.calls import look_at_fill
from saliency_lib.core.options import Names, Number, no_such, shown
from saliency_lib.core.streams import Indices, noise, row_indices


def pixel_mean(model: nn.Module, images: Tensor) -> Tensor:
    """Return the colour (C, 1, 1) that is zero after the model's normalisation.

    A model states it as `pixel_mean`. For a model without this attribute the colour is 0.
    """
    mean = getattr(model, "pixel_mean", None)
    if mean is None:
        return images.new_zeros(images.shape[1], 1, 1)
    colour = torch.as_tensor(mean).to(images).reshape(-1, 1, 1)
    if len(colour) not in (1, images.shape[1]):
        raise ValueError(
            f"images {tuple(images.shape)} do not fit the model, which is of {len(colour)} channels; use another model"
        )
    return colour.expand(images.shape[1], 1, 1)


def blur(images: Tensor, *, size: int = 11, sigma: float = 5.0, outside: Tensor | float = 0.0) -> Tensor:
    """Blur images with RISE's kernel: a delta of `size` pixels filtered with a Gaussian of width `sigma`.

    Args:
        images: (B, C, H, W).
        size: side of the kernel in pixels, odd.
        sigma: standard deviation of the Gaussian in pixels.
        outside: colour beyond the border, (C, 1, 1) or a number.

    Source: Petsiuk et al. 2018, released evaluation code: 11 pixels, sigma 5, zero padding of the normalised image.
    """
    if size % 2 == 0 or size < 1:
        raise ValueError(f"the size of the blur must be odd and positive, got {size}")
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
    """Blur images (B, C, H, W) with a Gaussian; beyond their borders they are mirrored, several times if they are small.

    Source: the saliency benchmark's insertion (torchvision's gaussian_blur, 127 pixels, sigma 17).
    Differs: torchvision refuses images of less than 64 pixels.
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
    """Return the mean colour (B, C, 1, 1) of each image."""
    return images.mean((2, 3), keepdim=True)


def within(images: Tensor, shares: Tensor) -> Tensor:
    """Map shares in [0, 1] to the range of each image's channel: 0 to its smallest value, 1 to its largest."""
    least, greatest = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.lerp(least, greatest, shares)


def noise_range(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest value (B, 1, 1, 1) of noise that replaces images (B, C, H, W).

    They are 0 and 1 for pixels in [0, 1]. A series, whose values go beyond, widens them to its own extremes, so that its noise
    is that of the series scaled to [0, 1].

    Source: Ismail et al. 2020 and 2021, released code: uniform noise in [0, 1] for series scaled to [0, 1].
    Differs: the extremes are those of each series, not those of the training set, which a method does not see. So the result
    for a series does not depend on its batch.
    """
    return images.amin((1, 2, 3), keepdim=True).clamp(max=0), images.amax((1, 2, 3), keepdim=True).clamp(min=1)


FILLS: dict[str, Callable[[nn.Module, Tensor, list[int], int], Tensor]] = {
    "mean": lambda model, images, numbers, seed: pixel_mean(model, images),
    "black": lambda model, images, numbers, seed: images.new_zeros(()),
    "white": lambda model, images, numbers, seed: images.new_ones(()),
    "grey": lambda model, images, numbers, seed: images.new_full((), 0.5),
    "blur": lambda model, images, numbers, seed: blur(images, outside=pixel_mean(model, images)),
    "wide_blur": lambda model, images, numbers, seed: wide_blur(images),
    "noise": lambda model, images, numbers, seed: torch.lerp(*noise_range(images), noise(images, numbers, seed)),
    "corner": lambda model, images, numbers, seed: images[:, :, :1, :1],
    "image_mean": lambda model, images, numbers, seed: image_mean(images),
    "uniform": lambda model, images, numbers, seed: within(images, noise(images, numbers, seed, "uniform")),
    "gaussian": lambda model, images, numbers, seed: (
        image_mean(images) + noise(images[:, :, :1, :1], numbers, seed, "gaussian", law=torch.randn)
    ),
}


Fill = Annotated[str, Names(FILLS)] | Number | Tensor | Callable[[Tensor], Tensor]


def filled(fill: Fill, model: nn.Module, images: Tensor, *, indices: Indices = None, seed: int = 0, name: str = "fill") -> Tensor:
    """Return the values that replace removed pixels, expanded to the shape of images (B, C, H, W).

    Args:
        fill: a name, a number, a tensor that broadcasts to the images, or a function of the images. The names:

            - `mean`: the colour that is zero after the model's normalisation,
            - `black`, `white`, `grey`: 0, 1 and 0.5,
            - `blur`: RISE's blur of the image, `wide_blur`: a blur of 127 pixels and sigma 17,
            - `corner`: the image's top left pixel, `image_mean`: its mean colour,
            - `noise`: uniform in [0, 1], or as far as a series goes beyond (`noise_range`), `uniform`: uniform in the range of
              the image's channel,
            - `gaussian`: the image's mean colour plus one normal draw per channel.
        seed, indices: fix the random fills; indices (B,) are the images' numbers in their data set.
        name: of the option, for error messages.

    Raises:
        ValueError: the name is unknown, the tensor does not broadcast, or the result contains NaN.
    """
    if isinstance(fill, str):
        if fill not in FILLS:
            raise no_such(name, fill, FILLS)
        look_at_fill(fill)
        with without_autocast(images):
            substrate = FILLS[fill](model, images, row_indices(images, indices), seed)
    else:
        substrate = fill(images) if callable(fill) else torch.tensor(float(fill)) if isinstance(fill, (int, float)) else fill
        if not isinstance(substrate, Tensor):
            raise ValueError(f"{name} must be a name, a number, a tensor or a function that returns one, got {shown(substrate)}")
        substrate = substrate.to(images)
    try:
        substrate = substrate.expand(images.shape)
    except RuntimeError:
        got, wanted = tuple(substrate.shape), tuple(images.shape)
        raise ValueError(
            f"{name} {got} does not broadcast to images {wanted}; give one number per channel as (C, 1, 1)"
        ) from None
    if not torch.isfinite(substrate).all():
        raise ValueError(f"{name} contains NaN or infinity; give finite values")
    return substrate
