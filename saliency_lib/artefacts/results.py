"""What the pipeline returns: trained models, maps and curves, with the artefacts that hold them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from saliency_lib.artefacts.provenance import Artefact
from saliency_lib.core.previews import strip, table
from saliency_lib.evaluation.curve import Curve, concatenated


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Args:
        model: in evaluation mode, on the device.
        history: one row per epoch; empty for published weights.
        artefact: where it is stored.
    """

    model: nn.Module
    history: pd.DataFrame
    artefact: Artefact

    @property
    def accuracy(self) -> float:
        """Return the share of the test images that are classified correctly, in [0, 1].

        Raises:
            ValueError: the classes of the test images are not known.
        """
        known = self.artefact.facts["test_accuracy"]
        if known is None:
            raise ValueError(
                f"the classes of the test images of {self.artefact.folder.name} are not known; put them into class folders"
            )
        return known

    @property
    def _said(self) -> str:
        known = self.artefact.facts["test_accuracy"]
        return "not known" if known is None else f"{known:.3f}"

    def __repr__(self) -> str:
        return f"Trained({self.artefact.folder.name}, test accuracy {self._said})"

    def _repr_html_(self) -> str:
        facts = {
            "test accuracy": f"{self._said} on {self.artefact.facts['test_images']} images",
            "epochs": len(self.history) or "published weights",
            "parameters": f"{sum(parameter.numel() for parameter in self.model.parameters()):,}",
            "made in": f"{self.artefact.facts['seconds']} s on {self.artefact.facts['device']}",
        }
        return table(repr(self), facts)


@dataclass(frozen=True)
class Explained:
    """The maps of one method.

    Args:
        maps: (B, H, W).
        targets: (B,) classes that they explain.
        indices: (B,) positions of the images in their split.
        artefacts: where they are stored.
    """

    maps: Tensor
    targets: Tensor
    indices: Tensor
    artefacts: tuple[Artefact, ...]

    def __repr__(self) -> str:
        images, height, width = self.maps.shape
        return f"Explained({images} maps of {height} x {width} by {_said(self, 'method')}, targets {tuple(self.targets.shape)})"

    def _repr_html_(self) -> str:
        return strip(repr(self), self.maps)


@dataclass(frozen=True)
class Scored:
    """The curves of one metric.

    Args:
        curve: one row per image.
        indices: (B,) positions of the images in their split.
        artefacts: where they are stored.
    """

    curve: Curve
    indices: Tensor
    artefacts: tuple[Artefact, ...]

    @property
    def areas(self) -> np.ndarray:
        """Return the area of each image's curve, (B,)."""
        return self.curve.area.numpy()

    @property
    def tied(self) -> np.ndarray | None:
        """Return the share of each image's pixels that tie with another pixel, (B,); None if the metric ranks no pixels."""
        return None if self.curve.tied is None else self.curve.tied.numpy()

    def __repr__(self) -> str:
        return f"Scored({_said(self, 'metric')}, {self.curve!r})"

    def _repr_html_(self) -> str:
        return table(repr(self), self.curve.summary)


def _said(result: Explained | Scored, field: str) -> Any:
    """Return a field of the specification that a result was made from."""
    return result.artefacts[0].provenance["spec"].get(field) if result.artefacts else f"an unknown {field}"


@overload
def join(parts: Sequence[Explained]) -> Explained: ...
@overload
def join(parts: Sequence[Scored]) -> Scored: ...
def join(parts: Sequence[Explained] | Sequence[Scored]) -> Explained | Scored:
    """Return the results of several shards as one, in the order of the images.

    Args:
        parts: at least one result, all of the same kind.

    Raises:
        ValueError: there is nothing to join, the kinds differ, two shards share an image, or curves have different fractions.
    """
    explained = [part for part in parts if isinstance(part, Explained)]
    scored = [part for part in parts if isinstance(part, Scored)]
    if not parts or len(parts) not in (len(explained), len(scored)):
        raise ValueError(f"join needs results of one kind, got {[type(part).__name__ for part in parts]}")
    indices = torch.cat([part.indices for part in parts])
    if len(indices.unique()) != len(indices):
        raise ValueError("the shards share images; give each image once")
    order = indices.argsort()
    artefacts = tuple(artefact for part in parts for artefact in part.artefacts)
    if explained:
        maps, targets = torch.cat([part.maps for part in explained]), torch.cat([part.targets for part in explained])
        return Explained(maps[order], targets[order], indices[order], artefacts)
    fractions = scored[0].curve.fractions
    if any(not torch.equal(part.curve.fractions, fractions) for part in scored):
        raise ValueError("the curves of the shards have different fractions; use the same options for all shards")
    whole = concatenated([part.curve for part in scored])
    rows = {name: value[order] for name, value in vars(whole).items() if name != "fractions" and value is not None}
    return Scored(replace(whole, **rows), indices[order], artefacts)
