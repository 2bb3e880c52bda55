"""Where the explorer's networks and pictures come from: the tables of the compendium, or the reader's own.

A source has the network (`first`) and the data set to begin with, the greatest number of an image (`last`), and what such a
number is called (`picture`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from PIL import Image
from torch import Tensor, nn

from saliency_lib.artefacts import pipeline
from saliency_lib.artefacts.inputs import classes_of, load, preparation_of, vocabulary_of
from saliency_lib.artefacts.specs import Training
from saliency_lib.core.batching import frozen, logits_of
from saliency_lib.core.calls import OVER
from saliency_lib.core.checks import check_images, check_model, positive
from saliency_lib.core.options import shown
from saliency_lib.core.scores import gives_number
from saliency_lib.core.texts import text_model
from saliency_lib.data.pictures import opened, seen
from saliency_lib.data.table import DATASETS
from saliency_lib.data.texts import read_sentence
from saliency_lib.notebook.explorer.choices import data_sets, fit, fitted, label, networks

Network = Training | None  # None is the reader's own
SIDE = 224  # of the reader's files, in pixels


class Look(NamedTuple):
    """A picture or a text as a network takes it: its name, its pixels (1, C, H, W) or words (1, 1, 1, T), and its words."""

    name: str
    image: Tensor
    tokens: tuple[str, ...] = ()


class Registered:
    """Networks by their specifications, and the data sets that they are for."""

    last, picture = 10**7, "Test image"

    def __init__(self, first: Training):
        self._first = self.first = first
        self.dataset = first.dataset

    def data_sets(self) -> list[str]:
        """Return all data sets of images and texts."""
        return list(dict.fromkeys((*data_sets(), self.dataset)))

    def has_texts(self, dataset: str) -> bool:
        """Return whether a data set has texts."""
        return DATASETS[dataset].texts

    def networks(self, dataset: str) -> dict[str, Training]:
        """Return the networks for a data set; the first one leads, even if the store has another of its name."""
        first = {label(self._first): self._first} if dataset == self.dataset else {}
        found = first | networks(dataset) | first
        if not found:
            raise ValueError(
                f"no network has been trained on {dataset} yet; run `papermill notebooks/01_train.ipynb out.ipynb "
                f"-p dataset {dataset}` first, or choose photos or mnist5k"
            )
        return found

    def name(self, network: Network) -> str:
        """Return a network's readable name."""
        return label(self._of(network))

    def model(self, network: Network) -> nn.Module:
        """Load a network, or train it."""
        return pipeline.train(self._of(network)).model

    def classes(self, network: Network) -> Sequence[str]:
        """Return the class names of the network's data set."""
        return classes_of(self._of(network).dataset)

    def image(self, network: Network, number: int) -> Look:
        """Return an image or a text of the data set, as its network takes it."""
        training = self._of(network)
        dataset = training.dataset
        found = load(dataset, "test", number, number + 1, preparation=preparation_of(training, dataset))
        name = f"{dataset} {found.names[0] if found.texts and found.names else number}"
        if found.texts:
            return Look(name, found.images[..., : len(found.texts[0].tokens)], found.texts[0].tokens)
        return Look(found.names[0] if found.names else name, found.images)

    def upload(self, network: Network, name: str, own: Image.Image | str) -> Look:
        """Return a picture or a sentence like those of the network's data set."""
        training = self._of(network)
        if isinstance(own, str):
            return Look(name, *read_sentence(own, vocabulary_of(training.dataset)))
        return Look(name, fit(own, training.dataset, preparation_of(training, training.dataset)))

    def _of(self, network: Network) -> Training:
        return network or self._first


class Own:
    """A network and pictures of the reader's own.

    Args:
        model: maps pixels (B, C, H, W) in [0, 1] to logits (B, K), or to a number by `sl.Scalar`, on any device and of any
            precision.
        images: (B, C, H, W) with one or three channels in [0, 1], or files of pictures, each of which is brought to a square in
            colour as an uploaded one is.
        classes: (K,) names; None for numbers.
        side: of the files' squares in pixels; None for 224.

    Raises:
        ValueError: see above. The first picture is sent through the model once.
    """

    first, picture = None, "Picture"
    dataset, _network = "your pictures", "your network"

    def __init__(
        self,
        model: nn.Module,
        images: Tensor | Sequence[str | Path],
        classes: Sequence[str] | None = None,
        side: int | None = None,
    ):
        check_model(model)
        if text_model(model) is not None:
            raise ValueError("the explorer takes networks of texts by name: pass a sl.Training of a data set of texts")
        self._model, self._images, self._files = model, *_checked(images, side)
        side = positive("side", SIDE if side is None else side)
        shape = (len(self._files), 3, side, side) if self._images is None else self._images.shape
        self.last, self._channels, self._size = shape[0] - 1, shape[1], (shape[2], shape[3])
        self._classes = _names(classes, _outputs(model, self.image(None, 0).image))

    def data_sets(self) -> list[str]:
        """Return the name of the reader's pictures."""
        return [self.dataset]

    def has_texts(self, dataset: str) -> bool:
        """Return that there are no texts."""
        return False

    def networks(self, dataset: str) -> dict[str, None]:
        """Return the reader's network."""
        return {self._network: None}

    def name(self, network: Network) -> str:
        """Return what the network is called."""
        return self._network

    def model(self, network: Network) -> nn.Module:
        """Return the reader's network."""
        return self._model

    def classes(self, network: Network) -> Sequence[str]:
        """Return the names of the classes."""
        return self._classes

    def image(self, network: Network, number: int) -> Look:
        """Return a picture by its number."""
        if self._images is not None:
            return Look(f"picture {number}", self._images[number : number + 1])
        with opened(self._files[number]) as picture:
            return self.upload(network, self._files[number].name, seen(picture))

    def upload(self, network: Network, name: str, own: Image.Image | str) -> Look:
        """Return a picture of the size and the channels of the reader's."""
        if isinstance(own, str):
            raise ValueError("your network takes pictures; upload one")
        return Look(name, fitted(own, self._channels, self._size))


Source = Registered | Own


def source_of(
    training: Training | None,
    model: nn.Module | None,
    images: Tensor | Sequence[str | Path] | None,
    classes: Sequence[str] | None,
    side: int | None,
) -> Source:
    """Return the reader's own network and pictures, or those of a specification if there is no model.

    Raises:
        ValueError: the arguments are of both, or one is missing.
    """
    if model is None and (images is not None or classes is not None or side is not None):
        raise ValueError("images, classes and side are for a network of your own; pass it by model=")
    if model is None:
        return Registered(training or Training("photos", "efficientnet_lite0"))
    if training is not None:
        raise ValueError("training and model are two networks; pass one of them")
    if images is None:
        raise ValueError("a network of your own needs pictures; pass images=, a tensor (B, 3, H, W) in [0, 1] or a list of files")
    return Own(model, images, classes, side)


def _checked(images: Tensor | Sequence[str | Path], side: int | None) -> tuple[Tensor | None, list[Path]]:
    """Return the images as pixels on the CPU in single precision, or the files that exist and can be read."""
    if isinstance(images, list | tuple):
        if not images:
            raise ValueError("images is an empty list; pass at least one file")
        if others := [file for file in images if not isinstance(file, str | Path)]:
            raise ValueError(
                f"images must be a tensor (B, C, H, W) or a list of files, got a list with {shown(others[0])}; join tensors by "
                "torch.stack"
            )
        for file in images:
            with opened(Path(file)):
                pass
        return None, [Path(file) for file in images]
    if isinstance(images, str | Path):
        raise ValueError(f"images must be a tensor (B, C, H, W) or a list of files, got {str(images)!r}; write [{str(images)!r}]")
    if side is not None:
        raise ValueError("side is for files; bring a tensor to another size by torch.nn.functional.interpolate")
    pixels = check_images(cast(Tensor, images)).float().cpu()  # which refuses what is no tensor
    low, high = pixels.min().item(), pixels.max().item()
    if low < -OVER or high > 1 + OVER:
        raise ValueError(
            f"images must be in [0, 1], and these range from {low:.3g} to {high:.3g}; pass pixels in [0, 1], and normalise them "
            "in the model's first layer: sl.PixelModel(network, mean, std)"
        )
    if pixels.shape[1] not in (1, 3):
        raise ValueError(f"images must have one channel or three, (B, 1, H, W) or (B, 3, H, W), got {tuple(pixels.shape)}")
    return pixels, []


def _outputs(model: nn.Module, image: Tensor) -> int:
    """Return how many logits a model gives for the first picture (1, C, H, W); a model that cannot take it is an error."""
    try:
        with frozen(model):
            logits = logits_of(model, like_parameters(model, image))
    except ValueError:
        raise
    except Exception as error:  # whatever a model raises of a picture that it does not take
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"the model fails on the first picture {tuple(image.shape)}: {reason}; pass pictures of the size and the channels "
            "that it takes (side= sets that of files)"
        ) from error
    if not logits.isfinite().all():
        raise ValueError("the model's output for the first picture is NaN or infinite; check its weights")
    if logits.shape[1] == 1 and not gives_number(model):
        raise ValueError(
            "the model has one output; say that it is a number, model=sl.Scalar(model, lambda output: output[:, 0]), or let it "
            "return a logit per class"
        )
    return logits.shape[1]


def _names(classes: Sequence[str] | None, outputs: int) -> list[str]:
    if classes is None:
        return ["the number"] if outputs == 1 else [f"class {number}" for number in range(outputs)]
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes must be a list of names, got {shown(classes)}; write for instance ['cat', 'dog']")
    if len(classes) != outputs:
        raise ValueError(
            f"classes has {len(classes)} names, and the model gives {outputs} logits; pass one name per logit, in order"
        )
    return list(classes)


def like_parameters(model: nn.Module, image: Tensor) -> Tensor:
    """Return an image on the device and in the precision of a model's parameters."""
    like = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), image)
    return image.to(like.device, like.dtype)
