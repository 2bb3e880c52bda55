"""Maps of what a transformer's tokens attend to: attention weights, attention rollout, and rollout weighted by gradients.

`METHODS` finds them by name, but does not list them, since few networks have attention.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from saliency_lib.attribution.layers import spatial_layers
from saliency_lib.attribution.table import PARTICULAR_METHODS
from saliency_lib.core.batching import chunk_size, classes_at, frozen, in_chunks, recording
from saliency_lib.core.checks import as_targets, check_images
from saliency_lib.core.options import Positive

SOFTMAX = (torch.softmax, Tensor.softmax, F.softmax)


class Steps(TorchFunctionMode):
    """Compute each attention of a forward pass in steps, and keep its weights (B, heads, N, N), which are part of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return self.attend(*args, **kwargs)
        if function is F.multi_head_attention_forward:
            return self.several_heads(*args, **kwargs)
        output = self.other(function, *args, **kwargs)
        if function in SOFTMAX and output.ndim == 4 and output.shape[2] == output.shape[3]:
            self.weights.append(output)
        return output

    def other(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """Call a function that is no attention."""
        return function(*args, **kwargs)

    def product(self, first: Tensor, second: Tensor) -> Tensor:
        """Multiply two matrices that both depend on the image."""
        return first @ second

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Return softmax(Q K^T / sqrt(E) + mask) V, with the arguments of torch's function."""
        if enable_gqa:
            key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
        scores = self.product(query, key.mT) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        weights = scores.softmax(-1)
        self.weights.append(weights)
        return self.product(weights, value)

    def several_heads(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        width: int,
        heads: int,
        weight: Tensor,
        bias: Tensor | None,
        *others: Any,
        **named: Any,
    ) -> tuple[Tensor, None]:
        """Return the output (N, B, E) of torch.nn.MultiheadAttention, whose queries, keys and values are of as many tokens."""
        extra_key, extra_value, zero, _, out_weight, out_bias = others
        unusual = [extra_key is not None, extra_value is not None, zero, named.get("use_separate_proj_weight")]
        if any(unusual) or named.get("key_padding_mask") is not None:
            raise ValueError("the weights of the model's MultiheadAttention are not read: it has a padding mask or other options")
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        parts = [F.linear(*each) for each in zip((query, key, value), weight.chunk(3), biases, strict=True)]
        split = [part.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for part in parts]
        mask = named.get("attn_mask")
        if mask is not None and mask.ndim == 3:
            mask = mask.unflatten(0, (-1, heads))
        seen = self.attend(split[0], split[1], split[2], mask)
        return F.linear(seen.permute(2, 0, 1, 3).flatten(2), out_weight, out_bias), None


class Attention(NamedTuple):
    """The weights of one attention, (B, ..., N, N) or (B, N), and the module that computes them, if it says so."""

    weights: Tensor
    unit: nn.Module | None = None

    def of_words(self, values: Tensor, texts: int, steps: int) -> Tensor:
        """Return these weights, or their gradient, between the words of so many texts, with an axis for heads."""
        own = getattr(self.unit, "of_words", None)
        values = own(values, texts, steps) if own else values
        return values[:, None] if values.ndim == 3 else values


@contextmanager
def reading(model: nn.Module) -> Iterator[list[Attention]]:
    """Collect each attention of the forward pass inside, in the order in which they are computed.

    A module with the attribute `is_attention` returns weights. If there is none, torch's functions of attention are watched.

    Raises:
        ValueError: the model has no attention.
    """
    found: list[Attention] = []
    units = [part for part in model.modules() if getattr(part, "is_attention", False)]
    hooks = [unit.register_forward_hook(lambda unit, _, weights: found.append(Attention(weights, unit))) for unit in units]
    try:
        if units:
            yield found
        else:
            with Steps() as steps:
                yield found
            found += map(Attention, steps.weights)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(
            "the model has no attention between tokens; take a transformer, or give your module that returns the weights the "
            "attribute is_attention = True"
        )


class Flow(NamedTuple):
    """What a map is read from: per attention its weights (b, heads, N, N) and, if they are asked for, their gradients."""

    weights: list[Tensor]
    slopes: list[Tensor]
    readers: Tensor  # (b, N) bool, the tokens of the last attention that the class score reads

    def read(self, values: Tensor) -> Tensor:
        """Return the mean (b, N) of the rows of values (b, N, N) that the class score reads."""
        return (values * self.readers[..., None]).sum(1) / self.readers.sum(1, keepdim=True)


def _by_attention(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    batch_size: int | None,
    read: Callable[[Flow], Tensor],
    *,
    slopes: bool = False,
) -> Tensor:
    """Return the map of each image, (B, H, W), that `read` gives as values of tokens (b, N), enlarged bilinearly."""
    values: list[Tensor] = []
    with frozen(model):
        targets = None if targets is None else as_targets(targets, images)

        def add(start: int, stop: int) -> None:
            inputs = images[start:stop].detach()
            with recording(), reading(model) as found:
                logits = model(inputs.clone().requires_grad_())
            classes = classes_at(logits, targets, slice(start, stop), check=start == 0)
            wanted = found if slopes else found[-1:]
            taken = _slopes(logits.gather(1, classes[:, None]).sum(), [one.weights for one in wanted])
            size = stop - start, inputs.shape[3]
            weights, by_score = (
                [one.of_words(value.detach(), *size) for one, value in zip(rows, values, strict=True)]
                for rows, values in ((found, [one.weights for one in found]), (wanted, taken))
            )
            _check_tokens(weights, stop - start)
            last = by_score[-1]
            readers = last.abs().sum((1, 3)) > 0 if last.ndim == 4 else last.new_ones(last.shape, dtype=torch.bool)
            readers = readers | ~readers.any(1, keepdim=True)  # a constant score reads none; then every token counts
            values.append(read(Flow(weights, by_score, readers)))

        in_chunks(add, len(images), chunk_size(images, batch_size))
        return _at_pixels(model, images, torch.cat(values))


def _slopes(score: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Return the derivative of a score by each of the weights, 0 where it does not depend on them."""
    known = [one for one in weights if one.requires_grad]
    taken = iter(torch.autograd.grad(score, known, materialize_grads=True) if known and score.requires_grad else ())
    return [next(taken, torch.zeros_like(one)) if one.requires_grad else torch.zeros_like(one) for one in weights]


def _check_tokens(weights: list[Tensor], count: int) -> None:
    """Check that all attentions are between the same tokens of so many images.

    Raises:
        ValueError: they are within windows, or between other tokens in some layers.
    """
    shapes = {(len(one), one.shape[-1]) for one in weights}
    if len(shapes) > 1 or len(weights[0]) != count:
        found = ", ".join(dict.fromkeys(str(tuple(one.shape)) for one in weights))
        raise ValueError(
            f"the model attends within windows, or to other tokens in some layers (weights {found}), so that attention cannot be "
            "followed from layer to layer; use gradcam, or another method that needs no attention"
        )


def _at_pixels(model: nn.Module, images: Tensor, values: Tensor) -> Tensor:
    """Return values of tokens (b, N) as maps (b, H, W).

    Raises:
        ValueError: the tokens have no positions in the image.
    """
    if values.shape[1] == images[0, 0].numel():
        return values.view(-1, *images.shape[2:])
    for layout, _ in spatial_layers(model, images).values():
        if layout.kind == "tokens" and layout.extra + layout.height * layout.width == values.shape[1]:
            small = layout.maps(values[..., None])
            return F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    raise ValueError(
        f"the {values.shape[1]} tokens that attend to each other are not the positions of a layer; use another method"
    )


@PARTICULAR_METHODS.register(family="control", passes="1 F", paper="Bahdanau et al. 2015", needs="attention")
def attention(model: nn.Module, images: Tensor, targets: Tensor | None = None, *, batch_size: Positive | None = None) -> Tensor:
    """Return the attention that each token receives in the last layer, the mean over heads, whatever the class.

    The mean is over the tokens that the logits read: the class token, or all if they are averaged.

    Args:
        images: (B, C, H, W) images, or (B, 1, 1, T) texts.

    Returns:
        (B, H, W) or (B, 1, T), not negative. Its sum over the tokens is 1; less without a class token's own, and in text_minilm
        without the tokens that are no words.

    Raises:
        ValueError: the model has no attention, attends within windows, or its tokens have no positions.

    Source: what people look at; Jain, Wallace 2019 doubt that it explains.
    """

    def last(flow: Flow) -> Tensor:
        return flow.weights[-1] if flow.weights[-1].ndim == 2 else flow.read(flow.weights[-1].mean(1))

    return _by_attention(model, check_images(images), targets, batch_size, last)


@PARTICULAR_METHODS.register(family="control", passes="1 F", paper="Abnar, Zuidema 2020", needs="attention")
def attention_rollout(
    model: nn.Module, images: Tensor, targets: Tensor | None = None, *, batch_size: Positive | None = None
) -> Tensor:
    """Multiply the attention of all layers, each averaged with the identity for the residual connection.

    Args:
        images: (B, C, H, W) images, or (B, 1, 1, T) texts.

    Returns:
        (B, H, W) or (B, 1, T), not negative: the mean over the tokens that the logits read, see `attention`. If the words do not
        attend to each other, as in text_lstm, it is the attention itself.

    Raises:
        ValueError: as in attention.

    Source: Abnar, Zuidema 2020, section 3. Differs: without a class token it is the mean over the tokens.
    """

    def rolled(flow: Flow) -> Tensor:
        if flow.weights[-1].ndim == 2:
            return flow.weights[-1]
        found = _identity(flow.weights[0])
        for weights in flow.weights:
            seen = weights.mean(1) @ found
            found = (seen + found) / 2 if seen.shape == found.shape else seen
        return flow.read(found)

    return _by_attention(model, check_images(images), targets, batch_size, rolled)


@PARTICULAR_METHODS.register(family="activation", passes="1 F + 1 B", paper="Chefer et al. 2021", needs="attention")
def gradient_rollout(
    model: nn.Module, images: Tensor, targets: Tensor | None = None, *, batch_size: Positive | None = None
) -> Tensor:
    """Add up what tokens receive through all layers, where each weight counts by its positive effect on the class score.

    R <- R + mean over heads of max(A * d f_c / d A, 0) @ R, from the identity, layer by layer. The first R is left out in an
    attention whose queries are no tokens, as in attention pooling.

    Args:
        images: (B, C, H, W) images, or (B, 1, 1, T) texts.
        targets: (B,) classes; None for the predicted ones.

    Returns:
        (B, H, W) or (B, 1, T), not negative: the mean of R over the tokens that the logits read, see `attention`.

    Raises:
        ValueError: as in attention, or if the words do not attend to each other.

    Source: Chefer, Gur, Wolf 2021, Generic attention-model explainability, equations 5 and 6, for self-attention. Differs:
    without a class token it is the mean over the tokens.
    """

    def rolled(flow: Flow) -> Tensor:
        if flow.weights[-1].ndim == 2:
            raise ValueError("the words of this model do not attend to each other; use attention")
        found = _identity(flow.weights[0])
        for weights, slopes in zip(flow.weights, flow.slopes, strict=True):
            seen = (weights * slopes).relu().mean(1) @ found
            found = seen + found if seen.shape == found.shape else seen
        return flow.read(found)

    return _by_attention(model, check_images(images), targets, batch_size, rolled, slopes=True)


def _identity(weights: Tensor) -> Tensor:
    return torch.eye(weights.shape[-1], device=weights.device, dtype=weights.dtype).expand(len(weights), -1, -1)
