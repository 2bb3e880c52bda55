"""Names of classes that several data sets share."""

from pathlib import Path

from torchvision.models._meta import _IMAGENET_CATEGORIES

DIGITS = tuple("0123456789")
IMAGENET_CLASSES = tuple(_IMAGENET_CATEGORIES)  # readable names; index = rank of the WordNet id
WORDNET_IDS = tuple(Path(__file__).with_name("imagenet_wordnet_ids.txt").read_text().split())
