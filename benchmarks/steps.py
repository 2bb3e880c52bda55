"""Races of one training step of each objective, against the released procedure and against a standard step."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import saliency_lib as sl
from benchmarks import procedures
from benchmarks.measure import Agreement, Race, Work, difference
from benchmarks.scenes import device, photographs
from saliency_lib.core.batching import frozen

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]
RELEASED: dict[str, tuple[dict, Objective]] = {  # our options, and the procedure with the same settings
    "saliency_guided": ({"fill": "corner"}, procedures.saliency_guided_loss),
    "score_matching": ({"weight": 1e-3}, procedures.score_matching_loss),
    "anti_score_matching": ({"weight": 1e-4}, procedures.anti_score_matching_loss),
    "gradient_norm": ({"weight": 1e-3}, procedures.gradient_norm_loss),
}

FINITE = Agreement("gradients that are not finite", lambda a, b: float((~torch.isfinite(a + b)).sum()), 0, 0)


def _scene(objective: str, batch: int, width: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the network of the objective's paper in training mode, images and labels: digits for SGT, photographs for RG."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if objective == "saliency_guided":
            digits = sl.load("mnist5k", stop=batch)
            return sl.MODELS["sgt_cnn"](channels=1).to(device()).train(), digits.images.to(device()), digits.labels.to(device())
        model = sl.MODELS["cifar_resnet9"](width=width).to(device()).train()
    pixels = photographs(12, 32).repeat(-(-batch // 12), 1, 1, 1)[:batch]
    return model, pixels, torch.arange(batch, device=device()) % 10


def _step(model: nn.Module, loss: Callable[[], Tensor], only: bool = False) -> Work:
    """Return a function that runs a step without its optimiser, always with the same random numbers, and returns the gradients.

    Args:
        only: compute the gradients of the weights alone, as our training loop does.
    """
    weights = list(model.parameters()) if only else None

    def run() -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model.zero_grad(set_to_none=True)
            loss().backward(inputs=weights)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    return run


def _guided_passes(model: nn.Module, inputs: Tensor) -> Callable[[], Tensor]:
    """Return the passes of a guided step: the gradient with respect to pixels or vectors of words, and two predictions."""

    def run() -> Tensor:
        vectors = model.embed(inputs) if hasattr(model, "embed") else inputs
        with frozen(model):
            given = vectors.detach().requires_grad_()
            torch.autograd.grad(model(given).sum(), given)
        return model(vectors).sum() + model(vectors).sum()

    return run


def _passes(objective: str, model: nn.Module, pixels: Tensor) -> Callable[[], Tensor]:
    """Return a function that computes a sum whose backward pass takes the passes that the objective needs at least."""

    def curved(probes: int, twice: bool) -> Tensor:
        inputs = pixels.detach().requires_grad_(twice)
        logits = model(inputs)
        slope = torch.autograd.grad(logits.sum(), inputs, create_graph=True)[0].square().sum() if twice else 0
        return logits.sum() + slope + sum(model(pixels).sum() for _ in range(probes))

    return {
        "saliency_guided": _guided_passes(model, pixels),
        "score_matching": lambda: curved(1, True),
        "anti_score_matching": lambda: curved(1, False),
        "gradient_norm": lambda: curved(0, True),
    }[objective]


def released(objective: str, batch: int, width: int = 64) -> Race:
    """Build the race of a step against the released procedure, with the same random numbers and gradients."""
    model, pixels, labels = _scene(objective, batch, width)
    options, procedure = RELEASED[objective]
    return Race(
        _step(model, lambda: sl.OBJECTIVES[objective](model, pixels, labels, **options), only=True),
        _step(model, lambda: procedure(model, pixels, labels)),
        difference(2e-3),  # float32 gradients of second derivatives
        _step(model, _passes(objective, model, pixels), only=True),
    )


def standard(objective: str, batch: int, width: int = 64) -> Race:
    """Build the race of a step against one with cross-entropy alone, whose gradients have the same shape."""
    model, pixels, labels = _scene(objective, batch, width)
    return Race(
        _step(model, lambda: sl.OBJECTIVES[objective](model, pixels, labels), only=True),
        _step(model, lambda: F.cross_entropy(model(pixels), labels)),
        FINITE,
    )


def texts(batch: int, words: int, bare: bool = False) -> Race:
    """Build the race of a guided step on texts of 5 words to `words` words, against the plain procedure or the bare passes."""
    known = tuple(f"word {number}" for number in range(500))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = sl.MODELS["text_cnn"](words=known).to(device()).train()
        numbers = torch.randint(1, len(known), (batch, 1, 1, words)).float()
        for row, length in enumerate(torch.linspace(5, words, batch).int().tolist()):
            numbers[row, ..., length:] = 0
    numbers, labels = numbers.to(device()), torch.arange(batch, device=device()) % 2
    options = {"slope": "times_input", "ranking": "absolute", "fill": "previous"}
    ours = _step(model, lambda: sl.OBJECTIVES["saliency_guided"](model, numbers, labels, **options), only=True)
    passes = _step(model, _guided_passes(model, numbers), only=True)
    if bare:
        return Race(ours, passes, FINITE)
    return Race(
        ours, _step(model, lambda: procedures.saliency_guided_text_loss(model, numbers, labels)), difference(2e-3), passes
    )
