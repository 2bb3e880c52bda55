"""What the cases run on: networks that need no download, their engines and own passes, photographs, and drawn masks."""

import shutil
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import saliency_lib as sl
from benchmarks.measure import Unavailable
from saliency_lib.core.batching import arranged, chunk_size, frozen
from saliency_lib.core.streams import generator


def device() -> torch.device:
    """Return the GPU if there is one, and the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def photographs(count: int, side: int) -> Tensor:
    """Return photographs (count, 3, side, side) of the installed packages, followed by their mirror images."""
    images = sl.DATASETS["photos"]().images
    images = torch.cat([images, images.flip(3)])[:count]
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True).clamp(0, 1).to(device())


def network(name: str, side: int) -> nn.Module:
    """Return a network with 10 classes: torchvision's `resnet18` with normalisation fitted to such images, or one of ours.

    Its weights are random with a fixed seed. The time does not depend on them, and the agreement of results is stricter.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name != "resnet18":
            return sl.MODELS[name](classes=10).eval().to(device())
        model = torchvision.models.resnet18(num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of all images so far
    with torch.no_grad():
        model.to(device()).train()(photographs(4, side))
    return model.eval()


def trained(name: str, side: int) -> nn.Module:
    """Return EfficientNet-Lite0 with its published weights, or another network as `network` does.

    How many nodes a path needs depends on the weights.
    """
    if name != "efficientnet_lite0":
        return network(name, side)
    return sl.MODELS[name](classes=1000, pretrained=True).eval().to(device())


def needs_compiler() -> None:
    """Raise `Unavailable` if torch.compile cannot run here: on the CPU it needs a C++ compiler."""
    if shutil.which("g++") is None and device().type == "cpu":
        raise Unavailable("not on this machine: torch.compile needs a C++ compiler")


def optimised(model: nn.Module, pixels: Tensor, engine: str | None) -> nn.Module:
    """Return a network as an engine runs it, or itself without an engine.

    Raises:
        Unavailable: the engine's package or a C++ compiler is missing, or the engine does not run on this device.
    """
    if engine is None:
        return model
    if engine == "compiled":
        needs_compiler()
    if engine == "openvino" and pixels.device.type != "cpu":
        raise Unavailable("OpenVINO runs on the CPU")
    try:
        return sl.optimise(model, pixels, engine)
    except ModuleNotFoundError as error:
        raise Unavailable(str(error)) from None


def drawn_masks(masks: int, side: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return the grids and shifts of our RISE masks of a seed, for the peer to enlarge."""
    source = [generator(torch.device("cpu"), f"random grids: {part}", seed) for part in ("cells", "rows", "columns")]
    grids = (torch.rand(masks, 8, 8, generator=source[0]) < 0.5).float()
    tops, lefts = (torch.randint(-(-side // 8), (masks,), generator=one) for one in source[1:])
    return grids, tops, lefts


def bare_passes(model: nn.Module, images: Tensor, count: int, backward: bool = False) -> Callable[[], Tensor]:
    """Return a function that runs `count` passes of the network in the kernels' batches and memory layout.

    Args:
        images: (B, C, H, W); the first is sent through the network repeatedly.
        backward: whether each forward pass is followed by a backward pass to the input.
    """
    size = chunk_size(images, None)
    same = images[:1].expand(size, -1, -1, -1)

    def run() -> Tensor:
        with frozen(model), torch.set_grad_enabled(backward):
            whole = arranged(same)
            for start in range(0, count, size):
                rest = count - start
                pixels = (whole if rest >= size else arranged(same[:rest])).detach().requires_grad_(backward)
                logits = model(pixels)
                if backward:
                    torch.autograd.grad(logits[:, 0].sum(), pixels)
        return torch.tensor(count)

    return run


def counted(model: nn.Module, work: Callable[[], object]) -> Callable[[], Tensor]:
    """Return a function that does the work and returns how many images it sent through the network."""

    def run() -> Tensor:
        seen: list[int] = []
        handle = model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
        try:
            work()
        finally:
            handle.remove()
        return torch.tensor(sum(seen))

    return run
