"""Wrappers that change the logits of a model, but not its predictions."""

from torch import Tensor, nn


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
