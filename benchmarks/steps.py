"""One training step of each objective: beside the released procedure, the passes that it needs, and a standard step."""

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
RELEASED: dict[str, tuple[dict, Objective]] = {  # our options and the procedure that they are those of
    "saliency_guided": ({"fill": "corner"}, procedures.saliency_guided_loss),
    "score_matching": ({"weight": 1e-3}, procedures.score_matching_loss),
    "anti_score_matching": ({"weight": 1e-4}, procedures.anti_score_matching_loss),
    "gradient_norm": ({"weight": 1e-3}, procedures.gradient_norm_loss),
}


def _scene(objective: str, batch: int, width: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The network of the objective's paper in training mode, images and labels: digits for SGT, photographs for RG."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if objective == "saliency_guided":
            digits = sl.load("mnist5k", stop=batch)
            return sl.MODELS["sgt_cnn"](channels=1).to(device()).train(), digits.images.to(device()), digits.labels.to(device())
        model = sl.MODELS["cifar_resnet9"](width=width).to(device()).train()
    pixels = photographs(12, 32).repeat(-(-batch // 12), 1, 1, 1)[:batch]
    return model, pixels, torch.arange(batch, device=device()) % 10


def _step(model: nn.Module, loss: Callable[[], Tensor], only: bool = False) -> Work:
    """A step without its optimiser, from random numbers that are the same each time; gives the gradients, end to end.

    Args:
        only: no gradients but those of the weights, as our training loop asks for.
    """
    weights = list(model.parameters()) if only else None

    def run() -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model.zero_grad(set_to_none=True)
            loss().backward(inputs=weights)
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    return run


def _passes(objective: str, model: nn.Module, pixels: Tensor) -> Callable[[], Tensor]:
    """A sum whose backward pass takes the passes that the objective cannot do without."""

    def guided() -> Tensor:
        with frozen(model):
            inputs = pixels.detach().requires_grad_()
            torch.autograd.grad(model(inputs).sum(), inputs)
        return model(pixels).sum() + model(pixels).sum()

    def curved(probes: int, twice: bool) -> Tensor:
        inputs = pixels.detach().requires_grad_(twice)
        logits = model(inputs)
        slope = torch.autograd.grad(logits.sum(), inputs, create_graph=True)[0].square().sum() if twice else 0
        return logits.sum() + slope + sum(model(pixels).sum() for _ in range(probes))

    return {
        "saliency_guided": guided,
        "score_matching": lambda: curved(1, True),
        "anti_score_matching": lambda: curved(1, False),
        "gradient_norm": lambda: curved(0, True),
    }[objective]


def released(objective: str, batch: int, width: int = 64) -> Race:
    """A step's gradients against those of the released procedure, from the same random numbers."""
    model, pixels, labels = _scene(objective, batch, width)
    options, procedure = RELEASED[objective]
    return Race(
        _step(model, lambda: sl.OBJECTIVES[objective](model, pixels, labels, **options), only=True),
        _step(model, lambda: procedure(model, pixels, labels)),
        difference(2e-3),  # of gradients in float32 that went through a second derivative
        _step(model, _passes(objective, model, pixels), only=True),
    )


def standard(objective: str, batch: int, width: int = 64) -> Race:
    """A step's time against that of a step with cross-entropy alone, whose gradients are others and as many."""
    model, pixels, labels = _scene(objective, batch, width)
    sound = Agreement("gradients that are not finite", lambda a, b: float((~torch.isfinite(a + b)).sum()), 0, 0)
    return Race(
        _step(model, lambda: sl.OBJECTIVES[objective](model, pixels, labels), only=True),
        _step(model, lambda: F.cross_entropy(model(pixels), labels)),
        sound,
    )
