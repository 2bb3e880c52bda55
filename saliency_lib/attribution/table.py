"""The table of attribution methods."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from saliency_lib.core.calls import kernel
from saliency_lib.core.registry import Entry, Registry
from saliency_lib.core.series import of_series
from saliency_lib.core.texts import of_texts


@dataclass(frozen=True, eq=False)
class Method(Entry):
    """An attribution method: (model, images, targets, **options) -> maps (B, H, W).

    Args:
        family: `gradient`, `path`, `activation`, `mask` or `control`.
        passes: the cost per image with the default options and a given target: F is a forward pass of the network, B a
            backward pass. Finding the predicted class, if the target is None, may take one more forward pass.
        paper: the paper that introduced the method.
        revision: increased when the same options come to give other maps; 0 is left out of a specification's digest.
        added: options that came after results had been stored; where they are not given, a specification's digest leaves them
            out, so that these results keep their names.
        forward_only: whether it takes no backward passes, and reads layers only of `layered(model)`, so that any engine may run
            the model.
        needs: what some networks alone have that the method needs: `attention`, or the `words` of a text; else empty.
    """

    family: str = "own"
    passes: str = ""
    paper: str = ""
    revision: int = 0
    added: tuple[str, ...] = ()
    forward_only: bool = False
    needs: str = ""

    @classmethod
    def adapt(cls, function: Callable, name: str, **facts: Any) -> Callable:
        """Return the method, which then checks its options and accepts time series and texts as well."""
        return kernel(of_texts(of_series(function)), name, "method")

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor | int | None = None, **options: Any) -> Tensor:
        """Call the function."""
        return self.function(model, images, targets, **options)

    @property
    def row(self) -> dict[str, str]:
        """The method's row when the table is printed."""
        return {"name": self.name, "family": self.family, "passes per image": self.passes, "paper": self.paper}


METHODS: Registry[Method] = Registry("method", Method)
# Methods that some networks alone allow: those with attention, or those of texts. METHODS finds them by name, but does not list
# them, so that "all methods" are those which every network of images allows.
PARTICULAR_METHODS: Registry[Method] = Registry("method of some networks", Method)


@METHODS.fallback
def particular(name: str) -> Method | None:
    """Return the method of some networks with this name, or None."""
    return PARTICULAR_METHODS.get(name)
