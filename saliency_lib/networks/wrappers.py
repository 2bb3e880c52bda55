"""Wrappers of a model: other logits with the same predictions, and one number in place of the logits."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from saliency_lib.core.checks import check_model, outline
from saliency_lib.core.options import shown


class _Wrapped(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.training = model.training  # self.train() would set the mode of every layer

    @property
    def pixel_mean(self) -> Tensor | None:
        """The colour (C,) that is zero after the model's normalisation; None if the model does not tell."""
        return getattr(self.model, "pixel_mean", None)


class LogProbabilities(_Wrapped):
    """A model whose logits are the log-probabilities of another, so that methods that explain logits explain the loss.

    log p_c = f_c - log sum_k exp f_k is minus the cross-entropy of class c. The probabilities are those of the wrapped model.

    Args:
        model: maps pixels (B, C, H, W) to logits (B, K).
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the log-probabilities (B, K)."""
        return self.model(images).log_softmax(1)


class Shifted(_Wrapped):
    """A model that adds the same linear function of the image to the logits of all classes: f_c(x) + <a, x>.

    No probability changes, but the gradient of every logit changes by a.

    Args:
        model: maps pixels (B, C, H, W) to logits (B, K).
        direction: a, of the shape of one image (C, H, W), in logits per unit of pixel value.

    Raises:
        ValueError: the direction is not a tensor of floats, or the images have another shape.

    Source: Srinivas and Fleuret 2021, section 2, with a linear function g.
    """

    direction: Tensor

    def __init__(self, model: nn.Module, direction: Tensor):
        super().__init__(model)
        if not isinstance(direction, Tensor) or not direction.is_floating_point():
            got = direction.dtype if isinstance(direction, Tensor) else type(direction).__name__
            raise ValueError(f"direction must be a tensor of floats of the shape of one image, got {got}")
        self.register_buffer("direction", direction.detach().to(next(model.parameters(), direction), copy=True))

    def forward(self, images: Tensor) -> Tensor:
        """Return the shifted logits (B, K)."""
        if images.shape[1:] != self.direction.shape:
            raise ValueError(f"images {tuple(images.shape)} do not have the shape of the direction {tuple(self.direction.shape)}")
        return self.model(images) + (images * self.direction).flatten(1).sum(1, keepdim=True)


class Scalar(_Wrapped):
    """A model whose one output is a number that a function makes of another model's output, so that it can be explained.

    Its outputs (B, 1) take the place of logits and the only class is 0, so every method, metric and engine takes it as it is:
    a function in place of `targets` would have to reach each kernel, and could not change what a rule or an engine runs.

    Scores that are probabilities elsewhere (`score="probability"`, which RISE, LIME, occlusion, SIDU and deletion take) are the
    number itself. Methods that compare classes have nothing to compare with: `active_gradient` is the absolute gradient. Metrics
    that ask whether the prediction changes refuse it.

    Args:
        model: maps pixels (B, C, H, W) to anything: a tensor of any shape, a tuple, a dictionary.
        function: maps that output to one floating-point number per image, (B,), from each image's own part of it. It must be
            differentiable for methods that need gradients.

    Raises:
        ValueError: the model is no module, or the function cannot be called; in a pass, the function fails, or does not return
            floating-point numbers (B,). Methods and metrics refuse numbers that are NaN, and those without a gradient where
            they need one.
    """

    gives_number = True

    def __init__(self, model: nn.Module, function: Callable[[Any], Tensor]):
        check_model(model)
        if not callable(function):
            raise ValueError(f"function must be a function of the model's output, got {shown(function)}")
        super().__init__(model)
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        """Return the numbers (B, 1)."""
        output = self.model(images)
        try:
            numbers = self.function(output)
        except (AttributeError, LookupError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"the function of sl.Scalar failed on the model's output, {outline(output)} ({reason}); change the function"
            ) from error
        if not isinstance(numbers, Tensor) or numbers.shape != images.shape[:1]:
            raise ValueError(
                f"the function of sl.Scalar must return one number per image, ({len(images)},), got {outline(numbers)} from the "
                f"model's output, {outline(output)}; reduce every axis but the first, for instance by .flatten(1).mean(1)"
            )
        if not numbers.is_floating_point():
            raise ValueError(
                f"the function of sl.Scalar must return floating-point numbers, got {numbers.dtype}; return a logit or a mean "
                "instead of an index or a count, or convert it by .float() for methods that need no gradient"
            )
        return numbers[:, None]
