"""Training: minimise an objective over a model's parameters, on tensors that stay on the device."""

import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.multiprocessing import ProcessRaisedException
from tqdm.auto import tqdm

from saliency_lib import paths
from saliency_lib.artefacts.specs import SELECTION, UNLESS_SAID
from saliency_lib.core.batching import arranged, chunk_size, device_of, frozen, in_chunks, logits_of
from saliency_lib.core.files import explained, replace_file, write_tensors
from saliency_lib.core.registry import no_such
from saliency_lib.core.streams import generator, stream
from saliency_lib.networks.models import head_of
from saliency_lib.training.objectives import has_corners
from saliency_lib.training.table import OBJECTIVES

Row = dict[str, float]


def _optimiser(parameters: list[nn.Parameter], settings: Mapping) -> torch.optim.Optimizer:
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    makers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adamw": lambda: torch.optim.AdamW(parameters, lr=rate, weight_decay=decay),
        "adam": lambda: torch.optim.Adam(parameters, lr=rate, weight_decay=decay),
        "sgd": lambda: torch.optim.SGD(parameters, lr=rate, momentum=settings["momentum"], weight_decay=decay),
        "adadelta": lambda: torch.optim.Adadelta(parameters, lr=rate, weight_decay=decay),
    }
    if settings["optimiser"] not in makers:
        raise no_such("optimiser", settings["optimiser"], makers)
    return makers[settings["optimiser"]]()


def _rate(settings: Mapping, step: int, steps: int, epoch: int) -> float:
    """The learning rate of a step as a multiple of the recipe's."""
    progress = step / steps
    rise = 0.3
    shapes: dict[str, Callable[[], float]] = {
        "constant": lambda: 1.0,
        "cosine": lambda: (1 + math.cos(math.pi * progress)) / 2,
        "one_cycle": lambda: (
            0.04 + 0.96 * (1 - math.cos(math.pi * progress / rise)) / 2
            if progress < rise
            else (1 + math.cos(math.pi * (progress - rise) / (1 - rise))) / 2
        ),
        "step": lambda: 0.1 ** sum(epoch >= milestone for milestone in settings["milestones"]),
        "oscillating": lambda: 5.5 - 4.5 * math.cos(math.pi * step / 20),
    }
    if settings["schedule"] not in shapes:
        raise no_such("schedule", settings["schedule"], shapes)
    return shapes[settings["schedule"]]()


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to 4 pixels over a black border and mirrored half of the time."""
    batch, _, height, width = images.shape
    padded = F.pad(images, (4, 4, 4, 4))
    down, across = torch.randint(0, 9, (2, batch, 1, 1), generator=generator).to(images.device)
    flip = (torch.rand(batch, 1, 1, generator=generator) < 0.5).to(images.device)
    rows = torch.arange(height, device=images.device).view(1, -1, 1) + down
    columns = torch.arange(width, device=images.device).view(1, 1, -1)
    columns = torch.where(flip, width - 1 - columns, columns) + across
    batches = torch.arange(batch, device=images.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[batches, rows, columns].permute(0, 3, 1, 2).contiguous()


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, generator: images,
    "crop_flip": crop_flip,
}


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int | None = None) -> float:
    """Share of the images (B, C, H, W) whose predicted class is the label, in [0, 1]."""
    device = device_of(model)
    right = []
    with frozen(model), torch.no_grad():
        in_chunks(
            lambda i, j: right.append((model(arranged(images[i:j].to(device))).argmax(1).cpu() == labels[i:j].cpu()).sum()),
            len(images),
            chunk_size(images, batch_size),
        )
    return float(torch.stack(right).sum()) / len(images)


@dataclass
class _Best:
    """What the selection has chosen so far: the epoch, how it scored there, and its weights."""

    epoch: int = 0
    value: float = -math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: Mapping,
    *,
    seed: int,
    test: tuple[Tensor, Tensor] | None = None,
    checkpoint: Path | None = None,
    title: str = "training",
) -> list[Row]:
    """Train a model in place.

    Each epoch draws its order, augmentation, dropout and the objective's random numbers from (seed, epoch), so that a run which
    is stopped and goes on from its checkpoint ends with the same weights.

    Args:
        model: on the device where it is to be trained.
        images: (N, C, H, W) pixels in [0, 1]; labels: (N,). Moved to the model's device once.
        settings: a recipe's, see params/training.yaml.
        test: images and labels whose accuracy is recorded after each epoch; they choose nothing, unless the setting
            `selection` says so.
        checkpoint: file that holds the state after the last whole epoch; read if it is there.

    Returns:
        One row an epoch: epoch, loss (mean over the epoch), learning_rate (its last), test_accuracy, and with a selection
        validation_loss, validation_accuracy and whether the epoch is the best so far. The model has the weights of the last
        epoch, or of the one that the selection chose.

    Raises:
        ValueError: unknown setting, damaged checkpoint, or a loss or a weight that is not finite.
    """
    settings = UNLESS_SAID | dict(settings)
    if test is None and settings["selection"] and settings["selection"].get("split") == "test":
        raise ValueError("the selection looks at the test images, and none were given; pass test=")
    if settings["augmentation"] not in AUGMENTATIONS:
        raise no_such("augmentation", settings["augmentation"], AUGMENTATIONS)
    objective = OBJECTIVES[settings["objective"]]
    if objective.curved and has_corners(model):
        warnings.warn(
            f"{title}: {settings['objective']} needs the second derivative of the network by its input, which ReLU and max-pool "
            "do not have (it is 0 but for their corners); take a network with activation: softplus",
            stacklevel=2,
        )
    _optimiser(list(model.parameters()), settings)  # an unknown one is refused before anything is done
    from lightning_fabric import Fabric  # a second that only training waits for

    device, several = device_of(model), settings["devices"] > 1
    devices = settings["devices"] if several or device.type == "cpu" else [device.index or 0]
    strategy = "ddp_spawn" if several else "auto"
    fabric = Fabric(accelerator=device.type, devices=devices, strategy=strategy, precision=settings["precision"])
    job = (images, labels, settings, seed, test, checkpoint, title)
    if not several:
        return _epochs(fabric, model, *job)
    try:
        history, state = fabric.launch(_one_of_several, model.cpu(), *job)
    except ProcessRaisedException as error:
        said = re.search(r"^ValueError: (.*)", str(error), re.MULTILINE | re.DOTALL)
        raise ValueError(said[1].strip()) if said else error from None
    finally:
        model.to(device)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    model.eval()
    return history


def _one_of_several(fabric: "Fabric", model: nn.Module, *job) -> tuple[list[Row], dict[str, np.ndarray]]:  # noqa: F821
    """What each process does; its weights are returned as arrays, since tensors would be gone with the process."""
    history = _epochs(fabric, model.to(fabric.device), *job)
    return history, {name: value.cpu().numpy() for name, value in model.state_dict().items()}


def _epochs(fabric, model, images, labels, settings, seed, test, checkpoint, title) -> list[Row]:
    """The loop that all recipes and all numbers of devices share; `fabric` says what part of each batch is ours."""
    device = device_of(model)
    objective, augment = OBJECTIVES[settings["objective"]], AUGMENTATIONS[settings["augmentation"]]
    parameters = [parameter for parameter in _trained(model, settings["trainable"]) if parameter.requires_grad]
    resting = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter not in set(parameters)]
    optimiser = _optimiser(parameters, settings)
    selection = settings["selection"] and SELECTION | settings["selection"]
    (images, labels), judged = _held_out(images, labels, selection, seed, test)
    images, labels = images.to(device), labels.to(device)
    epochs, batches = settings["epochs"], math.ceil(len(images) / settings["batch_size"])
    if len(images) // batches < fabric.world_size:
        raise ValueError(f"batches of {len(images) // batches} images cannot be shared by {fabric.world_size} devices")
    history, best = [], _Best()
    if checkpoint and checkpoint.exists():
        history, best = load_checkpoint(checkpoint, model, optimiser)
    silent = {} if fabric.is_global_zero else {"disable": True}
    bar = tqdm(total=epochs * batches, initial=len(history) * batches, desc=title, unit="batch", **silent)
    with bar, torch.random.fork_rng([device] if device.type == "cuda" else []), _without_gradients(resting):
        for epoch in range(len(history), epochs):
            if _patience_is_over(selection, history, best):
                break
            torch.manual_seed(stream("dropout", seed, epoch) + fabric.global_rank)
            draws = generator(torch.device("cpu"), "order", seed, epoch)
            model.train()
            if settings["batch_norm"] == "frozen":
                _still(model)
            losses = torch.zeros(batches, device=device)
            # equal parts: a last batch of one image would leave BatchNorm nothing to normalise by
            for number, rows in enumerate(torch.randperm(len(images), generator=draws).tensor_split(batches)):
                step = epoch * batches + number
                rate = settings["learning_rate"] * _rate(settings, step, epochs * batches, epoch)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                chosen = rows.to(device)
                batch = (augment(images[chosen], draws), labels[chosen])
                mine, wanted = (part.tensor_split(fabric.world_size)[fabric.global_rank] for part in batch)
                with fabric.autocast():
                    loss = objective(model, mine, wanted, **settings["options"]) * (len(mine) / len(rows))
                optimiser.zero_grad(set_to_none=True)
                fabric.backward(loss, inputs=parameters)  # an objective's images may ask for gradients, which nobody wants
                _add_up(fabric, parameters)
                optimiser.step()
                losses[number] = loss.detach() * len(rows) / len(images)
                if number % LOOK == LOOK - 1 or number == batches - 1:
                    _check_losses(losses[: number + 1], title, epoch, epochs, checkpoint)
                bar.update()
            _agree(fabric, model)
            _check_weights(model, title, epoch, epochs, checkpoint)
            row = {"epoch": epoch + 1, "loss": float(fabric.all_reduce(losses.sum(), reduce_op="sum")), "learning_rate": rate}
            if test is not None:
                row["test_accuracy"] = accuracy(model, *test)
            if selection:
                row |= _judge(model, judged, selection, epoch, best)
            history.append(row)
            shown = {key: value for key, value in row.items() if key not in ("epoch", "learning_rate", "best")}
            bar.set_postfix({key: f"{value:.3f}" for key, value in shown.items()})
            if checkpoint and epoch + 1 < epochs and fabric.is_global_zero:
                save_checkpoint(checkpoint, model, optimiser, history, best)
    if selection:
        model.load_state_dict(best.weights)
    optimiser.zero_grad(set_to_none=True)
    model.eval()
    return history


LOOK = 50  # batches between two looks at the losses, each of which makes a GPU wait


def _check_losses(losses: Tensor, title: str, epoch: int, epochs: int, checkpoint: Path | None) -> None:
    bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
    if bad:
        what = f"the loss became {float(losses[bad[0]])} in batch {bad[0] + 1} of epoch {epoch + 1} of {epochs}"
        raise _diverged(title, what, epoch, checkpoint)


def _check_weights(model: nn.Module, title: str, epoch: int, epochs: int, checkpoint: Path | None) -> None:
    """Refuse weights that a last step has broken, before they are judged or kept."""
    broken = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise _diverged(title, f"{broken[0]} became infinite or NaN in epoch {epoch + 1} of {epochs}", epoch, checkpoint)


def _diverged(title: str, what: str, epoch: int, checkpoint: Path | None) -> ValueError:
    kept = "nothing was kept"
    if checkpoint and checkpoint.exists():
        kept = f"the state after epoch {epoch}, with the recipe as it is, is in {paths.relative(checkpoint)}"
    return ValueError(
        f"{title}: {what} ({kept}); lower the recipe's learning_rate or the objective's weight "
        "(changes={'learning_rate': ...}) and run again"
    )


def _add_up(fabric: "Fabric", parameters: list[nn.Parameter]) -> None:  # noqa: F821
    """Sum the gradients over the devices, which holds for any objective, however often it calls the model."""
    if fabric.world_size > 1:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = fabric.all_reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduce_op="sum")
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _agree(fabric: "Fabric", model: nn.Module) -> None:  # noqa: F821
    """Average BatchNorm's statistics over the devices, so that all judge and keep one model."""
    if fabric.world_size > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(fabric.all_reduce(buffer, reduce_op="mean"))


def _trained(model: nn.Module, trainable: str) -> list[nn.Parameter]:
    return list((head_of(model) if trainable == "head" else model).parameters())


@contextmanager
def _without_gradients(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Parameters out of the autograd graph, and back on leaving."""
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _still(model: nn.Module) -> None:
    """Put BatchNorm into evaluation mode: it normalises by the statistics that it came with, and does not update them."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _held_out(images, labels, selection, seed, test):
    """The images to train on, and those that the selection looks at."""
    if not selection:
        return (images, labels), None
    if selection["split"] == "test":
        return (images, labels), test
    order = torch.randperm(len(images), generator=generator(torch.device("cpu"), "validation", seed))
    held = round(selection["share"] * len(images))
    if not 0 < held < len(images):
        raise ValueError(f"a share of {selection['share']} leaves {held} of {len(images)} images for validation")
    rest, held = order[held:].sort().values, order[:held].sort().values
    return (images[rest], labels[rest]), (images[held], labels[held])


def _judge(model: nn.Module, judged: tuple[Tensor, Tensor], selection: Mapping, epoch: int, best: _Best) -> Row:
    """Loss and accuracy on the images that the selection looks at, and whether the epoch is the best so far."""
    device = device_of(model)
    with frozen(model):
        logits = logits_of(model, judged[0].to(device)).cpu()
    loss = float(F.cross_entropy(logits, judged[1].cpu()))
    right = float((logits.argmax(1) == judged[1].cpu()).float().mean())
    value = -loss if selection["by"] == "loss" else right
    better = value > best.value
    if better:
        best.epoch, best.value = epoch + 1, value
        best.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return {"validation_loss": loss, "validation_accuracy": right, "best": float(better)}


def _patience_is_over(selection: Mapping | None, history: list[Row], best: _Best) -> bool:
    return bool(selection and selection["patience"]) and len(history) - best.epoch >= selection["patience"]


def save_checkpoint(file: Path, model: nn.Module, optimiser: torch.optim.Optimizer, history: list[Row], best: _Best) -> None:
    """Write weights, optimiser state, history and the best epoch so far to one safetensors file, whole or not at all."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.weights.items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": torch.as_tensor(value) for name, value in state.items() if value is not None}
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
    about = {"history": json.dumps(history), "best": json.dumps([best.epoch, best.value if best.epoch else None])}
    with explained(file.parent):
        replace_file(file, lambda draft: write_tensors(draft, arrays, about))


def load_checkpoint(file: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[list[Row], _Best]:
    """Put a checkpoint's weights and optimiser state back and return its history and its best epoch.

    Raises:
        ValueError: the file is truncated or belongs to another model.
    """
    try:
        with safe_open(file, "pt") as stored:
            history, (epoch, best) = (json.loads(stored.metadata()[name]) for name in ("history", "best"))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        state: dict[int, dict[str, Tensor]] = {}
        weights: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}}
        for name, value in tensors.items():
            part, rest = name.split(".", 1)
            if part in weights:
                weights[part][rest] = value
            else:
                number, key = rest.split(".", 1)
                state.setdefault(int(number), {})[key] = value
        model.load_state_dict(weights["model"])
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        name = paths.relative(file)
        raise ValueError(f"checkpoint {name} is damaged ({str(error)[:120]}); delete {name} to train from the start") from None
    return history, _Best(epoch, -math.inf if best is None else best, weights["best"])
