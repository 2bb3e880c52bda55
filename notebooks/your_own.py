"""What a reader brings along: a network, a method, the maps of two other packages, and pictures. 06_your_own uses it."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import saliency_lib as sl


def fitted():
    """Return the weights of random convolutions, and of a last layer that is fitted to 1,000 digits.

    The last layer is a ridge regression to the classes, times 10, so that its outputs are logits. Its weights are rounded, so
    that every processor finds the same.
    """
    digits = sl.load("mnist5k", "train", stop=1000)
    kernels = torch.randn(16, 1, 5, 5, generator=torch.Generator().manual_seed(0)) / 5
    found = F.avg_pool2d(F.conv2d(digits.images, kernels).relu(), 4).flatten(1).double()
    wanted = F.one_hot(digits.labels, 10).double()
    mean, share = found.mean(0), wanted.mean(0)
    square = (found - mean).T @ (found - mean) + torch.eye(len(mean), dtype=torch.float64)
    weight = 10 * torch.linalg.solve(square, (found - mean).T @ (wanted - share)).T
    return kernels, weight.round(decimals=2).float(), (10 * share - weight @ mean).round(decimals=2).float()


def network():
    """Build a network that this library does not know, from pixels in [0, 1] to logits."""
    convolution, last = nn.Conv2d(1, 16, 5, bias=False), nn.Linear(576, 10)
    for parameter, values in zip((convolution.weight, last.weight, last.bias), fitted(), strict=True):
        parameter.data.copy_(values)
    return nn.Sequential(convolution, nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), last)


def method(model, images, targets):
    """Return maps (B, H, W): the absolute gradient of the target's logit, averaged over 3 x 3 pixels."""
    pixels = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(pixels).gather(1, targets[:, None]).sum(), pixels)
    return F.avg_pool2d(slope.abs().sum(1, keepdim=True), 3, 1, 1)[:, 0]


def by_captum(kind, model, images, targets, **options):
    """Return the maps (B, H, W) of a class of captum.attr, summed over channels; `options` are those of its `attribute`."""
    return sl.as_maps(kind(model).attribute(images, target=targets, **options), "sum")


def by_grad_cam(kind, model, images, targets):
    """Return the maps (B, H, W) of a class of pytorch_grad_cam, of the layer that Grad-CAM of this library takes."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with kind(model, [sl.find_layer(model, None, images)]) as cam:
        return torch.as_tensor(cam(images, [ClassifierOutputTarget(k) for k in targets.tolist()]))


def write(images, folder):
    """Write grey images (B, 1, H, W) as 00.png, 01.png and so on."""
    for number, image in enumerate(images):
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(Path(folder) / f"{number:02}.png")


def pictures(folder, like):
    """Return the pictures in a folder by name, as pixels (1, C, H, W) with the channels and the size of an image (C, H, W)."""
    files = sorted(file for file in Path(folder).iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not files:
        raise FileNotFoundError(f"there is no PNG or JPEG file in {folder}; name a folder with pictures")
    channels, height, width = like.shape
    sized = [Image.open(file).convert("L" if channels == 1 else "RGB").resize((width, height)) for file in files]
    values = [torch.from_numpy(np.array(one)).view(height, width, channels).permute(2, 0, 1)[None] / 255 for one in sized]
    return {file.name: pixels for file, pixels in zip(files, values, strict=True)}
