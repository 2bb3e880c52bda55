"""Gradients at the image or around it: plain, guided, smoothed, and PAG's positive, negative, active and inactive gradients."""

from functools import partial
from typing import Annotated

from torch import Tensor, nn

from saliency_lib.attribution.backward import (
    Reduction,
    active_slope,
    class_slope,
    gaussian_ball,
    path_gradient,
    point,
    reduced,
    slopes_of_all_classes,
    where_active,
    where_inactive,
)
from saliency_lib.attribution.rules import PoolRule, guided_by
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.calls import kernel
from saliency_lib.core.checks import check_images
from saliency_lib.core.options import Count, Names, NotNegative, Positive, Seed
from saliency_lib.core.streams import Indices


@METHODS.register(family="gradient", passes="1 F + 1 B", paper="Simonyan et al. 2014")
def gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    reduction: Reduction = "max_abs",
    batch_size: Positive | None = None,
) -> Tensor:
    """Measure how strongly each pixel changes the class score: the maximum over channels of |d f_c / d x|.

    Args:
        images: (B, C, H, W) pixels in [0, 1].
        targets: (B,) classes; None for the predicted ones.
        reduction: of the channels, a name in `backward.REDUCTIONS` or a function. `std`, the standard deviation of the signed
            gradient over the channels, is the ranking of Srinivas and Fleuret's released pixel perturbation.

    Returns:
        (B, H, W), not negative, in logits per unit of pixel value; a larger value changes the score more.

    Source: Simonyan, Vedaldi, Zisserman 2014, section 3.
    """
    return reduced(path_gradient(model, images, targets, point(images), batch_size=batch_size), reduction)


@METHODS.register(family="gradient", passes="1 F + 1 B", paper="Springenberg et al. 2015")
def guided_backprop(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    pool_rule: PoolRule = "exact",
    reduction: Reduction = "max_abs",
    batch_size: Positive | None = None,
) -> Tensor:
    """Compute the gradient under the guided rule: only its positive part passes each ReLU and max-pool unit.

    Args:
        pool_rule: `exact` or `released`, see `rules.guided`.

    Returns:
        (B, H, W), not negative.

    Raises:
        ValueError: the network has no such unit, or has another non-linearity.

    Source: Springenberg et al. 2015, section 3.4. Differs: max-pools are guided too, as in Kwon, Koo, Cho 2020.
    """
    rule = guided_by(pool_rule)
    return reduced(path_gradient(model, images, targets, point(images), rule=rule, batch_size=batch_size), reduction)


@METHODS.register(family="gradient", passes="1 F + 1 B", paper="Llorente et al. 2023")
def positive_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    reduction: Reduction = "max_positive",
    batch_size: Positive | None = None,
) -> Tensor:
    """Show where brightening a pixel raises the class score: the maximum over channels of max(d f_c / d x, 0).

    Returns:
        (B, H, W), not negative, in logits per unit of pixel value.

    Source: Llorente, Boal, Sanchez-Ubeda 2023 (PAG). Differs: not scaled to [0, 1], which changes no ranking.
    """
    return gradient(model, images, targets, reduction=reduction, batch_size=batch_size)


@METHODS.register(family="gradient", passes="1 F + 1 B", paper="Llorente et al. 2023")
def negative_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    reduction: Reduction = "max_negative",
    batch_size: Positive | None = None,
) -> Tensor:
    """Show where darkening a pixel raises the class score: the maximum over channels of max(-d f_c / d x, 0).

    Returns:
        (B, H, W), not negative, in logits per unit of pixel value.

    Source: Llorente, Boal, Sanchez-Ubeda 2023 (PAG). Differs: as positive_gradient.
    """
    return gradient(model, images, targets, reduction=reduction, batch_size=batch_size)


@METHODS.register(family="gradient", passes="1 F + 1 B per class", paper="Llorente et al. 2023")
def active_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    signed: bool = False,
    classes: Positive | None = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Show where brightening a pixel raises this class's score more than any other's: |g_c| where g_c > all others.

    The map is the maximum over channels. A pixel whose gradients are all negative is active too if the class's gradient is
    the least negative.

    Args:
        signed: use g_c instead of |g_c|, as in the paper's formula; the default is the released code's.
        classes: how many classes are compared, the target and those with the highest other logits; None is all.

    Returns:
        (B, H, W), not negative unless signed; 0 where another class gains at least as much.

    Source: Llorente, Boal, Sanchez-Ubeda 2023 (PAG) and its released code. Differs: as positive_gradient; a map without
    any active pixel is 0 instead of NaN.
    """
    maps = gradient_maps(model, images, targets, signed=signed, classes=classes, batch_size=batch_size)
    return maps["active_gradient"]


@METHODS.register(family="gradient", passes="1 F + 1 B per class", paper="Llorente et al. 2023")
def inactive_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    signed: bool = False,
    classes: Positive | None = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Show where brightening a pixel raises every other class's score more than this class's: |g_c| where g_c < all others.

    The map is the maximum over channels.

    Args:
        signed, classes: as in active_gradient. The paper's signed formula is degenerate here: it is the maximum of mostly
            negative values.

    Returns:
        (B, H, W), not negative unless signed.

    Source: Llorente, Boal, Sanchez-Ubeda 2023 (PAG) and its released code. Differs: as active_gradient.
    """
    maps = gradient_maps(model, images, targets, signed=signed, classes=classes, batch_size=batch_size)
    return maps["inactive_gradient"]


@kernel
def gradient_maps(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    signed: bool = False,
    classes: Positive | None = None,
    batch_size: Positive | None = None,
) -> dict[str, Tensor]:
    """Compute PAG's five maps of each image together, from one forward pass and one backward pass per class.

    Args:
        signed, classes: as in active_gradient.

    Returns:
        `gradient`, `positive_gradient`, `negative_gradient`, `active_gradient` and `inactive_gradient`, (B, H, W) each, equal
        bit by bit to what the methods of these names return.

    Source: Llorente, Boal, Sanchez-Ubeda 2023 (PAG).
    """
    slope = partial(slopes_of_all_classes, classes=classes)
    slopes = path_gradient(model, images, targets, point(images), slope=slope, batch_size=batch_size)
    contrast = "max" if signed else "max_abs"
    return {
        "gradient": reduced(slopes[:, 0], "max_abs"),
        "positive_gradient": reduced(slopes[:, 0], "max_positive"),
        "negative_gradient": reduced(slopes[:, 0], "max_negative"),
        "active_gradient": reduced(where_active(slopes), contrast),
        "inactive_gradient": reduced(where_inactive(slopes), contrast),
    }


@METHODS.register(family="gradient", passes="1 F + 1 B", paper="Shrikumar et al. 2016")
def input_x_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    reduction: Reduction = "sum",
    batch_size: Positive | None = None,
) -> Tensor:
    """Estimate each pixel's share in the score to first order: the sum over channels of x * d f_c / d x.

    Returns:
        (B, H, W), signed, in logits.

    Source: Shrikumar et al. 2016. Differs: x is the pixel value in [0, 1], so that black contributes nothing,
    not the normalised value.
    """
    images = check_images(images)
    return reduced(images * path_gradient(model, images, targets, point(images), batch_size=batch_size), reduction)


@METHODS.register(family="gradient", passes="25 F + 25 B", paper="Smilkov et al. 2017", added=("design",))
def smoothgrad(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    samples: Count = 25,
    sigma: NotNegative = 0.15,
    design: Annotated[str, Names(("independent", "antithetic"))] = "independent",
    reduction: Reduction = "max_abs",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Average the gradient over noisy copies of the image.

    Args:
        samples: noisy copies, one forward and backward pass each; more give a smoother map.
        sigma: standard deviation of the noise as a share of the image's range; 0 gives the gradient.
        design: `independent`, or `antithetic`: copies in pairs with opposite noise. Their errors cancel as far as the gradient
            is linear in the noise.
        seed, indices: fix the noise of each image, whatever batch it is in.

    Returns:
        (B, H, W), not negative.

    Source: Smilkov et al. 2017, section 3 (10-20 % noise).
    """
    path = gaussian_ball(images, samples, sigma, seed, indices, paired=design == "antithetic")
    return reduced(path_gradient(model, images, targets, path, batch_size=batch_size), reduction)


@METHODS.register(family="gradient", passes="25 F + 25 B", paper="Hooker et al. 2019")
def smoothgrad_squared(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    samples: Count = 25,
    sigma: NotNegative = 0.15,
    reduction: Reduction = "max_abs",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Average the squared gradient over noisy copies of the image; options as in smoothgrad.

    Returns:
        (B, H, W), not negative, in squared logits per squared unit of pixel value.

    Source: Hooker et al. 2019, section 4.1.
    """
    path = gaussian_ball(images, samples, sigma, seed, indices)
    return reduced(path_gradient(model, images, targets, path, slope=_squared, batch_size=batch_size), reduction)


def _squared(logits: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    return class_slope(logits, inputs, targets).square()


@METHODS.register(family="gradient", passes="25 F + 25 B", paper="Smilkov et al. 2017, Springenberg et al. 2015")
def guided_smoothgrad(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    samples: Count = 25,
    sigma: NotNegative = 0.15,
    pool_rule: PoolRule = "exact",
    reduction: Reduction = "max_abs",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Average the guided gradient over noisy copies of the image; options as in smoothgrad and guided_backprop.

    Returns:
        (B, H, W), not negative.

    Source: a combination of the compendium, smoothgrad's path under GNL's rule; Smilkov et al. 2017, section 3.4, show a
    similar picture.
    """
    path, rule = gaussian_ball(images, samples, sigma, seed, indices), guided_by(pool_rule)
    return reduced(path_gradient(model, images, targets, path, rule=rule, batch_size=batch_size), reduction)


@METHODS.register(family="gradient", passes="25 F + 25 B per class", paper="combination of the compendium")
def active_smoothgrad(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    samples: Count = 25,
    sigma: NotNegative = 0.15,
    classes: Positive | None = None,
    reduction: Reduction = "max_abs",
    seed: Seed = 0,
    indices: Indices = None,
    batch_size: Positive | None = None,
) -> Tensor:
    """Average the active gradient over noisy copies of the image; options as in smoothgrad and active_gradient.

    Returns:
        (B, H, W), not negative.

    Source: a combination of the compendium, PAG's slopes along smoothgrad's path.
    """
    path, slope = gaussian_ball(images, samples, sigma, seed, indices), partial(active_slope, classes=classes)
    return reduced(path_gradient(model, images, targets, path, slope=slope, batch_size=batch_size), reduction)
