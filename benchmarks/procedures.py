"""Peers that are not packages: the procedures of the papers' released code, written from their definition."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from skimage.transform import resize
from torch import Tensor, nn


def five_maps(model: nn.Module, images: Tensor, classes: int) -> Tensor:
    """Compute PAG's maps (5, B, H, W), plain, positive, negative, active and inactive, each from its own passes.

    This takes 2 K + 5 forward and backward passes for K classes, each with the gradients of the weights, and one more forward
    pass for every map except the first, to find the predicted class.

    Source: Llorente, Boal, Sanchez-Ubeda 2023 (PAG), released code. Differs: not scaled to [0, 1].
    """

    def slope(number: int | None = None) -> Tensor:
        model.zero_grad()
        inputs = images.clone().requires_grad_()
        logits = model(inputs)
        (logits.amax(1) if number is None else logits[:, number]).sum().backward()
        return inputs.grad

    def contrasted(beats: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        predicted, own = model(images).argmax(1), slope()
        keep = torch.ones_like(own, dtype=torch.bool)
        for number in range(classes):
            keep &= beats(own, slope(number)) | (predicted == number).view(-1, 1, 1, 1)
        return (own.abs() * keep).amax(1)

    plain = slope().abs().amax(1)
    signed = []
    for sign in (1, -1):
        model(images).argmax(1)
        signed.append((sign * slope()).relu().amax(1))
    return torch.stack([plain, *signed, contrasted(torch.gt), contrasted(torch.lt)])


def rise_masks(grids: Tensor, tops: Tensor, lefts: Tensor, side: int) -> Tensor:
    """Make RISE's masks (N, side, side) in double precision: each grid is enlarged by scikit-image and cut at its shift.

    Args:
        grids: (N, s, s) of 0 and 1.
        tops, lefts: (N,) shifts in pixels.

    Source: Petsiuk, Das, Saenko 2018, released code.
    """
    cells = grids.shape[1]
    large = (cells + 1) * -(-side // cells)
    masks = np.empty((len(grids), side, side))
    for number, (grid, top, left) in enumerate(zip(grids.numpy(), tops.tolist(), lefts.tolist(), strict=True)):
        enlarged = resize(grid, (large, large), order=1, mode="reflect", anti_aliasing=False)
        masks[number] = enlarged[top : top + side, left : left + side]
    return torch.from_numpy(masks)


def rise_map(model: nn.Module, image: Tensor, masks: Tensor, keep: float) -> Tensor:
    """Compute RISE's maps (K, H, W) of all classes in batches of 100, holding all masks and all masked images.

    Args:
        image: (1, C, H, W).
        masks: (N, H, W).

    Source: Petsiuk, Das, Saenko 2018, released code, with the network's weights out of the graph as in its notebooks.
    """
    masks = masks.float()[:, None].to(image.device)
    with torch.no_grad():
        stack = masks * image
        scores = torch.cat([model(part).softmax(1) for part in stack.split(100)])
        return (scores.T @ masks.flatten(1)).view(-1, *image.shape[2:]) / len(masks) / keep


def rise_blur(image: Tensor) -> Tensor:
    """Blur each channel with a delta of 11 pixels filtered with sigma 5, with zeros outside."""
    delta = np.zeros((11, 11))
    delta[5, 5] = 1
    kernel = torch.as_tensor(gaussian_filter(delta, 5)).to(image).expand(image.shape[1], 1, 11, 11)
    return F.conv2d(image, kernel, padding=5, groups=image.shape[1])


def rise_curve(model: nn.Module, image: Tensor, salience: np.ndarray, stride: int, inserting: bool) -> Tensor:
    """Compute RISE's scores (n+1,) of one map, with one image per pass, one more pass for the class, and autograd on.

    Args:
        image: (1, C, H, W).
        salience: (H, W).
        stride: pixels per step.
        inserting: whether pixels appear on a blurred image instead of being removed.

    Source: Petsiuk, Das, Saenko 2018, released evaluation code.
    """
    target = int(model(image).softmax(1).argmax(1))
    now, goal = (rise_blur(image), image.clone()) if inserting else (image.clone(), torch.zeros_like(image))
    pixels = salience.size
    order = np.flip(np.argsort(salience.reshape(-1)))
    steps = -(-pixels // stride)
    scores = np.empty(steps + 1)
    for step in range(steps + 1):
        scores[step] = model(now.to(image.device)).softmax(1)[0, target].item()
        if step < steps:
            places = order[stride * step : stride * (step + 1)]
            now, goal = now.cpu(), goal.cpu()
            now.numpy().reshape(1, -1, pixels)[0, :, places] = goal.numpy().reshape(1, -1, pixels)[0, :, places]
    return torch.from_numpy(scores)


# Losses of one training step, without the numbers that the released loops also print or store.


def saliency_guided_loss(model: nn.Module, images: Tensor, labels: Tensor, fraction: float = 0.5) -> Tensor:
    """Compute SGT's loss for grey images, in which the pixels with the smallest gradients take the first image's corner value.

    Source: Ismail, Corrada Bravo, Feizi 2021, released code for MNIST.
    """
    images = images.clone().requires_grad_()
    model.eval()
    logs = F.log_softmax(model(images), 1)
    slope = torch.autograd.grad(logs.gather(1, labels[:, None]).sum(), images)[0].mean(1).detach().cpu()
    masked = images.clone().flatten(1).detach()
    _, least = torch.topk(slope.flatten(1), int(fraction * slope[0].numel()), dim=1, largest=False)
    for row in range(len(masked)):
        masked[row][least[row].to(masked.device)] = images[0, 0, 0, 0].detach()
    model.train()
    clean = F.log_softmax(model(images), 1)
    other = F.log_softmax(model(masked.view(images.shape).detach()), 1)
    return F.cross_entropy(clean, labels) + F.kl_div(other, clean, reduction="batchmean", log_target=True)


def saliency_guided_text_loss(model: nn.Module, texts: Tensor, labels: Tensor, fraction: float = 0.5) -> Tensor:
    """Compute SGT's loss for texts, text by text: the words with the smallest gradient times vector become the word before.

    Source: our definition, written plainly; the authors have not released their code for texts.
    """
    vectors = model.embed(texts)
    masked = vectors.clone()
    model.eval()
    for row in range(len(texts)):
        count = int((texts[row] != 0).sum())
        text = vectors[row : row + 1, :, :, :count].detach().requires_grad_()
        slope = torch.autograd.grad(F.log_softmax(model(text), 1)[0, labels[row]], text)[0]
        worth = (slope * text)[0].sum(0).abs().flatten()
        for place in worth.topk(int(fraction * count), largest=False).indices.tolist():
            if place:
                masked[row, :, :, place] = vectors[row, :, :, place - 1]
    model.train()
    clean, other = F.log_softmax(model(vectors), 1), F.log_softmax(model(masked), 1)
    return F.cross_entropy(clean, labels) + F.kl_div(other, clean, reduction="batchmean", log_target=True)


def _own_logits(logits: Tensor, labels: Tensor) -> Tensor:
    return -F.nll_loss(logits, labels, reduction="none")


def _trace(model: nn.Module, images: Tensor, labels: Tensor, logits: Tensor, sigma: float) -> Tensor:
    noise = torch.normal(torch.zeros_like(images), sigma)
    return 2 / sigma**2 * _own_logits(model(images + noise) - logits, labels)


def score_matching_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Compute RG's score matching with one probe. Source: Srinivas, Fleuret 2021, released code, with the paper's weight."""
    images = images.clone().requires_grad_()
    logits = model(images)
    slope = torch.autograd.grad(_own_logits(logits, labels).sum(), images, create_graph=True)[0]
    trace = _trace(model, images, labels, logits, 0.01)
    penalty = trace.mean() + slope.pow(2).sum() / len(images) / 2 + 1e-3 * trace.pow(2).mean()
    return F.nll_loss(F.log_softmax(logits, 1), labels) + 1e-3 * penalty


def anti_score_matching_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Compute RG's anti score matching. Source: Srinivas, Fleuret 2021, released code, with the paper's weight and ceiling."""
    images = images.clone().requires_grad_()
    logits = model(images)
    trace = _trace(model, images, labels, logits, 0.001)
    return F.nll_loss(F.log_softmax(logits, 1), labels) - 1e-4 * trace.clamp(max=1000.0).mean()


def gradient_norm_loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Compute RG's gradient norm. Source: Srinivas, Fleuret 2021, released code, with the paper's weight."""
    images = images.clone().requires_grad_()
    logits = model(images)
    slope = torch.autograd.grad(_own_logits(logits, labels).sum(), images, create_graph=True)[0]
    return F.nll_loss(F.log_softmax(logits, 1), labels) + 1e-3 * slope.pow(2).sum() / len(images) / 2
