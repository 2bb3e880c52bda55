"""What the explorer shows and how it is computed: a picture, a network, a class, maps and deletion curves; no widgets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.attribution.table import METHODS
from saliency_lib.core.batching import frozen, logits_of
from saliency_lib.core.checks import positive
from saliency_lib.core.scores import probabilities
from saliency_lib.core.texts import of_texts
from saliency_lib.evaluation.deletion import PRESETS
from saliency_lib.evaluation.perturbation import even_fractions, perturbation_curve
from saliency_lib.notebook.explorer.sources import Look, Network, Source, like_parameters

AT_ONCE = 4  # points of the curves between two drawings
TOP = 5  # classes to choose from
QUICK: dict[str, dict] = {  # options that are cheaper than a method's own defaults, so that every map takes seconds
    "active_gradient": {"classes": 5},
    "inactive_gradient": {"classes": 5},
    "active_smoothgrad": {"classes": 5, "samples": 10},
    "active_integrated_gradients": {"classes": 5, "steps": 20},
    "guided_path_integrated_gradients": {"steps": 50},
    "rise": {"masks": 500},
    "sidu_grids": {"masks": 200},
    "lime": {"samples": 200},
}
OF_TEXTS: dict[str, dict] = {
    name: {"reduction": "norm"} for name in ("gradient", "smoothgrad")
}  # a sum over a vector says little


@dataclass
class Shown:
    """What the explorer shows.

    Args:
        name: of the picture or the text.
        image: (1, C, H, W) in [0, 1], or the numbers (1, 1, 1, T) of a text's words.
        training: the specification of the network; None if it is the reader's own.
        words: the classes that the network finds likeliest, by class index, the likeliest first.
        probabilities: of these classes; the number itself if the network gives one, see `sl.Scalar`.
        target: the class that is explained.
        tokens: the words of a text; empty for an image.
        maps: per method (H, W), not rescaled.
        curves: per method the shares of the pixels or words removed so far, and the probability of the target at each.
        of_number: whether a number is explained, and not a class.
    """

    name: str
    image: Tensor
    training: Network
    words: dict[int, str]
    probabilities: dict[int, float]
    target: int
    tokens: tuple[str, ...] = ()
    maps: dict[str, Tensor] = field(default_factory=dict)
    curves: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    of_number: bool = False

    def says(self, target: int | None = None, digits: int = 0) -> tuple[str, str]:
        """Return a class in words, and its probability with so many digits; None is the class that is explained."""
        target = self.target if target is None else target
        share = self.probabilities[target]
        return self.words[target], f"{share:.6g}" if self.of_number else f"{share:.{digits}%}"

    def area(self, method: str) -> float:
        """Return the area under a method's curve, by the trapezoid rule."""
        fractions, values = self.curves[method]
        return float(np.trapezoid(values, fractions))

    def where(self, method: str) -> str:
        """Say where the largest values of a method's map are: in which ninth of the picture, or on which words."""
        return strongest(self.maps[method], self.tokens) if self.tokens else whereabouts(self.maps[method])

    def reached(self, method: str) -> float | None:
        """Return the share of the pixels that a method's curve has removed so far; None if it has no point."""
        fractions = self.curves.get(method, ([], []))[0]
        return fractions[-1] if fractions else None


class State:
    """The network and the picture in use, and what was computed of them.

    Args:
        source: where networks come from.
        options: per method its options, in place of those in QUICK.
        steps: strides of the deletion curve.
        seed: fixes the methods' random numbers.
    """

    def __init__(self, source: Source, options: Mapping[str, Mapping] | None, steps: int, seed: int):
        self.source = source
        self.options = {**QUICK, **(options or {})}
        self.steps, self.seed = positive("steps", steps), seed
        self._training: Network = None
        self._model: nn.Module | None = None
        self._shown: Shown | None = None

    @property
    def shown(self) -> Shown:
        """What is shown."""
        if self._shown is None:
            raise ValueError("the explorer shows nothing yet; its message says why")
        return self._shown

    @property
    def is_empty(self) -> bool:
        """Whether nothing is shown yet."""
        return self._shown is None

    @property
    def model(self) -> nn.Module:
        """The network in use."""
        if self._model is None:
            raise ValueError("no network is loaded; call use(training) first")
        return self._model

    def uses(self, training: Network) -> bool:
        """Return whether a network is the one in use."""
        return self._model is not None and self._training == training

    def use(self, training: Network) -> None:
        """Load a network, or train it."""
        self._model, self._training = self.source.model(training), training

    def look_at(self, look: Look) -> bool:
        """Predict the classes of a picture or of a text's words, and return True, unless it is shown already."""
        name, image, tokens = look
        same = self._shown and (self._shown.training, self._shown.tokens) == (self._training, tokens)
        if self._shown and same and torch.equal(self._shown.image, image):
            self._shown.name = name
            return False
        with frozen(self.model):
            logits = logits_of(self.model, like_parameters(self.model, image))
        shares = probabilities(logits.float())[0].cpu()
        best = shares.argsort(descending=True, stable=True)[:TOP].tolist()
        classes = self.source.classes(self._training)
        words, found = {i: classes[i] for i in best}, {i: float(shares[i]) for i in best}
        self._shown = Shown(name, image, self._training, words, found, best[0], tokens, of_number=logits.shape[1] == 1)
        return True

    def choose(self, target: int) -> None:
        """Explain another class."""
        if target != self.shown.target:
            self._shown = replace(self.shown, target=target, maps={}, curves={})

    def explain(self, method: str, number: int) -> None:
        """Compute the map of a method; `number` is the image's number in its data set."""
        options = METHODS.taken(method, {"seed": self.seed, "indices": torch.tensor([number])})
        options |= OF_TEXTS.get(method, {}) if self.shown.tokens else {}
        options |= self.options.get(method, {})
        image, target = like_parameters(self.model, self.shown.image), torch.tensor([self.shown.target])
        self.shown.maps[method] = METHODS[method](self.model, image, target, **options)[0].float().cpu()

    def delete(self, chosen: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Compute the curves of methods that have a map, some points at a time; yield how many of how many are there."""
        shown, image = self.shown, like_parameters(self.model, self.shown.image)
        fractions = even_fractions(shown.image[0, 0].numel(), self.steps)
        methods = [name for name in chosen if name in shown.maps and shown.reached(name) != 1]
        if not methods:
            return
        maps = torch.stack([shown.maps[name] for name in methods]).to(image.device)
        images, targets = image.expand(len(maps), -1, -1, -1), torch.full((len(maps),), shown.target)
        shown.curves |= {name: ([], []) for name in methods}
        done, fill = 0, PRESETS["rise"]["deletion_fill"]
        while done < len(fractions):
            yield done, len(fractions)
            left = len(fractions) - done
            some = fractions[done : done + (left if left <= AT_ONCE + 1 else AT_ONCE)]  # a curve has at least two points
            curve = of_texts(perturbation_curve)(self.model, images, maps, targets, fractions=some, fill=fill)
            done += len(some)
            for name, values in zip(methods, curve.values.tolist(), strict=True):
                before = shown.curves[name]
                shown.curves[name] = (before[0] + curve.fractions.tolist(), before[1] + values)
        yield done, len(fractions)


def strongest(values: Tensor, tokens: Sequence[str], most: int = 3) -> str:
    """Say which words have the largest values in a map (1, T)."""
    if values.min() == values.max():
        return "no word, it is constant"
    return ", ".join(tokens[place] for place in values[0].argsort(descending=True, stable=True)[:most].tolist())


def whereabouts(values: Tensor) -> str:
    """Say in which ninth of a map (H, W) most of its largest tenth lies, and how much."""
    if values.min() == values.max():
        return "nowhere, it is constant"
    pixels = values.numel()
    best = values.flatten().argsort(descending=True, stable=True)[: max(1, pixels // 10)]
    height, width = values.shape
    ninths = 3 * (best // width * 3 // height) + best % width * 3 // width
    counts = ninths.bincount(minlength=9)
    words = [f"{y} {x}".strip() for y in ("upper", "", "lower") for x in ("left", "centre", "right")]
    return f"{words[int(counts.argmax())]} ({counts.max() / len(best):.0%})"
