"""Wrappers of a network that change its logits and not its predictions."""

from torch import Tensor, nn


class _Wrapped(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.training = model.training  # self.train() would set the mode of every layer

    @property
    def pixel_mean(self) -> Tensor | None:
        """The colour (C,) that is zero after the model's normalisation; None where the model does not say."""
        return getattr(self.model, "pixel_mean", None)


class LogProbabilities(_Wrapped):
    """A model whose logits are the logarithms of another's probabilities, so that a method of logits explains the loss.

    log p_c = f_c - log sum_k exp f_k, minus the cross-entropy of class c. The probabilities are those of the model.

    Args:
        model: pixels (B, C, H, W) to logits (B, K).
    """

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).log_softmax(1)


class Shifted(_Wrapped):
    """A model that adds the same linear function of the image to the logit of every class: f_c(x) + <a, x>.

    No probability changes, and the gradient of every logit does, by a.

    Args:
        model: pixels (B, C, H, W) to logits (B, K).
        direction: a, (C, H, W), the shape of an image, in logits per unit of pixel value.

    Raises:
        ValueError: a direction that is no tensor of floats, or images of another shape.

    Source: Srinivas and Fleuret 2021, section 2, with the arbitrary function g taken linear.
    """

    def __init__(self, model: nn.Module, direction: Tensor):
        super().__init__(model)
        if not isinstance(direction, Tensor) or not direction.is_floating_point():
            got = direction.dtype if isinstance(direction, Tensor) else type(direction).__name__
            raise ValueError(f"direction must be a tensor of floats, the shape of one image, got {got}")
        self.register_buffer("direction", direction.detach().to(next(model.parameters(), direction), copy=True))

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.direction.shape:
            raise ValueError(f"images {tuple(images.shape)} do not fit the direction {tuple(self.direction.shape)}")
        return self.model(images) + (images * self.direction).flatten(1).sum(1, keepdim=True)
