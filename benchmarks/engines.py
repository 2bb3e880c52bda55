"""Races of the engines of `sl.optimise`: against the network as it is, and against matrix multiplication."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import saliency_lib as sl
from benchmarks import procedures
from benchmarks.measure import Agreement, Race, difference, rank_correlation
from benchmarks.scenes import counted, drawn_masks, needs_compiler, network, optimised, photographs, trained

Kernel = Callable[[nn.Module, Tensor], Tensor]
SAME_MAPS, SAME_AREAS = 0.999, Agreement("largest difference of areas", lambda a, b: float((a - b).abs().max()), 0, 0.002)


def _kernel(name: str, side: int, maps: int, options: dict) -> Kernel:
    """Return a function of a network and one image: the areas of a metric for maps of that image, or a method's map."""
    if name in sl.METHODS:
        return lambda model, pixels: sl.METHODS[name](model, pixels, 0, **options)
    ranking = torch.rand(maps, side, side, generator=torch.Generator().manual_seed(1))

    def areas(model: nn.Module, pixels: Tensor) -> Tensor:
        same = pixels[:1].expand(maps, -1, -1, -1)
        return sl.METRICS[name](model, same, ranking.to(pixels), 0, **options).area.cpu()

    return areas


def kernel(engine: str, model: str, name: str, side: int, maps: int = 1, low: float = SAME_MAPS, **options: object) -> Race:
    """Build the race of a method or a metric on a network that an engine runs against the network as it is.

    Args:
        name: of the method or the metric; options are its options.
        maps: of the one image that a metric measures.
        low: the rank correlation that a method's maps must have.
    """
    network_, pixels = trained(model, side), photographs(1, side)
    work, fast = _kernel(name, side, maps, options), optimised(network_, pixels, engine)
    agreement = rank_correlation(low) if name in sl.METHODS else SAME_AREAS
    return Race(partial(work, fast, pixels), partial(work, network_, pixels), agreement)


def peak(engine: str, model: str, name: str, side: int, square: int, maps: int = 1, **options: object) -> Race:
    """Build the race of a kernel against matrix products with as many additions and multiplications as its passes have.

    Both sides return this number, in billions.

    Args:
        square: rows of the matrices that are multiplied; their product must be a small part of the passes.
    """
    network_, pixels = trained(model, side), photographs(1, side)
    work, fast = _kernel(name, side, maps, options), optimised(network_, pixels, engine)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network_(pixels)
    each = counter.get_total_flops()
    passes = counted(fast, partial(work, fast, pixels))
    total = int(passes()) * each
    left, right = torch.rand(2, square, square, device=pixels.device)
    products = max(1, round(total / (2 * square**3)))

    def multiply() -> Tensor:
        for _ in range(products):
            left @ right
        return torch.tensor(products * 2 * square**3 / 1e9)

    return Race(lambda: passes() * each / 1e9, multiply, difference(0.02))


def rise_at_equal_quality(model: str, side: int, masks: int, fewer: int, engine: str, low: float) -> Race:
    """Build the race of a RISE map by control variates from fewer masks, on an engine, against RISE's procedure.

    That both maps are equally close to a map of many masks is measured by `python -m benchmarks --passes`.

    Args:
        masks: of the procedure; fewer: of ours.
        low: the rank correlation that both maps must have.
    """
    network_, pixels = trained(model, side), photographs(1, side)
    fast = optimised(network_, pixels, engine)
    drawn = drawn_masks(masks, side, seed=1)  # ours have seed 0
    mean = getattr(network_, "pixel_mean", pixels.new_zeros(3)).view(3, 1, 1)  # the procedure removes from normalised images
    with torch.no_grad():
        target = network_(pixels).argmax(1)

    def peer() -> Tensor:
        made = procedures.rise_masks(*drawn, side)
        return procedures.rise_map(lambda stack: network_(stack + mean), pixels - mean, made, 0.5)[target]

    return Race(
        lambda: sl.METHODS["rise"](fast, pixels, target, masks=fewer, estimator="controlled"),
        peer,
        rank_correlation(low),
    )


def growth(name: str, side: int, work: str, amount: int) -> Race:
    """Build the comparison of a kernel's peak memory for four times the work with that for once.

    Args:
        work: what grows: an option of the kernel, or `images`.
        amount: of it, once.
    """
    model = network("resnet18", side)

    def run(times: int) -> Callable[[], Tensor]:
        images = amount * times if work == "images" else 1
        options = {"layer": "layer4"} if work == "images" else {work: amount * times}
        return counted(model, partial(_kernel(name, side, 1, options), model, photographs(images, side)))

    return Race(run(1), run(4), Agreement("times the passes", lambda few, many: float(many / few), 3.5, 4.0))


def training_step(model: str, width: int, batch: int) -> Race:
    """Build the race of a training step of cross-entropy under torch.compile against the network as it is.

    Both return the gradients. Steps whose objective takes second derivatives cannot be compiled: torch has no such gradients of
    compiled networks.

    Raises:
        Unavailable: there is no C++ compiler.
    """
    needs_compiler()
    network_ = sl.MODELS[model](width=width).train()
    pixels, labels = photographs(12, 32).repeat(-(-batch // 12), 1, 1, 1)[:batch], torch.arange(batch) % 10
    network_, labels = network_.to(pixels.device), labels.to(pixels.device)

    def step(forward: nn.Module) -> Tensor:
        network_.zero_grad(set_to_none=True)
        F.cross_entropy(forward(pixels), labels).backward()
        return torch.cat([parameter.grad.flatten() for parameter in network_.parameters()])

    return Race(partial(step, torch.compile(network_)), partial(step, network_), difference(1e-3))
