"""XRAI: regions of an image, added in the order of their mean integrated gradients."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from saliency_lib.attribution.backward import Nodes
from saliency_lib.attribution.integrated import integrated_gradients
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.checks import check_images
from saliency_lib.core.optional import optional
from saliency_lib.core.options import Positive, Range
from saliency_lib.core.segments import segmented, tokens
from saliency_lib.core.streams import sent

SCALES = (50.0, 100.0, 150.0, 250.0, 500.0, 1200.0)
Smallest = Annotated[int, Range(1, 10_000)]


def scaled_segments(images: Tensor, scales: Sequence[float], smallest: int) -> Tensor:
    """Divide each image into regions, once per scale, with Felzenszwalb and Huttenlocher's method.

    Args:
        images: (B, 1 or 3, H, W) pixels in [0, 1].
        scales: a larger one gives larger regions.
        smallest: pixels of the smallest region.

    Returns:
        (B, S, H, W), whole numbers from 0.
    """
    if images.shape[2] == 1:  # a text: its words
        return tokens(images)[:, None]
    with optional("methods"):
        from skimage.segmentation import felzenszwalb

    found = [segmented(images, felzenszwalb, scale=scale, sigma=0.8, min_size=smallest) for scale in scales]
    return torch.stack(found, 1)


def grown(values: Tensor, regions: Tensor) -> Tensor:
    """Add regions one after the other, each time the one whose pixels that are still missing have the greatest mean.

    Args:
        values: (H, W), of the pixels, on the CPU.
        regions: (S, H, W), on the CPU, whole numbers from 0: several divisions of the image, whose regions may overlap.

    Returns:
        (H, W): per pixel the mean with which its region was added, so that it falls from the first region to the last. Of equal
        regions the one with the smaller number, of the first division, comes first.
    """
    counts = [int(one.max()) + 1 for one in regions]
    starts = torch.tensor([0, *counts[:-1]]).cumsum(0)
    places = (regions + starts[:, None, None]).flatten(1)  # one number per region of any division
    amounts, result = values.double().flatten(), torch.zeros(values.numel(), dtype=torch.float64)
    sizes = torch.zeros(sum(counts), dtype=torch.float64)
    sums = sizes.clone()
    for one in places:
        sizes.index_add_(0, one, torch.ones_like(amounts))
        sums.index_add_(0, one, amounts)
    starts_of = zip(places, counts, starts.tolist(), strict=True)
    members = [(one == number).nonzero()[:, 0] for one, count, start in starts_of for number in range(start, start + count)]
    missing = torch.ones(values.numel(), dtype=torch.bool)
    while missing.any():
        best = int(torch.where(sizes > 0, sums / sizes.clamp_min(1), -torch.inf).argmax())
        new = members[best][missing[members[best]]]
        result[new] = float(sums[best] / sizes[best])
        missing[new] = False
        for one in places:
            sizes.index_add_(0, one[new], -torch.ones(len(new), dtype=torch.float64))
            sums.index_add_(0, one[new], -amounts[new])
    return result.view_as(values).to(values.dtype)


@METHODS.register(family="path", passes="100 F + 100 B", paper="Kapishnikov et al. 2019")
def xrai(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    steps: Nodes = 50,
    scales: Sequence[float] = SCALES,
    smallest: Smallest = 20,
    batch_size: Positive | None = None,
) -> Tensor:
    """Rank regions by integrated gradients: the mean from a black and from a white baseline, region by region.

    Args:
        images: (B, 1 or 3, H, W) pixels in [0, 1]. The regions of a text are its words.
        targets: (B,) classes; None for the predicted ones.
        steps: nodes of each of the two integrals.
        scales: of the divisions of the image; a larger one gives larger regions.
        smallest: pixels of the smallest region.

    Returns:
        (B, H, W), signed, in logits per pixel: the mean with which the pixel's region was added, see `grown`.

    Raises:
        ValueError: the images have neither 1 nor 3 channels.

    Source: Kapishnikov, Bolukbasi, Viegas, Terry 2019, algorithm 1; six scales and the maximum over channels as in the released
    code. Differs: regions are not widened by 5 pixels, so that each division is one of the whole image.
    """
    images = check_images(images)
    options: dict[str, Any] = dict(steps=steps, reduction="max", batch_size=batch_size)
    dark, bright = (integrated_gradients(model, images, targets, baseline=colour, **options) for colour in ("black", "white"))
    here = ((dark + bright) / 2).cpu()  # once for all images, since every step decides where the next one goes
    regions = scaled_segments(images, scales, smallest).cpu()
    return sent(torch.stack([grown(one, own) for one, own in zip(here, regions, strict=True)]), images.device)
