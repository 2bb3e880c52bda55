"""Mosaics of images of different classes: localisation where no object masks are known (the grid pointing game)."""

import torch
from torch import Tensor, nn

from saliency_lib.core.batching import device_of, frozen, logits_of
from saliency_lib.core.checks import positive
from saliency_lib.core.streams import generator
from saliency_lib.data.table import Images

CPU = torch.device("cpu")


def confident(model: nn.Module, images: Images, least: float, batch_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the rows of the images that the model classifies correctly with a probability of at least `least`, and classes.

    An image whose class is not known has the predicted one.
    """
    with frozen(model), torch.no_grad():
        probability, predicted = logits_of(model, images.images.to(device_of(model)), batch_size).softmax(1).cpu().max(1)
    labels = torch.where(images.labels < 0, predicted, images.labels)
    rows = ((predicted == labels) & (probability >= least)).nonzero().flatten()
    return rows, labels[rows]


def grid_mosaics(
    images: Images, model: nn.Module, *, side: int = 2, least: float = 0.9, seed: int = 0, batch_size: int | None = None
) -> Images:
    """Place each image that the model is sure of in a mosaic with images of other classes, and mask its cell.

    With these masks as objects, the metric `relevance_mass` is the score of the grid pointing game: the share of the positive
    attribution to the image's class that is in its cell.

    Args:
        images: at least side**2 classes that the model is sure of. An image whose class is not known has the predicted one.
        model: it must take images that are `side` times as high and wide.
        side: cells per row and column; 3 in the papers.
        least: the probability of the label above which the model is sure of an image.
        seed: fixes, for each image, its cell and its neighbours among the images that are given.
        batch_size: most images in one forward pass.

    Returns:
        One mosaic per image that the model is sure of, side * H x side * W, with its label, index and name; masks (N, side * H,
        side * W), true in its cell.

    Raises:
        ValueError: the model is sure of images of fewer than side**2 classes.

    Source: Boehle, Fritz, Schiele 2021; Rao, Boehle, Schiele 2022 (GridPG). Differs: each image is asked for once,
    there each cell of a mosaic.
    """
    cells, (rows, labels) = positive("side", side) ** 2, confident(model, images, least, batch_size)
    order = images.indices[rows].argsort()  # neighbours do not depend on the images' order
    by_class = {label: rows[order][labels[order] == label] for label in labels.unique().tolist()}
    if len(by_class) < cells:
        raise ValueError(
            f"mosaics of {side}x{side} cells need images of {cells} classes, but the model is sure of {len(by_class)}; "
            "pass more images, or a smaller side or least"
        )
    mosaics, masks = [], []
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        source = generator(CPU, "mosaics", seed, int(images.indices[row]))
        others = [by_class[other] for other in by_class if other != label]
        chosen = [others[place] for place in torch.randperm(len(others), generator=source)[: cells - 1].tolist()]
        members = [int(group[torch.randint(len(group), (), generator=source)]) for group in chosen]
        cell = int(torch.randint(cells, (), generator=source))
        members.insert(cell, row)
        tiles = images.images[members].unflatten(0, (side, side))
        mosaics.append(tiles.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2))
        own = torch.zeros(side, side, dtype=torch.bool)
        own.view(-1)[cell] = True
        masks.append(own.repeat_interleave(tiles.shape[3], 0).repeat_interleave(tiles.shape[4], 1))
    names = None if images.names is None else tuple(images.names[row] for row in rows.tolist())
    stacked = torch.stack(mosaics), labels, images.classes, images.indices[rows], torch.stack(masks)
    return Images(*stacked, names)
