"""What scores read of a model's outputs (n, K), where a model of one output has no classes."""

from torch import Tensor, nn


def gives_number(model: object) -> bool:
    """Return whether a model says that its one output is a number to be explained, and not the logit of a class."""
    return isinstance(model, nn.Module) and any(getattr(part, "gives_number", False) for part in model.modules())


def probabilities(logits: Tensor) -> Tensor:
    """Return the softmax of logits (n, K); of one output the output itself, since its softmax is 1 for every image."""
    return logits.softmax(-1) if logits.shape[-1] > 1 else logits


def predictions(logits: Tensor) -> Tensor:
    """Return the predicted classes (n,) of logits (n, K).

    Raises:
        ValueError: there is one output, so that every image has the same prediction.
    """
    if logits.shape[1] == 1:
        raise ValueError(
            "the model gives one number and no classes, so no prediction can change; use a metric that follows the score, for "
            "instance deletion, or score='logit'"
        )
    return logits.argmax(1)
