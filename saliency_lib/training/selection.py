"""Which epoch's weights are kept: the last, or the one that does best on held-out images."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_lib.core.batching import arranged, chunk_size, device_of, frozen, in_chunks, logits_of
from saliency_lib.core.options import Positive
from saliency_lib.core.streams import generator, sent
from saliency_lib.training.settings import Selection

Row = dict[str, float]
Labelled = tuple[Tensor, Tensor]  # images (N, C, H, W) and their labels (N,)


@dataclass
class Best:
    """The best epoch so far (0 if there is none), its value, and its weights."""

    epoch: int = 0
    value: float = -math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: Positive | None = None) -> float:
    """Return the share of the images (N, C, H, W) whose predicted class is the label (N,), in [0, 1]."""
    device, labels = device_of(model), labels.to(device_of(model))
    right: list[Tensor] = []
    with frozen(model), torch.no_grad():
        in_chunks(
            lambda i, j: right.append((model(arranged(sent(images[i:j], device))).argmax(1) == labels[i:j]).sum()),
            len(images),
            chunk_size(images, batch_size),
        )
    return float(torch.stack(right).sum()) / len(images)


def held_out(data: Labelled, selection: Selection | None, seed: int, test: Labelled | None) -> tuple[Labelled, Labelled | None]:
    """Return the images to train on, and those on which the selection compares epochs.

    Raises:
        ValueError: the share that is held out is none or all of the images, or the test images are missing.
    """
    if not selection:
        return data, None
    if selection.split == "test":
        if test is None:
            raise ValueError("the selection compares epochs on the test images, but there are none; pass test=")
        return data, test
    images, labels = data
    held = round(selection.share * len(images))
    if not 0 < held < len(images):
        raise ValueError(
            f"a share of {selection.share} holds {held} of {len(images)} images out for validation; choose another share"
        )
    order = torch.randperm(len(images), generator=generator(torch.device("cpu"), "validation", seed))
    chosen, rest = order[:held].sort().values, order[held:].sort().values
    return (images[rest], labels[rest]), (images[chosen], labels[chosen])


def judge(model: nn.Module, data: Labelled, selection: Selection, epoch: int, best: Best) -> Row:
    """Measure an epoch, and remember its weights in `best` if it is better than all before."""
    images, labels = data[0].to(device_of(model)), data[1].cpu()
    with frozen(model):
        logits = logits_of(model, images).cpu()
    loss = float(F.cross_entropy(logits, labels))
    right = float((logits.argmax(1) == labels).float().mean())
    value = -loss if selection.by == "loss" else right
    better = value > best.value
    if better:
        best.epoch, best.value = epoch, value
        best.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return {"validation_loss": loss, "validation_accuracy": right, "best": float(better)}


def patience_is_over(selection: Selection | None, epochs: int, best: Best) -> bool:
    """Return whether the last of so many epochs is too far from the best one to go on."""
    return selection is not None and selection.patience is not None and epochs - best.epoch >= selection.patience
