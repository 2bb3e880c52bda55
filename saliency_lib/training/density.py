"""Objectives that regularise the density a classifier implies: the gradient of the label's logit and its Hessian's trace."""

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.core.options import Above0, Count, Names, NotNegative, Number
from saliency_lib.training.objectives import cross_entropy
from saliency_lib.training.table import OBJECTIVES

PIECEWISE_LINEAR = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardtanh, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


def is_piecewise_linear(model: nn.Module) -> bool:
    """Return whether a network has layers such as ReLU or max-pool, whose second derivative is 0 almost everywhere."""
    return any(isinstance(module, PIECEWISE_LINEAR) for module in model.modules())


def label_logit(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits (B, K) and the label's logit f (B,)."""
    logits = model(images)
    return logits, logits.gather(1, labels[:, None]).squeeze(1)


def label_slope(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits (B, K), the label's logit f (B,) and its gradient g (B, C, H, W), differentiable in the parameters."""
    pixels = images.detach().requires_grad_()
    logits, f = label_logit(model, pixels, labels)
    return logits, f, torch.autograd.grad(f.sum(), pixels, create_graph=True)[0]


# sigma^2 times the trace, from f and its gradient at x, the noise v, and a function that returns f at a distance from x
ESTIMATORS: dict[str, Callable[..., Tensor]] = {
    "released": lambda f, g, v, at: 2 * (at(v) - f),
    "centred": lambda f, g, v, at: 2 * (at(v) - f - (g * v).flatten(1).sum(1)),
    "antithetic": lambda f, g, v, at: at(v) + at(-v) - 2 * f,
}


def hessian_trace(
    model: nn.Module, images: Tensor, labels: Tensor, f: Tensor, g: Tensor | None, *, estimator: str, sigma: float, probes: int
) -> Tensor:
    """Estimate the trace of the Hessian of the label's logit with respect to the pixels from finite differences along noise.

    With v ~ N(0, sigma^2), averaged over the probes: `released` is 2 (f(x+v) - f(x)) / sigma^2, whose standard deviation is
    2 |g| / sigma or more; `centred` subtracts 2 g.v / sigma^2, which is 0 on average; `antithetic` is
    (f(x+v) + f(x-v) - 2 f(x)) / sigma^2. A probe costs one forward pass, for `antithetic` two.

    Args:
        f: the label's logit (B,); g: its gradient, as `label_slope` returns it, which only `centred` needs.
        sigma: of the noise, in pixel values. A smaller one is closer to the Hessian at x and less precise in float32.

    Returns:
        (B,).

    Source: Srinivas and Fleuret 2021, equation 3 and released code; the other two estimators are ours.
    """

    def at(distance: Tensor) -> Tensor:
        return label_logit(model, images + distance, labels)[1]

    noises = (sigma * torch.randn_like(images) for _ in range(probes))
    return sum((ESTIMATORS[estimator](f, g, v, at) for v in noises), torch.zeros_like(f)) / (probes * float(sigma) ** 2)


def squared_norm(g: Tensor) -> Tensor:
    """Return the squared Euclidean norm (B,) of each gradient (B, C, H, W)."""
    return g.flatten(1).square().sum(1)


@OBJECTIVES.register(curved=True, paper="Srinivas, Fleuret 2021")
def score_matching(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight: NotNegative = 1e-3,
    estimator: Annotated[str, Names(ESTIMATORS)] = "released",
    probes: Count = 1,
    sigma: Above0 = 0.01,
    stability: NotNegative = 1e-3,
) -> Tensor:
    """Add to cross-entropy the score-matching loss, which fits the label's logit to the log-density of the data.

    L = CE + weight mean[h + |g|^2 / 2 + stability h^2], g the gradient of the label's logit, h the trace of its Hessian.

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        weight: 1e-3 in the paper, 1e-5 in the released code; 0 is cross_entropy, at the same cost.
        estimator, probes, sigma: see `hessian_trace`.
        stability: the paper's mu. With `released` at sigma=0.01 the last term is about 40 |g|^2, eighty times the one before.

    Returns:
        ().

    Source: Srinivas and Fleuret 2021, equations 2-4 and released code.
    """
    if weight == 0:
        return cross_entropy(model, images, labels)
    logits, f, g = label_slope(model, images, labels)
    h = hessian_trace(model, images, labels, f, g, estimator=estimator, sigma=sigma, probes=probes)
    return F.cross_entropy(logits, labels) + weight * (h + squared_norm(g) / 2 + stability * h.square()).mean()


@OBJECTIVES.register(curved=True, paper="Srinivas, Fleuret 2021")
def anti_score_matching(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight: NotNegative = 1e-4,
    estimator: Annotated[str, Names(ESTIMATORS)] = "released",
    probes: Count = 1,
    sigma: Above0 = 0.001,
    ceiling: Number = 1000.0,
) -> Tensor:
    """Subtract from cross-entropy the Hessian's trace, which drives the label's logit away from the log-density of the data.

    L = CE - weight mean[min(h, ceiling)], h the trace of the Hessian of the label's logit.

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        weight: 1e-4 in the paper, 1e-5 in the released code; 0 is cross_entropy, at the same cost.
        estimator, probes, sigma: see `hessian_trace`; in float32 and at sigma=0.001, h is a multiple of about 4.
        ceiling: h is not increased above it; 1000 in the paper, 10000 in the released code.

    Returns:
        ().

    Source: Srinivas and Fleuret 2021, section 5 and released code.
    """
    if weight == 0:
        return cross_entropy(model, images, labels)
    logits, f, g = (*label_logit(model, images, labels), None) if estimator != "centred" else label_slope(model, images, labels)
    h = hessian_trace(model, images, labels, f, g, estimator=estimator, sigma=sigma, probes=probes)
    return F.cross_entropy(logits, labels) - weight * h.clamp_max(ceiling).mean()


@OBJECTIVES.register(paper="Drucker, LeCun 1992")
def gradient_norm(model: nn.Module, images: Tensor, labels: Tensor, *, weight: NotNegative = 1e-3) -> Tensor:
    """Add to cross-entropy the squared gradient of the label's logit: L = CE + weight mean[|g|^2 / 2].

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        weight: 1e-3 in the paper, 1e-5 in the released code; 0 is cross_entropy, at the same cost.

    Returns:
        (), not negative.

    Source: Srinivas and Fleuret 2021, section 5 and released code; the penalty is Drucker and LeCun's (1992).
    """
    if weight == 0:
        return cross_entropy(model, images, labels)
    logits, _, g = label_slope(model, images, labels)
    return F.cross_entropy(logits, labels) + weight * squared_norm(g).mean() / 2
