"""Concentration: whether a map's relevance is on few pixels, whatever the model says of them."""

import torch
from torch import Tensor, nn

from saliency_lib.core.checks import check_images, check_maps
from saliency_lib.evaluation.curve import Curve, one_number
from saliency_lib.evaluation.table import METRICS


def shares(images: Tensor, maps: Tensor) -> Tensor:
    """Return each pixel's share (B, H*W) of the sum of |map|, in double precision; equal shares for a map of zeros."""
    check_maps(maps, check_images(images))
    sizes = maps.detach().double().abs().flatten(1)
    sizes = sizes / sizes.amax(1, keepdim=True).clamp_min(torch.finfo(sizes.dtype).tiny)
    sizes = sizes.where(sizes.sum(1, keepdim=True) > 0, 1)
    return sizes / sizes.sum(1, keepdim=True)


@METRICS.register(lower_is_better=False, paper="Chalasani et al. 2020", family="concentration")
def sparseness(model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None) -> Curve:
    """Compute the Gini index of |map|: 0 if all pixels have the same relevance, almost 1 if a single pixel has it all.

    sum_k (2 k - n - 1) s_k / n, where s_1 <= ... <= s_n are the pixels' shares of the sum of |map|.

    Args:
        model, targets: not used.
        images: (B, C, H, W), not used except for their size.
        maps: (B, H, W).

    Returns:
        Curve of one point in [0, 1 - 1 / (H W)]; a large value is a simple map, which is no evidence that it is faithful. A map
        of zeros has 0.

    Source: Chalasani et al. 2020. Differs: Quantus adds 1e-7 to |map|.
    """
    ordered = shares(images, maps).sort(1).values
    n = ordered.shape[1]
    weights = 2 * torch.arange(1, n + 1, dtype=torch.float64, device=maps.device) - n - 1
    return one_number((ordered @ weights / n).to(torch.promote_types(maps.dtype, torch.float32)))


@METRICS.register(lower_is_better=True, paper="Bhatt et al. 2020", family="concentration", smallest=0)
def complexity(model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor | None = None) -> Curve:
    """Compute the entropy of |map|, -sum_p s_p log s_p, where s_p is pixel p's share of the sum of |map|.

    Args:
        model, targets: not used.
        images: (B, C, H, W), not used except for their size.
        maps: (B, H, W).

    Returns:
        Curve of one point in [0, log(H W)], natural logarithm; a small value is a simple map, which is no evidence that it is
        faithful. A map of zeros has log(H W), as has a constant one.

    Source: Bhatt, Weller, Moura 2020.
    """
    parts = shares(images, maps)
    return one_number(-torch.special.xlogy(parts, parts).sum(1).to(torch.promote_types(maps.dtype, torch.float32)))
