"""Maps of texts alone: attention weights, attention rollout, and how rare a word is in its text.

`METHODS` finds them by name, but does not list them, since they are not defined for images.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from saliency_lib.attribution.table import METHODS, Method
from saliency_lib.core.batching import chunk_size, frozen, in_chunks
from saliency_lib.core.checks import check_images
from saliency_lib.core.options import Positive
from saliency_lib.core.registry import Registry

TEXT_METHODS: Registry[Method] = Registry("method of texts", Method)


@METHODS.fallback
def method_of_texts(name: str) -> Method | None:
    """Return the method of texts with this name, or None."""
    return TEXT_METHODS.get(name)


@contextmanager
def _attention_of(model: nn.Module, texts: int, steps: int) -> Iterator[list[Tensor]]:
    """Collect the weights of each attention over the words of so many texts, in the order in which they are computed.

    Raises:
        ValueError: the model has no attention that says so by the attribute `is_attention`.
    """
    found: list[Tensor] = []
    units = [part for part in model.modules() if getattr(part, "is_attention", False)]
    if not units:
        raise ValueError(
            "the model has no attention over words; take text_lstm or text_transformer, or give your module that returns the "
            "weights the attribute is_attention = True"
        )

    def keep(unit: nn.Module, inputs: tuple, weights: Tensor) -> None:
        of_words = getattr(unit, "of_words", None)
        found.append(of_words(weights.detach(), texts, steps) if of_words else weights.detach())

    hooks = [unit.register_forward_hook(keep) for unit in units]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _by_attention(model: nn.Module, images: Tensor, batch_size: int | None, read: Callable[[list[Tensor]], Tensor]) -> Tensor:
    """Return what is read of the attention weights of each text, (B, 1, T)."""
    maps = images.new_zeros(len(images), *images.shape[2:])

    def add(start: int, stop: int) -> None:
        with _attention_of(model, stop - start, images.shape[3]) as found:
            model(images[start:stop])
        maps[start:stop, 0] = read(found)

    with frozen(model), torch.no_grad():
        in_chunks(add, len(images), chunk_size(images, batch_size))
    return maps


def _received(weights: Tensor) -> Tensor:
    """Return the weight (b, T) that each word receives: weights (b, T), or of (b, heads, T, T) the mean over heads and rows."""
    return weights if weights.ndim == 2 else weights.mean((1, 2))


@TEXT_METHODS.register(family="control", passes="1 F", paper="Bahdanau et al. 2015")
def attention(model: nn.Module, images: Tensor, targets: Tensor | None = None, *, batch_size: Positive | None = None) -> Tensor:
    """Return the attention that each word receives in the last layer, whatever the class.

    Args:
        images: (B, 1, 1, T) texts.

    Returns:
        (B, 1, T), not negative, with the sum 1; in text_minilm less, by the attention to the tokens that are no words.

    Raises:
        ValueError: the model has no attention.

    Source: what people look at; Jain, Wallace 2019 doubt that it explains.
    """
    return _by_attention(model, check_images(images), batch_size, lambda found: _received(found[-1]))


@TEXT_METHODS.register(family="control", passes="1 F", paper="Abnar, Zuidema 2020")
def attention_rollout(
    model: nn.Module, images: Tensor, targets: Tensor | None = None, *, batch_size: Positive | None = None
) -> Tensor:
    """Multiply the attention of all layers, each averaged with the identity for the residual connection.

    Args:
        images: (B, 1, 1, T) texts.

    Returns:
        (B, 1, T), not negative, with the sum 1: the mean over the words of the last layer. If the words do not attend to each
        other, as in text_lstm, it is the attention itself.

    Source: Abnar, Zuidema 2020, section 3. Differs: the mean over the last layer's words, which text_transformer classifies,
    where they have a class token.
    """

    def rolled(found: list[Tensor]) -> Tensor:
        if found[-1].ndim == 2:
            return found[-1]
        flow = torch.eye(found[0].shape[-1], device=images.device, dtype=images.dtype).expand(len(found[0]), -1, -1)
        for weights in found:
            flow = (weights.mean(1) @ flow + flow) / 2
        return flow.mean(1)

    return _by_attention(model, check_images(images), batch_size, rolled)


@TEXT_METHODS.register(family="control", passes="none", paper="control")
def rarity(model: nn.Module, images: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return how rare each word is in its text: minus the logarithm of its share of the words. It does not look at the model.

    Args:
        images: (B, 1, 1, T) texts.

    Returns:
        (B, 1, T), not negative.
    """
    words = check_images(images)[:, :, 0].transpose(1, 2)
    same = (words[:, None] == words[:, :, None]).all(3).to(images.dtype)
    return -same.mean(2).log()[:, None]
