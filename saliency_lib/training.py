"""Training: minimise an objective over a model's parameters, on tensors that stay on the device."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm.auto import tqdm

from saliency_lib import paths
from saliency_lib.batching import arranged, chunk_size, device_of, frozen, in_chunks
from saliency_lib.files import explained, replace_file, write_tensors
from saliency_lib.inputs import generator, stream
from saliency_lib.registry import OBJECTIVES, no_such

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


def _rate(settings: Mapping, progress: float, epoch: int) -> float:
    """The learning rate as a multiple of the recipe's, after `progress` (0 to 1) of all steps."""
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

    Each epoch draws its order, augmentation and dropout from (seed, epoch), so that a run which is stopped and goes on
    from its checkpoint ends with the same weights.

    Args:
        model: on the device where it is to be trained.
        images: (N, C, H, W) pixels in [0, 1]; labels: (N,). Moved to the model's device once.
        settings: a recipe's, see params/training.yaml.
        test: images and labels whose accuracy is recorded after each epoch; never used to choose anything.
        checkpoint: file that holds the state after the last whole epoch; read if it is there.

    Returns:
        One row an epoch: epoch, loss (mean over the epoch), learning_rate (its last), test_accuracy.

    Raises:
        ValueError: unknown setting, damaged checkpoint, or a loss that is not finite.
    """
    device = device_of(model)
    images, labels = images.to(device), labels.to(device)
    objective = OBJECTIVES[settings["objective"]]
    if settings["augmentation"] not in AUGMENTATIONS:
        raise no_such("augmentation", settings["augmentation"], AUGMENTATIONS)
    augment = AUGMENTATIONS[settings["augmentation"]]
    optimiser = _optimiser([parameter for parameter in model.parameters() if parameter.requires_grad], settings)
    epochs, batches = settings["epochs"], math.ceil(len(images) / settings["batch_size"])
    history: list[Row] = []
    if checkpoint and checkpoint.exists():
        history = load_checkpoint(checkpoint, model, optimiser)
    bar = tqdm(total=epochs * batches, initial=len(history) * batches, desc=title, unit="batch")
    devices = [device] if device.type == "cuda" else []
    with bar, torch.random.fork_rng(devices):
        for epoch in range(len(history), epochs):
            torch.manual_seed(stream("dropout", seed, epoch))
            draws = generator(torch.device("cpu"), "order", seed, epoch)
            model.train()
            losses = torch.zeros((), device=device)
            # equal parts: a last batch of one image would leave BatchNorm nothing to normalise by
            for number, rows in enumerate(torch.randperm(len(images), generator=draws).tensor_split(batches)):
                rate = settings["learning_rate"] * _rate(settings, (epoch * batches + number) / (epochs * batches), epoch)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                chosen = rows.to(device)
                loss = objective(model, augment(images[chosen], draws), labels[chosen], **settings["options"])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                losses += loss.detach() * len(rows) / len(images)
                bar.update()
            if not torch.isfinite(losses):
                raise ValueError(
                    f"{title}: the loss became {float(losses)} in epoch {epoch + 1} of {epochs}; "
                    "lower the recipe's learning_rate (changes={'learning_rate': ...}) and run again"
                )
            row = {"epoch": epoch + 1, "loss": float(losses), "learning_rate": rate}
            if test is not None:
                row["test_accuracy"] = accuracy(model, *test)
            history.append(row)
            bar.set_postfix({key: f"{value:.3f}" for key, value in row.items() if key not in ("epoch", "learning_rate")})
            if checkpoint and epoch + 1 < epochs:
                save_checkpoint(checkpoint, model, optimiser, history)
    model.eval()
    return history


def save_checkpoint(file: Path, model: nn.Module, optimiser: torch.optim.Optimizer, history: list[Row]) -> None:
    """Write weights, optimiser state and history to one safetensors file, whole or not at all."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": torch.as_tensor(value) for name, value in state.items() if value is not None}
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
    with explained(file.parent):
        replace_file(file, lambda draft: write_tensors(draft, arrays, {"history": json.dumps(history)}))


def load_checkpoint(file: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> list[Row]:
    """Put a checkpoint's weights and optimiser state back and return its history.

    Raises:
        ValueError: the file is truncated or belongs to another model.
    """
    try:
        with safe_open(file, "pt") as stored:
            history = json.loads(stored.metadata()["history"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        state: dict[int, dict[str, Tensor]] = {}
        weights: dict[str, Tensor] = {}
        for name, value in tensors.items():
            part, rest = name.split(".", 1)
            if part == "model":
                weights[rest] = value
            else:
                number, key = rest.split(".", 1)
                state.setdefault(int(number), {})[key] = value
        model.load_state_dict(weights)
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        name = paths.relative(file)
        raise ValueError(f"checkpoint {name} is damaged ({str(error)[:120]}); delete {name} to train from the start") from None
    return history
