"""Run a model in bounded memory and leave it as it was found."""

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from saliency_lib.core.calls import look_at_logits
from saliency_lib.core.checks import check_classes, check_logits, check_model, check_targets, positive
from saliency_lib.core.locks import lock_of

# A CPU is fastest when a pass stays near its cache (5 ImageNet images); a GPU is fastest when it is full.
PIXELS_PER_PASS = {"cpu": 224 * 224 * 5, "cuda": 224 * 224 * 128}
MOST_INPUTS_PER_PASS = {"cpu": 512, "cuda": 4096}

_running: ContextVar[nn.Module | None] = ContextVar("the model that is running", default=None)
_need_rows_first: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # models that failed on channels-last inputs


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Put the model into evaluation mode and its parameters out of the autograd graph, and restore both on leaving.

    A backward pass then computes no weight gradients and changes no `.grad`; BatchNorm and dropout are inactive; denormal numbers
    are 0 in this thread, see `flushed`. Other threads that use the model wait.

    Raises:
        ValueError: the model is not a torch.nn.Module, or has a BatchNorm that depends on the batch in evaluation mode.
    """
    check_model(model)
    with lock_of(model), flushed(), _frozen(model):
        yield model


@contextmanager
def flushed() -> Iterator[None]:
    """Take denormal numbers, those below 1.2e-38, for 0 on the CPU. A Softplus makes many, and each takes 100 times as long.

    This holds for the thread that enters, and for those that it starts inside.
    """
    before = sys.float_info.min / 2 == 0  # there is no other way to ask
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    outer = _running.get()
    token = _running.set(model)
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    except BaseException:
        if outer is not model:
            _need_rows_first.discard(model)  # it failed in the other layout too, so the layout was not the reason
        raise
    finally:
        _running.reset(token)
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


@contextmanager
def recording() -> Iterator[None]:
    """Switch autograd on, also inside torch.no_grad.

    Raises:
        ValueError: inside torch.inference_mode, where no gradient can be computed.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("no gradient can be computed inside torch.inference_mode(); call outside it, or use torch.no_grad()")
    with torch.enable_grad():
        yield


def without_autocast(images: Tensor) -> AbstractContextManager:
    """Compute in the images' own precision, also inside torch.autocast, which is meant for the model alone."""
    return torch.autocast(images.device.type, enabled=False)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters, or the CPU for a model without parameters."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def chunk_size(images: Tensor, batch_size: int | None) -> int:
    """Return how many inputs of the size of `images` (B, C, H, W) go through the model at once.

    Args:
        batch_size: the number that the caller asks for; None chooses it from the size of an image and the device.
    """
    if batch_size is None:
        device = images.device.type if images.device.type in PIXELS_PER_PASS else "cpu"
        return max(1, min(MOST_INPUTS_PER_PASS[device], PIXELS_PER_PASS[device] // images[0, 0].numel()))
    return positive("batch_size", batch_size)


def arranged(inputs: Tensor) -> Tensor:
    """Return inputs (n, C, H, W) in the memory layout in which the running model is fastest.

    With channels last, convolutions run a fifth faster. Two layouts keep rows first: one or two inputs on the CPU whose
    gradient will be taken, because their backward pass then takes half the time; and the inputs of a model that cannot read
    channels last, for instance because it calls `view` on its features (see `in_chunks`).
    """
    few = len(inputs) <= 2 and torch.is_grad_enabled() and inputs.device.type == "cpu"
    rows_first = few or _running.get() in _need_rows_first
    return inputs.contiguous(memory_format=torch.contiguous_format if rows_first else torch.channels_last)


def in_chunks(work: Callable[[int, int], None], total: int, size: int) -> None:
    """Call `work(start, stop)` for consecutive chunks of range(total) of `size` numbers each.

    If memory runs out, the chunk is halved. If a frozen model fails for another reason, the chunk is repeated once with
    inputs that have rows first in memory, see `arranged`.

    Args:
        work: must store its result as its last action, so that a chunk that failed can be repeated.

    Raises:
        RuntimeError: the chunk failed with a single input, or in both layouts.
    """
    start = 0
    while start < total:
        stop = min(start + size, total)
        try:
            work(start, stop)
        except RuntimeError as error:
            if is_out_of_memory(error):
                if stop - start == 1:
                    raise
                size = (stop - start) // 2
            elif not _switch_to_rows_first():
                raise
        else:
            start = stop
            continue
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _switch_to_rows_first() -> bool:
    """Give the running model inputs with rows first from now on, and return whether that is new."""
    model = _running.get()
    if model is None or model in _need_rows_first:
        return False
    _need_rows_first.add(model)
    return True


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether memory ran out. On the CPU torch has no type for this error, so its text decides."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def logits_of(model: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Return the logits (B, K) of a frozen model, computed in chunks and without a graph."""
    chunks: list[Tensor] = []
    with torch.no_grad():
        size = chunk_size(images, batch_size)
        in_chunks(lambda i, j: chunks.append(check_logits(model(arranged(images[i:j])))), len(images), size)
    logits = torch.cat(chunks)
    look_at_logits(logits)
    return logits


def classes_of(logits: Tensor, targets: Tensor | int | None) -> Tensor:
    """Return the targets (B,), checked against logits (B, K), or the predicted classes if the targets are None."""
    look_at_logits(check_logits(logits))
    return logits.argmax(1) if targets is None else check_targets(targets, logits)


def classes_at(logits: Tensor, targets: Tensor | None, rows: Tensor | slice, *, check: bool) -> Tensor:
    """Return the classes (n,) of a chunk, whose logits are (n, K): `targets[rows]`, or the predicted ones if there are none.

    Args:
        targets: (B,) of all chunks.
        check: whether to check all of them against the logits, which makes the host wait for a GPU; once is enough.
    """
    look_at_logits(check_logits(logits))
    if targets is None:
        return logits.argmax(1)
    if check:
        check_classes(targets, logits.shape[1])
    return targets[rows]


def resolve_targets(model: nn.Module, images: Tensor, targets: Tensor | int | None, batch_size: int | None = None) -> Tensor:
    """Return the targets (B,): the given ones, checked, or the classes that the model predicts if they are None."""
    logits = logits_of(model, images if targets is None else images[:1], batch_size)
    return classes_of(logits if targets is None else logits[:1].expand(len(images), -1), targets)
