"""Training objectives: each maps (model, images, labels) to the scalar loss that one step minimises.

All are cross-entropy plus weight x regulariser. Random numbers come from torch's global generator, as dropout's do; the training
loop seeds it. The model is in training mode: BatchNorm sees every batch that goes through it, and with it the gradient of one
image depends on the others of its batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.core.batching import arranged, frozen, in_chunks
from saliency_lib.core.checks import positive
from saliency_lib.core.fills import image_mean, within
from saliency_lib.core.registry import no_such
from saliency_lib.training.table import OBJECTIVES


def _not_negative(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number from 0, got {value!r}")
    return value


def _share(name: str, value: float) -> float:
    if _not_negative(name, value) > 1:
        raise ValueError(f"{name} must be a share in [0, 1], got {value!r}")
    return value


@OBJECTIVES.register(paper="standard")
def cross_entropy(
    model: nn.Module, images: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, variant: str = "paper"
) -> Tensor:
    """Mean cross-entropy of the logits with the labels.

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        label_smoothing: share of the target spread over all classes, in [0, 1].
        variant: `paper`, or `saliency_benchmark`, whose network ends in a softmax that the loss applies once more.

    Returns:
        (), not negative, in nats.

    Source: for the variant the saliency benchmark's released code. With it the loss of K classes cannot fall below
    log(1 + (K - 1)/e), and the gradient of a confident error almost vanishes.
    """
    if variant not in ("paper", "saliency_benchmark"):
        raise no_such("variant of cross_entropy", variant, ("paper", "saliency_benchmark"))
    _share("label_smoothing", label_smoothing)
    logits = model(images)
    return F.cross_entropy(logits if variant == "paper" else logits.softmax(1), labels, label_smoothing=label_smoothing)


# Saliency guided training.

RANKINGS: dict[str, Callable[[Tensor], Tensor]] = {"signed": lambda slope: slope, "absolute": Tensor.abs}
TRAINING_FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda images: within(images, torch.rand_like(images)),
    "corner": lambda images: images[:, :, :1, :1].expand_as(images),
    "image_mean": lambda images: image_mean(images).expand_as(images),
}
DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of the log-probabilities (B, K) for image and masked image
    "clean_to_masked": lambda clean, masked: F.kl_div(masked, clean, log_target=True, reduction="batchmean"),
    "masked_to_clean": lambda clean, masked: F.kl_div(clean, masked, log_target=True, reduction="batchmean"),
}


def least_salient(model: nn.Module, images: Tensor, labels: Tensor, fraction: float, ranking: str = "signed") -> Tensor:
    """The int(fraction H W) pixels of each image on which the log-probability of its label depends least, (B, 1, H, W) bool.

    The gradient is the evaluation mode's (dropout off), averaged over channels; of equal values the first counts as the least.
    """
    slopes: list[Tensor] = []

    def slope_of(start: int, stop: int) -> None:
        pixels = arranged(images[start:stop].detach()).requires_grad_()
        logs = F.log_softmax(model(pixels), 1).gather(1, labels[start:stop, None]).sum()
        slopes.append(torch.autograd.grad(logs, pixels)[0].mean(1).flatten(1))

    with frozen(model), torch.enable_grad():
        in_chunks(slope_of, len(images), len(images))
    slope = RANKINGS[ranking](torch.cat(slopes))
    least = slope.argsort(dim=1, stable=True)[:, : int(fraction * slope.shape[1])]
    return torch.zeros_like(slope, dtype=torch.bool).scatter_(1, least, True).view_as(images[:, :1])


@OBJECTIVES.register(paper="Ismail et al. 2021")
def saliency_guided(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight: float = 1.0,
    fraction: float = 0.5,
    ranking: str = "signed",
    fill: str = "uniform",
    divergence: str = "clean_to_masked",
) -> Tensor:
    """Cross-entropy, and the demand that the prediction stays when the pixels of least gradient are overwritten.

    L = CE(f(x), y) + weight KL(p(x) || p(x')), x' the image whose `least_salient` pixels carry the fill.

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        weight: of the divergence; 0 is cross_entropy and costs no more.
        fraction: share of the pixels that is overwritten, in [0, 1]; int(fraction H W) of them.
        ranking: `signed`, the released default, by which the least are the most negative gradients, or `absolute` (its --abs).
        fill: `uniform` in the range of the image's channel, `corner` (its top left pixel) or `image_mean`.
        divergence: `clean_to_masked` or `masked_to_clean`; the gradient flows through both predictions.

    Returns:
        (), not negative, in nats.

    Source: Ismail, Corrada Bravo, Feizi 2021, algorithm 1, and released code.
    Differs: the released code overwrites, by an index over pixels, the first channel only of a colour image, which is mended
    here: a pixel goes with all its channels; its constant fill is the corner of the batch's first image, ours the image's own.
    As there, the two predictions have different dropout, so that their divergence is not 0 for fraction=0.
    """
    _not_negative("weight", weight), _share("fraction", fraction)
    named = (("ranking", ranking, RANKINGS), ("fill", fill, TRAINING_FILLS), ("divergence", divergence, DIVERGENCES))
    for name, value, known in named:
        if value not in known:
            raise no_such(f"{name} of saliency_guided", value, known)
    if weight == 0:
        return cross_entropy(model, images, labels)
    mask = least_salient(model, images, labels, fraction, ranking)
    clean = F.log_softmax(model(images), 1)
    masked = F.log_softmax(model(torch.where(mask, TRAINING_FILLS[fill](images), images)), 1)
    return F.nll_loss(clean, labels) + weight * DIVERGENCES[divergence](clean, masked)


CORNERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardtanh, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


# The density that a classifier implies: regularisers of the gradient of the label's logit, and of its Hessian's trace.


def label_slope(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, K), the label's logit f (B,) and its gradient g (B, C, H, W), all with a graph to the parameters."""
    pixels = images.detach().requires_grad_()
    logits = model(pixels)
    f = logits.gather(1, labels[:, None]).squeeze(1)
    return logits, f, torch.autograd.grad(f.sum(), pixels, create_graph=True)[0]


ESTIMATORS: dict[str, Callable] = {  # sigma^2 times the trace, from f and its gradient at x, noise v, and f at a distance from x
    "released": lambda f, g, v, at: 2 * (at(v) - f),
    "centred": lambda f, g, v, at: 2 * (at(v) - f - (g * v).flatten(1).sum(1)),
    "antithetic": lambda f, g, v, at: at(v) + at(-v) - 2 * f,
}


def hessian_trace(
    model: nn.Module, images: Tensor, labels: Tensor, f: Tensor, g: Tensor, *, estimator: str, sigma: float, probes: int
) -> Tensor:
    """Estimates (B,) of the trace of the Hessian of the label's logit by the pixels, from finite differences along noise.

    With v ~ N(0, sigma^2), averaged over the probes: `released` 2 (f(x+v) - f(x)) / sigma^2, whose standard deviation is
    2 |g| / sigma or more; `centred` takes 2 g.v / sigma^2 from it, which is 0 on average; `antithetic`
    (f(x+v) + f(x-v) - 2 f(x)) / sigma^2. One forward pass a probe, `antithetic` two.

    Args:
        f, g: the label's logit (B,) and its gradient, as `label_slope` gives them.
        sigma: of the noise, in pixel values; the smaller, the nearer to the Hessian at x and the coarser in float32.

    Source: Srinivas and Fleuret 2021, equation 3 and released code; the other two estimators are ours.
    """
    if estimator not in ESTIMATORS:
        raise no_such("estimator", estimator, ESTIMATORS)
    if not _not_negative("sigma", sigma):
        raise ValueError("sigma must be above 0: the differences are divided by its square")

    def at(distance: Tensor) -> Tensor:
        return model(images + distance).gather(1, labels[:, None]).squeeze(1)

    noises = (sigma * torch.randn_like(images) for _ in range(positive("probes", probes)))
    return sum(ESTIMATORS[estimator](f, g, v, at) for v in noises) / (probes * sigma**2)


def _squared_norm(g: Tensor) -> Tensor:
    return g.flatten(1).square().sum(1)


@OBJECTIVES.register(curved=True, paper="Srinivas, Fleuret 2021")
def score_matching(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight: float = 1e-3,
    estimator: str = "released",
    probes: int = 1,
    sigma: float = 0.01,
    stability: float = 1e-3,
) -> Tensor:
    """Cross-entropy, and the label's logit fitted to the data as the logarithm of a density.

    L = CE + weight mean[h + |g|^2 / 2 + stability h^2], g the gradient of the label's logit, h the trace of its Hessian.

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        weight: 1e-3 in the paper, 1e-5 in the released code; 0 is cross_entropy and costs no more.
        estimator, probes, sigma: see `hessian_trace`.
        stability: the paper's mu. With `released` at sigma=0.01 the last term is about 40 |g|^2, eighty times the one before.

    Returns:
        ().

    Source: Srinivas and Fleuret 2021, equations 2-4 and released code.
    """
    if _not_negative("weight", weight) == 0:
        return cross_entropy(model, images, labels)
    _not_negative("stability", stability)
    logits, f, g = label_slope(model, images, labels)
    h = hessian_trace(model, images, labels, f, g, estimator=estimator, sigma=sigma, probes=probes)
    return F.cross_entropy(logits, labels) + weight * (h + _squared_norm(g) / 2 + stability * h.square()).mean()


@OBJECTIVES.register(curved=True, paper="Srinivas, Fleuret 2021")
def anti_score_matching(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    weight: float = 1e-4,
    estimator: str = "released",
    probes: int = 1,
    sigma: float = 0.001,
    ceiling: float = 1000.0,
) -> Tensor:
    """Cross-entropy, and the label's logit driven away from the logarithm of the data's density.

    L = CE - weight mean[min(h, ceiling)], h the trace of the Hessian of the label's logit.

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        weight: 1e-4 in the paper, 1e-5 in the released code; 0 is cross_entropy and costs no more.
        estimator, probes, sigma: see `hessian_trace`; in float32 and at sigma=0.001, h is a multiple of 4 or so.
        ceiling: above it h is not driven further; 1000 in the paper, 10000 in the released code.

    Returns:
        ().

    Source: Srinivas and Fleuret 2021, section 5 and released code.
    """
    if _not_negative("weight", weight) == 0:
        return cross_entropy(model, images, labels)
    logits, f, g = label_slope(model, images, labels) if estimator == "centred" else _logits_alone(model, images, labels)
    h = hessian_trace(model, images, labels, f, g, estimator=estimator, sigma=sigma, probes=probes)
    return F.cross_entropy(logits, labels) - weight * h.clamp_max(ceiling).mean()


def _logits_alone(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    logits = model(images)
    return logits, logits.gather(1, labels[:, None]).squeeze(1), None


@OBJECTIVES.register(paper="Drucker, LeCun 1992")
def gradient_norm(model: nn.Module, images: Tensor, labels: Tensor, *, weight: float = 1e-3) -> Tensor:
    """Cross-entropy, and small gradients of the label's logit: L = CE + weight mean[|g|^2 / 2].

    Args:
        images: (B, C, H, W) pixels in [0, 1]; labels: (B,) classes.
        weight: 1e-3 in the paper, 1e-5 in the released code; 0 is cross_entropy and costs no more.

    Returns:
        (), not negative.

    Source: Srinivas and Fleuret 2021, section 5 and released code; the penalty is Drucker and LeCun's (1992).
    """
    if _not_negative("weight", weight) == 0:
        return cross_entropy(model, images, labels)
    logits, _, g = label_slope(model, images, labels)
    return F.cross_entropy(logits, labels) + weight * _squared_norm(g).mean() / 2


def has_corners(model: nn.Module) -> bool:
    """Whether a network has modules without a second derivative, ReLU and its kin or max-pool, whose Hessian is 0."""
    return any(isinstance(module, CORNERS) for module in model.modules())
