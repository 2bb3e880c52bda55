"""Training: minimise an objective over a model's parameters, on tensors that stay on the device."""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing import ProcessRaisedException
from tqdm.auto import tqdm

from saliency_lib import paths
from saliency_lib.core.batching import device_of, flushed
from saliency_lib.core.checks import first_rows
from saliency_lib.core.locks import Stream, lock_of
from saliency_lib.core.optional import optional
from saliency_lib.core.streams import generator, seed_of, sent
from saliency_lib.training.checkpoint import load_checkpoint, save_checkpoint
from saliency_lib.training.density import is_piecewise_linear
from saliency_lib.training.layers import AT_FIRST, clean_statistics, fit_layers, freeze_batch_norm, norms_of
from saliency_lib.training.schedules import AUGMENTATIONS, OPTIMISERS, SCHEDULES, as_bytes, pixels_of
from saliency_lib.training.selection import Best, Labelled, Row, accuracy, held_out, judge, patience_is_over
from saliency_lib.training.settings import Settings
from saliency_lib.training.table import OBJECTIVES

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECK_EVERY = 50  # batches between two checks of the losses, each of which makes a GPU wait


@dataclass
class Job:
    """What `fit` was asked to do besides the model; every process of a run has a copy."""

    images: Tensor
    labels: Tensor
    settings: Settings
    seed: int
    trained: frozenset[str]  # the names of the parameters that are trained
    test: Labelled | None
    checkpoint: Path | None
    title: str


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: Settings | Mapping[str, Any],
    *,
    seed: int,
    head: nn.Module | None = None,
    test: Labelled | None = None,
    checkpoint: Path | None = None,
    title: str = "training",
) -> list[Row]:
    """Train a model in place. Other threads that use it wait until the end.

    The order of the images, the augmentation, dropout and the objective's random numbers are drawn from (seed, epoch), so a run
    that is stopped and continues from its checkpoint ends with the same weights.

    Args:
        model: on the device on which it is trained.
        images: (N, C, H, W) pixels in [0, 1]. They are moved to the model's device once.
        labels: (N,) classes.
        settings: those of a recipe, see params/training.yaml.
        head: the part of the model that is trained if the setting `trainable` is `head`.
        test: images and labels whose accuracy is recorded after each epoch. They do not affect the training, unless the
            setting `selection` says so.
        checkpoint: the file with the state after the last whole epoch. If it exists, the run continues from it.
        title: what the progress bar and the errors call the run.

    Returns:
        One row per epoch: epoch, loss (mean over the epoch), learning_rate (its last), test_accuracy, and with a selection
        validation_loss, validation_accuracy and whether the epoch is the best so far. The model has the weights of the last
        epoch, or of the one that was selected.

    Raises:
        ValueError: a setting is unknown or not allowed, the checkpoint is damaged, or a loss or a weight is not finite.
    """
    settings = Settings.model_validate(settings)
    part = model if settings.trainable == "all" else head
    if part is None:
        raise ValueError("the settings train the head alone; pass head=, the part of the model that is its head")
    if OBJECTIVES[settings.objective].curved and is_piecewise_linear(model):
        warnings.warn(
            f"{title}: {settings.objective} needs the second derivative of the network with respect to its input, which is 0 "
            "almost everywhere for ReLU and max-pool; use a network with activation: softplus",
            stacklevel=2,
        )
    with optional("training"):
        from lightning_fabric import Fabric  # takes a second, which only training should wait for

    with lock_of(model), flushed():
        chosen = set(part.parameters())
        trained = frozenset(name for name, parameter in model.named_parameters() if parameter in chosen)
        job = Job(images, labels, settings, seed, trained, test, checkpoint, title)
        device, several = device_of(model), settings.devices > 1
        devices = settings.devices if several or device.type == "cpu" else [device.index or 0]
        strategy = "ddp_spawn" if several else "auto"
        fabric = Fabric(accelerator=device.type, devices=devices, strategy=strategy, precision=settings.precision)
        return _by_several(fabric, model, job) if several else _Run(fabric, model, job).train()


def _by_several(fabric: "Fabric", model: nn.Module, job: Job) -> list[Row]:
    """Train in several processes, and give the model their weights."""
    device = device_of(model)
    try:
        # as an argument, which Fabric copies, since the processes would share the weights of a model bound to the function
        history, state = cast(Callable[..., Any], fabric.launch)(_one_of_several, model.cpu(), job)
    except ProcessRaisedException as error:
        message = re.search(r"^ValueError: (.*)", str(error), re.MULTILINE | re.DOTALL)
        raise ValueError(message[1].strip()) if message else error from None
    finally:
        model.to(device)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    model.eval()
    return history


def _one_of_several(fabric: "Fabric", model: nn.Module, job: Job) -> tuple[list[Row], dict[str, np.ndarray]]:
    """Train in one of several processes; return the weights as arrays, since tensors would vanish with the process."""
    with flushed():
        history = _Run(fabric, model.to(fabric.device), job).train()
    return history, {name: value.cpu().numpy() for name, value in model.state_dict().items()}


class _Run:
    """A training in one process: the model, its optimiser, and the epochs so far. `fabric` knows the other processes."""

    def __init__(self, fabric: "Fabric", model: nn.Module, job: Job):
        self.fabric, self.model, self.job = fabric, model, job
        settings, device = job.settings, device_of(model)
        active = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.parameters = [parameter for name, parameter in active if name in job.trained]
        self.resting = [parameter for name, parameter in active if name not in job.trained]
        momentum = {"momentum": settings.momentum} if settings.optimiser in ("sgd", "nesterov") else {}
        self.optimiser = OPTIMISERS[settings.optimiser](
            self._groups(), lr=settings.learning_rate, weight_decay=settings.weight_decay, **momentum
        )
        (images, labels), self.judged = held_out((job.images, job.labels), settings.selection, job.seed, job.test)
        self.images, self.labels = as_bytes(images).to(device), labels.to(device)
        mirrored = torch.rand(len(images), generator=generator(torch.device("cpu"), "mirror", job.seed)) < 0.5
        self.mirrored = mirrored.to(device)  # in the first epoch, by the augmentation that alternates
        self.batches = math.ceil(len(images) / settings.batch_size)
        if len(images) // self.batches < fabric.world_size:
            raise ValueError(
                f"batches of {len(images) // self.batches} images cannot be shared by {fabric.world_size} devices; "
                "lower devices or raise batch_size"
            )
        self.history: list[Row] = []
        self.best = Best()
        if job.checkpoint and job.checkpoint.exists():
            self.history, self.best = load_checkpoint(job.checkpoint, model, self.optimiser)
        self.bar = tqdm(
            total=settings.epochs * self.batches,
            initial=len(self.history) * self.batches,
            desc=job.title,
            unit="batch",
            **({} if fabric.is_global_zero else {"disable": True}),
        )

    def _groups(self) -> Any:
        """Return the parameters for the optimiser; BatchNorm's biases in a group of their own if their rate is another one."""
        rate = self.job.settings.bias_rate
        if rate == 1:
            return self.parameters
        biases = {norm.bias for norm in norms_of(self.model)}
        groups: list[list[nn.Parameter]] = [[], []]
        for parameter in self.parameters:
            groups[parameter in biases].append(parameter)
        decay = self.job.settings.weight_decay  # per step, so that a larger rate does not increase it
        return [{"params": groups[0], "factor": 1.0}, {"params": groups[1], "factor": rate, "weight_decay": decay / rate}]

    def train(self) -> list[Row]:
        """Train the epochs that are left, and leave the model with the weights that are kept."""
        job, settings = self.job, self.job.settings
        fit_layers(self.model, pixels_of(self.images[:AT_FIRST]))
        with self.bar, _without_gradients(self.resting):
            for epoch in range(len(self.history), settings.epochs):
                if patience_is_over(settings.selection, epoch, self.best):
                    break
                row = self._epoch(epoch)
                self.history.append(row)
                shown = {key: value for key, value in row.items() if key not in ("epoch", "learning_rate", "best")}
                self.bar.set_postfix({key: f"{value:.3f}" for key, value in shown.items()})
                if job.checkpoint and epoch + 1 < settings.epochs and self.fabric.is_global_zero:
                    save_checkpoint(job.checkpoint, self.model, self.optimiser, self.history, self.best)
        if settings.selection:
            self.model.load_state_dict(self.best.weights)
        self.optimiser.zero_grad(set_to_none=True)
        self.model.eval()
        return self.history

    def _epoch(self, epoch: int) -> Row:
        """Train one epoch, counted from 0, and return its row of the history."""
        job, settings = self.job, self.job.settings
        stream = Stream(seed_of("dropout", job.seed, epoch) + self.fabric.global_rank, self.images.device)
        draws = generator(torch.device("cpu"), "order", job.seed, epoch)
        self.model.train()
        if settings.batch_norm == "frozen":
            freeze_batch_norm(self.model)
        losses = torch.zeros(self.batches, device=self.images.device)
        order = sent(torch.randperm(len(self.images), generator=draws), self.images.device)
        # Batches are of equal size, since BatchNorm cannot normalise a last batch of one image.
        for number, rows in enumerate(order.tensor_split(self.batches)):
            step, steps = epoch * self.batches + number, settings.epochs * self.batches
            rate = settings.learning_rate * SCHEDULES[settings.schedule](step, steps, epoch, settings.milestones)
            with stream.drawn():
                losses[number] = self._step(rows, epoch, rate, draws) * len(rows) / len(self.images)
            if number % CHECK_EVERY == CHECK_EVERY - 1 or number == self.batches - 1:
                self._check_losses(losses[: number + 1], epoch)
            self.bar.update()
        _average_buffers(self.fabric, self.model)
        self._check_weights(epoch)
        loss = float(_over_devices(self.fabric, losses.sum(), "sum"))
        row = {"epoch": epoch + 1, "loss": loss, "learning_rate": rate}
        if job.test is not None:
            row["test_accuracy"] = accuracy(self.model, *job.test)
        if settings.selection and self.judged:
            row |= judge(self.model, self.judged, settings.selection, epoch + 1, self.best)
        return row

    def _step(self, rows: Tensor, epoch: int, rate: float, draws: torch.Generator) -> Tensor:
        """Update the weights using these rows of the images, and return this device's share of their mean loss."""
        settings, fabric = self.job.settings, self.fabric
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        mirrored = self.mirrored[rows] ^ bool(epoch % 2)
        batch = AUGMENTATIONS[settings.augmentation](pixels_of(self.images[rows]), draws, mirrored), self.labels[rows]
        images, labels = (part.tensor_split(fabric.world_size)[fabric.global_rank] for part in batch)
        clean = clean_statistics(self.model) if settings.batch_norm == "clean" else nullcontext()
        with fabric.autocast(), clean:
            loss = OBJECTIVES[settings.objective](self.model, images, labels, **settings.options) * (len(images) / len(rows))
        self.optimiser.zero_grad(set_to_none=True)
        fabric.backward(loss, inputs=self.parameters)  # not for the images, for which an objective may ask gradients
        _add_gradients(fabric, self.parameters)
        self.optimiser.step()
        return loss.detach()

    def _check_losses(self, losses: Tensor, epoch: int) -> None:
        if bad := first_rows(~torch.isfinite(losses)):
            raise self._diverged(f"the loss became {float(losses[bad[0]])} in batch {bad[0] + 1} of", epoch)

    def _check_weights(self, epoch: int) -> None:
        """Refuse weights that are not finite before they are measured or stored."""
        state = self.model.state_dict()
        if broken := first_rows(torch.stack([~torch.isfinite(value).all() for value in state.values()])):
            raise self._diverged(f"{list(state)[broken[0]]} became infinite or NaN in", epoch)

    def _diverged(self, what: str, epoch: int) -> ValueError:
        job, stored = self.job, "nothing was stored"
        if job.checkpoint and job.checkpoint.exists():
            stored = f"the state after epoch {epoch} is stored in {paths.relative(job.checkpoint)}, for this recipe only"
        return ValueError(
            f"{job.title}: {what} epoch {epoch + 1} of {job.settings.epochs} ({stored}); lower the recipe's learning_rate "
            "or the objective's weight (changes={'learning_rate': ...}) and run again"
        )


def _over_devices(fabric: "Fabric", value: Tensor, operation: str) -> Tensor:
    return cast(Tensor, fabric.all_reduce(value, reduce_op=operation))


def _add_gradients(fabric: "Fabric", parameters: list[nn.Parameter]) -> None:
    """Sum the gradients over the devices, which is right for any objective, however often it calls the model."""
    if fabric.world_size > 1:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = _over_devices(fabric, torch.cat([gradient.flatten() for gradient in gradients]), "sum")
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _average_buffers(fabric: "Fabric", model: nn.Module) -> None:
    """Average BatchNorm's statistics over the devices, so that all have the same model."""
    if fabric.world_size > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(_over_devices(fabric, buffer, "mean"))


@contextmanager
def _without_gradients(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Take parameters out of the autograd graph, and put them back on leaving."""
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
