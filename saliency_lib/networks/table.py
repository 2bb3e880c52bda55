"""The table of networks."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Annotated, Any

from torch import nn

from saliency_lib.core.locks import GENERATOR
from saliency_lib.core.options import Range, check, typed
from saliency_lib.core.registry import Entry, Registry

Classes = Annotated[int, Range(1, 100_000)]
Side = Annotated[int, Range(1, 4096)]  # pixels, or features of a layer
COLOURS = {1: "1 (grey)", 3: "3 (colour)"}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared for published weights, as in their evaluation; the defaults are ImageNet's usual settings.

    Args:
        side: of the centre that is cropped, in pixels.
        resize: the shorter side of the whole picture before that, in pixels; both sides if it is stretched to a square.
        interpolation: `bilinear` or `bicubic`.
        stretched: whether the picture is stretched to a square before it is cropped.
        mean, std: of the normalisation, which is part of the model.
    """

    side: int = 224
    resize: int = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    stretched: bool = False

    @property
    def unusual(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}


@dataclass(frozen=True, eq=False)
class Model(Entry):
    """A network: (classes=10, channels, pretrained=False, *, options) -> nn.Module that maps pixels to logits.

    Args:
        weights: the origin of its pretrained weights; None if there are none.
        channels: the numbers of channels it can be built for, the default last.
        preparation: how pictures are prepared for its pretrained weights; None means as each data set does it.
        predicts: the data set whose classes its pretrained weights predict; `imagenet` stands for all with ImageNet's classes,
            and `any` for whichever it is used with.
        known: the number of these classes.
        texts: whether it takes texts, and has an option `words` for their vocabulary.
        content: the SHA-256 of weights that neither the name nor the code tells; else empty.
    """

    weights: str | None = None
    channels: tuple[int, ...] = (1, 3)
    preparation: Preparation | None = None
    predicts: str = "imagenet"
    known: int = 1000
    texts: bool = False
    content: str = ""

    @classmethod
    def adapt(cls, function: Callable[..., nn.Module], name: str, **facts: Any) -> Callable[..., nn.Module]:
        """Return the function that checks the arguments every network has, and then builds it."""
        weights, taken = facts.get("weights"), facts.get("channels", (1, 3))

        @wraps(function)
        def checked(classes: int = 10, channels: int = taken[-1], pretrained: bool = False, **options: Any) -> nn.Module:
            check(f"classes of {name}", Classes, classes)
            check(f"channels of {name}", int, channels)
            check(f"pretrained of {name}", bool, pretrained)
            if channels not in taken:
                words = " or ".join(COLOURS[number] for number in taken)
                raise ValueError(f"channels of {name} must be {words}, got {channels!r}")
            if pretrained and not weights:
                raise ValueError(f"{name} has no pretrained weights; train it (recipe standard) or take a torchvision network")
            with GENERATOR:
                return function(classes, channels, pretrained, **options)

        return typed(checked, name, "model")

    @property
    def row(self) -> dict[str, str]:
        """The network's row when the table is printed."""
        return {"name": self.name, "channels": " or ".join(map(str, self.channels)), "pretrained weights": self.weights or "none"}


MODELS: Registry[Model] = Registry("model", Model)
