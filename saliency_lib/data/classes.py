"""Names of classes that several data sets share."""

from pathlib import Path

DIGITS = tuple("0123456789")
WORDNET_IDS = tuple(Path(__file__).with_name("imagenet_wordnet_ids.txt").read_text().split())


def imagenet_classes() -> tuple[str, ...]:
    """Return readable names of ImageNet's 1,000 classes, in the order of their WordNet ids."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES  # here, since importing it takes seconds

    return tuple(_IMAGENET_CATEGORIES)
