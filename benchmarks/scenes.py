"""What the cases run on: networks whose weights are fixed and need no download, photographs, bare passes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import saliency_lib as sl
from saliency_lib.core.batching import arranged, chunk_size, frozen


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def photographs(count: int, side: int) -> Tensor:
    """Photographs (count, 3, side, side) that come with the installed packages, mirrored ones after the others."""
    images = sl.DATASETS["photos"]().images
    images = torch.cat([images, images.flip(3)])[:count]
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True).clamp(0, 1).to(device())


def network(name: str, side: int) -> nn.Module:
    """A network with 10 classes: `resnet18` of torchvision with normalisation layers that know such images, or one of ours.

    Its weights are random, with a seed of their own; time does not depend on them, and agreement of results is stricter.
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


def bare_passes(model: nn.Module, images: Tensor, count: int, backward: bool = False) -> Callable[[], Tensor]:
    """`count` forward passes through the network, and backward ones to its input, in the kernels' batches and layout.

    Args:
        images: (B, C, H, W), of which the first is sent again and again.
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
    """The work, which then gives how many images it sent through the network."""

    def run() -> Tensor:
        seen: list[int] = []
        handle = model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
        try:
            work()
        finally:
            handle.remove()
        return torch.tensor(sum(seen))

    return run
