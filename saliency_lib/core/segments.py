"""Segments: the regions of an image that are hidden or removed as a whole."""

import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from saliency_lib.core.optional import optional
from saliency_lib.core.options import Names, Range, no_such
from saliency_lib.core.streams import sent

Side = Annotated[int, Range(1, 100)]  # rectangles per row and per column of a grid
SMALL = 64  # pixels of the shorter side; below it quickshift finds one to five segments per image


def segmented(images: Tensor, segment: Callable[..., np.ndarray], **options: Any) -> Tensor:
    """Return the segments (B, H, W) that one of scikit-image's functions finds in each image (B, 1 or 3, H, W).

    Raises:
        ValueError: the images have neither 1 nor 3 channels.
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(f"superpixels need images of 1 or 3 channels, got {images.shape[1]}; pass segments='grid'")
    pixels = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).double().cpu().numpy()
    return sent(torch.as_tensor(np.stack([segment(image, **options) for image in pixels])).long(), images.device)


def superpixels(images: Tensor, seed: int = 0) -> Tensor:
    """Segment each image with quickshift in LIME's settings.

    Args:
        images: (B, 1 or 3, H, W) pixels in [0, 1].
        seed: breaks quickshift's ties, as lime's `random_seed` does.

    Returns:
        (B, H, W), whole numbers from 0.

    Raises:
        ValueError: the images have neither 1 nor 3 channels.

    Source: Vedaldi, Soatto 2008; kernel 4, distance 200, ratio 0.2 of lime 0.2.
    """
    with optional("methods"):
        from skimage.segmentation import quickshift

    return segmented(images, quickshift, kernel_size=4, max_dist=200, ratio=0.2, rng=seed)


def compact_superpixels(images: Tensor, parts: int = 50) -> Tensor:
    """Segment each image with SLIC into about `parts` regions of similar size, (B, H, W); arguments as in `superpixels`.

    Source: Achanta et al. 2012; compactness 10 as in scikit-image.
    """
    with optional("methods"):
        from skimage.segmentation import slic

    return segmented(images, slic, n_segments=parts, compactness=10, start_label=0)


def grid(images: Tensor, side: int = 7) -> Tensor:
    """Divide each image (B, C, H, W) into side x side rectangles (B, H, W), fewer if it has fewer rows or columns."""
    rows, columns = (torch.arange(n, device=images.device) * min(n, side) // n for n in images.shape[2:])
    return (rows[:, None] * min(images.shape[3], side) + columns).expand(len(images), -1, -1)


def rectangles(images: Tensor, side: int) -> int:
    """Return into how many rectangles `grid` divides each of the images."""
    return math.prod(min(n, side) for n in images.shape[2:])


def tokens(images: Tensor) -> Tensor:
    """Make each pixel of the images (B, C, H, W), for instance each token of texts, a segment of its own, (B, H, W)."""
    return torch.arange(math.prod(images.shape[2:]), device=images.device).view(images.shape[2:]).expand(len(images), -1, -1)


SEGMENTATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "quickshift": superpixels,
    "slic": lambda images, seed: compact_superpixels(images),
    "grid": lambda images, seed: grid(images),
    "tokens": lambda images, seed: tokens(images),
}


Segments = Annotated[str, Names(SEGMENTATIONS)] | Tensor | Callable[[Tensor], Tensor]


def numbered(images: Tensor, segments: Segments | None, seed: int) -> Tensor:
    """Return the segments (B, H, W) of the images, numbered from 0 without gaps in each image.

    Raises:
        ValueError: the segments do not fit the images, are not whole numbers, or have a name that is not known.
    """
    if segments is None:
        segments = "tokens" if images.shape[2] == 1 else "quickshift" if min(images.shape[2:]) >= SMALL else "slic"
    if isinstance(segments, str):
        if segments not in SEGMENTATIONS:
            raise no_such("segments", segments, SEGMENTATIONS)
        segments = SEGMENTATIONS[segments](images, seed)
    elif callable(segments):
        segments = torch.stack([torch.as_tensor(segments(image)) for image in images])
    if not isinstance(segments, Tensor) or segments.shape != images[:, 0].shape or segments.is_floating_point():
        got = f"{tuple(segments.shape)} of {segments.dtype}" if isinstance(segments, Tensor) else type(segments).__name__
        raise ValueError(f"segments must be whole numbers of shape {tuple(images[:, 0].shape)}, got {got}")
    here = segments.cpu()  # once for all images, since the host has to know how many segments each has
    return sent(torch.stack([image.unique(return_inverse=True)[1] for image in here]), images.device)


def mean_colours(images: Tensor, regions: Tensor) -> Tensor:
    """Replace each pixel of the images (B, C, H, W) by the mean colour of its region (B, H, W)."""
    index = regions.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    sums = images.new_zeros(*images.shape[:2], int(regions.max()) + 1, dtype=torch.float64)
    sizes = sums.scatter_add(2, index, torch.ones_like(index, dtype=torch.float64)).clamp_min(1)
    sums = sums.scatter_add(2, index, images.flatten(2).double())
    return (sums / sizes).gather(2, index).view(images.shape).to(images)
