"""Albums: picture files that have been found, with their classes if they are known, their class names and their masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from saliency_lib import paths
from saliency_lib.data.classes import imagenet_classes, imagenet_label, ranks
from saliency_lib.data.masks import masks_of
from saliency_lib.data.pictures import is_grey, opened
from saliency_lib.data.splits import crop, file_split, imagenet_crop
from saliency_lib.data.table import DATASETS, Dataset, Split

CLASSES = "classes.txt"  # beside the pictures: the names of their classes, see `read_classes`
UNKNOWN = -1  # the label of a picture whose class is not known
IMAGENET = (3, 224)  # the shape of pictures with ImageNet's classes


def shape_of(picture: Image.Image) -> tuple[int, int]:
    """Return the channels and the side of a data set whose first picture this is."""
    width, height = picture.size
    return 1 if is_grey(picture) else 3, width if width == height < 224 else 224


@dataclass(frozen=True)
class Album:
    """Picture files, not yet read.

    Args:
        root: the folder that may have classes.txt and masks.
        parts: per split its pictures in order.
        kinds: per picture its class as its place or its list names it; empty if the classes are not known.
        classes: these classes in label order, unless classes.txt gives another order.
        sources: files besides the pictures and classes.txt that determine the splits.
        whole: whether each mask must be that of a picture of the album.
        imagenet: whether the labels are indices into ImageNet's classes.
        first: the picture that tells the channels and the side; None means the first of the first split.
    """

    root: Path
    parts: Mapping[str, Sequence[Path]]
    kinds: Mapping[Path, str]
    classes: Sequence[str]
    sources: Sequence[Path] = ()
    whole: bool = True
    imagenet: bool = False
    first: Path | None = None

    def entry(self, name: str, about: str) -> Dataset:
        """Return the data set.

        It is grey if the first picture is, else colour. Its side is that of the first picture if that is square and smaller than
        224, else 224; for a picture of another size the shorter side is resized and the centre is cropped. With ImageNet's
        classes it has colours and a side of 224 pixels, and is cropped as for the evaluation of ImageNet's networks.

        Args:
            about: the docstring of the function that loads it.

        Raises:
            ValueError: the first picture cannot be read.
        """
        shape = IMAGENET
        if not self.imagenet:
            with opened(self.first or next(iter(self.parts.values()))[0]) as picture:
                shape = shape_of(picture)

        def load(split: str, download: bool) -> Split:
            return self._split(split, shape[0])

        load.__doc__ = about
        splits = tuple(self.parts)
        return DATASETS.entry(load, name, splits=splits, shape=shape, imagenet=self.imagenet, labelled=bool(self.kinds))

    def _split(self, split: str, channels: int) -> Split:
        files, file = self.parts[split], self.root / CLASSES
        if absent := [one for one in files if not one.exists() and not one.is_symlink()]:
            raise FileNotFoundError(
                f"{len(absent)} of {len(files)} pictures are missing, the first is {paths.relative(absent[0])}; put them there, "
                "or correct their list"
            )
        listed = file.is_file() and not self.imagenet
        if self.imagenet:
            rank, classes = {kind: imagenet_label(kind) for kind in set(self.kinds.values())}, imagenet_classes()
        else:
            rank, classes = ranks(self.classes, file if listed else None)
        labels = [rank[self.kinds[one]] if self.kinds else UNKNOWN for one in files]
        every = [one for part in self.parts.values() for one in part]
        masks = masks_of(self.root, files, every, whole=self.whole)
        resize = imagenet_crop if self.imagenet else crop
        return file_split(
            files, labels, classes, channels, resize, masks=masks, sources=[*self.sources, *([file] if listed else [])]
        )
