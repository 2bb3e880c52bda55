"""Use kernels that were written for images on texts: text by text without its padding, and on the vectors of its words."""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from saliency_lib.core.locks import lock_of

PER_TEXT = ("maps", "targets", "indices", "objects", "segments")  # arguments with one row per text
LIKE_TEXTS = ("fill", "baseline")  # arguments that have one row per text if they are (B, E, 1, T)


class TakesTexts(Protocol):
    """A network of texts: it turns the numbers of words into vectors, and takes either."""

    is_whole: bool

    def embed(self, texts: Tensor) -> Tensor:
        """Return the vectors (B, E, 1, T) of words that are given by their numbers (B, 1, 1, T)."""

    def whole(self) -> AbstractContextManager[None]:
        """While active, vectors that are 0 at the end of a text belong to it."""


def text_model(model: object) -> TakesTexts | None:
    """Return the network of texts that a model is or contains; None if it takes images or series."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    return next((cast(TakesTexts, part) for part in parts if hasattr(part, "embed") and hasattr(part, "whole")), None)


def vectors_of(model: TakesTexts, texts: Tensor) -> Tensor:
    """Return the vectors (B, E, 1, T) of texts in any form: numbers (B, 1, 1, T), or vectors (B, E, 1, T) or (B, T, E)."""
    if texts.ndim == 3:
        return texts.transpose(1, 2)[:, :, None]
    return model.embed(texts) if texts.ndim == 4 and texts.shape[1] == 1 else texts


def real_tokens(vectors: Tensor) -> Tensor:
    """Return which of the tokens (B, T) belong to texts with the vectors (B, E, 1, T): those up to the last that is not 0.

    Raises:
        ValueError: a text has no token.
    """
    there = (vectors != 0).any(1).flatten(1)
    real = there.flip(1).cummax(1).values.flip(1)
    if not torch.compiler.is_compiling() and not real[:, :1].all():
        empty = (~real[:, 0]).nonzero()[:, 0].tolist()
        raise ValueError(f"the texts {empty[:5]} have no token; leave them out")
    return real


def of_texts(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of a model and its images accept texts as well, if the model is one of texts.

    The function receives the texts of each length together, as the vectors (b, E, 1, t) of their words without padding, so that
    padding can count nowhere. Its maps (b, 1, t) are put together as (B, 1, T), or (B, T) if the texts were given as (B, T, E),
    with 0 for the padding. Curves get the fractions of the longest text.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def lifted(model: nn.Module, images: Tensor, *arguments: Any, **options: Any) -> Any:
        network = text_model(model)
        if network is None or network.is_whole or not isinstance(images, Tensor):
            return function(model, images, *arguments, **options)
        with lock_of(model):
            with torch.no_grad():
                vectors = vectors_of(network, images).detach()
            steps = real_tokens(vectors).sum(1).tolist()
            given = signature.bind(model, vectors, *arguments, **options)
            groups = {length: [row for row, one in enumerate(steps) if one == length] for length in sorted(set(steps))}
            found = []
            with network.whole():
                for length, rows in groups.items():
                    mine = signature.bind(*given.args, **given.kwargs)
                    mine.arguments["images"] = vectors[rows, :, :, :length]
                    for name in (*PER_TEXT, *LIKE_TEXTS):
                        if name in signature.parameters:
                            _choose(mine.arguments, name, rows, length, vectors)
                    try:
                        found.append(function(*mine.args, **mine.kwargs))
                    except Exception as error:
                        if len(groups) > 1:
                            error.add_note(f"of the texts {rows[:10]}, which have {length} tokens")
                        raise
        joined = _joined(found, list(groups.values()), vectors)
        return joined.squeeze(1) if images.ndim == 3 and isinstance(joined, Tensor) else joined

    return lifted


def _choose(arguments: dict[str, Any], name: str, rows: list[int], length: int, vectors: Tensor) -> None:
    """Reduce one argument to some texts, without padding."""
    value = arguments.get(name)
    count, steps = len(vectors), vectors.shape[3]
    if name == "indices":
        arguments[name] = rows if value is None else [value[row] for row in rows] if len(value) == count else value
    elif isinstance(value, Tensor) and value.ndim and len(value) == count and (name in PER_TEXT or value.ndim == 4):
        part = value[rows]
        if part.ndim > 1 and part.shape[-1] == steps:
            part = part[..., :length]
        arguments[name] = part[:, None] if part.ndim == 2 and name in ("maps", "objects", "segments") else part
    elif name == "targets" and not isinstance(value, Tensor | int | None) and len(value) == count:
        arguments[name] = [value[row] for row in rows]


def _joined(found: list[Any], rows: list[list[int]], vectors: Tensor) -> Any:
    """Put the results of several groups of texts together in the order of the texts."""
    order = torch.tensor([row for group in rows for row in group]).argsort()
    if isinstance(found[0], Tensor):
        steps = vectors.shape[3]
        whole = [torch.nn.functional.pad(part, (0, steps - part.shape[-1])) for part in found]
        return torch.cat(whole)[order.to(vectors.device)]
    return type(found[0]).joined(found, order)
