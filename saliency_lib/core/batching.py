"""Running a model in bounded memory and leaving it as it was found."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from saliency_lib.core.checks import check_logits, check_model, check_targets, positive

# Pixels in one pass. A CPU is quickest with what stays near its cache (5 ImageNet images), a GPU wants to be full.
AT_ONCE = {"cpu": 224 * 224 * 5, "cuda": 224 * 224 * 128}
MOST_AT_ONCE = {"cpu": 512, "cuda": 4096}


_running: ContextVar[nn.Module | None] = ContextVar("the model that runs", default=None)
_rows_first: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # models that cannot read inputs with channels innermost


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode with its parameters out of the autograd graph; all restored on leaving.

    A backward pass then costs no weight gradients and touches no `.grad`, and BatchNorm and dropout are inert.

    Raises:
        ValueError: the model is no torch.nn.Module.
    """
    check_model(model)
    token = _running.set(model)
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield model
    finally:
        _running.reset(token)
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


@contextmanager
def recording() -> Iterator[None]:
    """Autograd switched on, also under torch.no_grad.

    Raises:
        ValueError: inside torch.inference_mode, where no gradient can be taken.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("no gradient can be taken inside torch.inference_mode(); call outside it, or inside torch.no_grad()")
    with torch.enable_grad():
        yield


def exact(images: torch.Tensor) -> AbstractContextManager:
    """Arithmetic in the images' own precision, also under torch.autocast, which is for the model alone."""
    return torch.autocast(images.device.type, enabled=False)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are; the CPU for one without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def chunk_size(images: torch.Tensor, batch_size: int | None) -> int:
    """How many inputs the size of `images` (B, C, H, W) go through the model at once.

    Args:
        batch_size: the caller's wish; None chooses by the size of an image and the device.
    """
    if batch_size is None:
        device = images.device.type if images.device.type in AT_ONCE else "cpu"
        return max(1, min(MOST_AT_ONCE[device], AT_ONCE[device] // images[0, 0].numel()))
    return positive("batch_size", batch_size)


def arranged(inputs: torch.Tensor) -> torch.Tensor:
    """Inputs (n, C, H, W) with their channels innermost in memory, in which convolutions run a fifth faster.

    One or two of which a gradient will be taken on the CPU keep rows first: there the backward pass takes half the time so.
    A model that cannot read the other order (it calls `view` on features) is found out by `in_chunks` and gets rows first.
    """
    few = len(inputs) <= 2 and torch.is_grad_enabled() and inputs.device.type == "cpu"
    plain = few or _running.get() in _rows_first
    return inputs.contiguous(memory_format=torch.contiguous_format if plain else torch.channels_last)


def in_chunks(work: Callable[[int, int], None], total: int, size: int) -> None:
    """Call `work(start, stop)` over range(total), `size` at a time; where memory runs out, halve the chunk and go on.

    `work` must add its result as its last act, so that a chunk that failed can be done again.

    Raises:
        torch.OutOfMemoryError or RuntimeError: memory runs out for a single input too.
    """
    start = 0
    while start < total:
        stop = min(start + size, total)
        try:
            work(start, stop)
        except RuntimeError as error:
            if _cannot_view(error):
                _rows_first.add(_running.get())
            elif stop - start == 1 or not _out_of_memory(error):
                raise
            else:
                size = (stop - start) // 2
            stop = start
        if stop == start and torch.cuda.is_available():
            torch.cuda.empty_cache()
        start = stop


def _cannot_view(error: RuntimeError) -> bool:
    """Whether a model fails for the order of its inputs in memory, and has not been given the other one yet."""
    model = _running.get()
    return model is not None and model not in _rows_first and "view size is not compatible" in str(error)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def logits_of(model: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Logits (B, K) of a model that the caller has frozen, in chunks and without a graph."""
    chunks: list[Tensor] = []
    with torch.no_grad():
        size = chunk_size(images, batch_size)
        in_chunks(lambda i, j: chunks.append(check_logits(model(arranged(images[i:j])))), len(images), size)
    return torch.cat(chunks)


def classes_of(logits: Tensor, targets: Tensor | None) -> Tensor:
    """The targets (B,), checked against logits (B, K); the predicted classes where they are None."""
    return check_logits(logits).argmax(1) if targets is None else check_targets(targets, check_logits(logits))


def resolve_targets(model: nn.Module, images: Tensor, targets: Tensor | int | None, batch_size: int | None = None) -> Tensor:
    """Targets (B,): the predicted classes where None is given, else the given ones, checked."""
    logits = logits_of(model, images if targets is None else images[:1], batch_size)
    if targets is None:
        return logits.argmax(1)
    return check_targets(targets, logits[:1].expand(len(images), -1))
