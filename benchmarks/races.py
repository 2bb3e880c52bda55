"""Races between the engines and packages or procedures with the same result; each function builds one of a given size."""

import contextlib
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

import saliency_lib as sl
from benchmarks import procedures
from benchmarks.measure import Disagreement, Race, difference, rank_correlation
from benchmarks.scenes import bare_passes, drawn_masks, network, optimised, photographs, trained
from saliency_lib.attribution.layers import features_at
from saliency_lib.attribution.rise import random_grids, unit_range
from saliency_lib.attribution.sidu import feature_masks
from saliency_lib.core.batching import arranged, chunk_size, frozen

LAYER = "layer4"
NODES = [round(50 * 2 ** (k / 2)) for k in range(13)]  # 50, 71, 100, ..., 3200, of a path of captum


def gradcam(side: int, images: int, engine: str | None = None) -> Race:
    """Build the race of Grad-CAM at ResNet-18's last block against grad-cam, whose maps are scaled to [0, 1].

    Args:
        engine: of our side, see `sl.optimise`; also below.
    """
    from pytorch_grad_cam import GradCAM

    model, pixels = network("resnet18", side), photographs(images, side)
    fast = optimised(model, pixels, engine)

    def peer() -> Tensor:
        with GradCAM(model=model, target_layers=[model.get_submodule(LAYER)]) as cam:
            return torch.from_numpy(cam(pixels, targets=None)).to(pixels)

    return Race(
        lambda: unit_range(sl.METHODS["gradcam"](fast, pixels, layer=LAYER)),
        peer,
        difference(1e-4),
        bare_passes(fast, pixels, images),
    )


def five_maps(model: str, side: int, images: int) -> Race:
    """Build the race of PAG's five maps with 10 classes against the paper's procedure."""
    network_, pixels = network(model, side), photographs(images, side)

    def passes() -> Tensor:
        with frozen(network_):
            inputs = arranged(pixels.clone()).requires_grad_()
            scores = network_(inputs).sum(0)
            return torch.stack([torch.autograd.grad(score, inputs, retain_graph=True)[0] for score in scores])

    return Race(
        lambda: torch.stack(list(sl.gradient_maps(network_, pixels).values())),
        lambda: procedures.five_maps(network_, pixels, 10),
        difference(1e-4),
        passes,
    )


def rise_masks(side: int, masks: int) -> Race:
    """Build the race of RISE's masks alone against the procedure with scikit-image; one mask in a hundred is compared.

    Ours are made in the kernel's batches and freed, as in the kernel; the procedure keeps all of them.
    """
    pixels, drawn = photographs(1, side), drawn_masks(masks, side)
    batches = torch.arange(masks, device=pixels.device).split(chunk_size(pixels, None))

    def ours() -> Tensor:
        made = random_grids(pixels, masks, 8, 0.5)
        return torch.cat([made.at(numbers[:1], numbers)[0][numbers % 100 == 0] for numbers in batches])

    return Race(ours, lambda: procedures.rise_masks(*drawn, side)[::100].to(pixels), difference(1e-5))


def rise_map(model: str, side: int, masks: int, batch_size: int | None = None) -> Race:
    """Build the race of a RISE map against the procedure that holds all masks and all masked images.

    Args:
        batch_size: of our side; None chooses.
    """
    network_, pixels, drawn = network(model, side), photographs(1, side), drawn_masks(masks, side)
    with torch.no_grad():
        target = network_(pixels).argmax(1)
    return Race(
        lambda: sl.METHODS["rise"](network_, pixels, target, masks=masks, batch_size=batch_size),
        lambda: procedures.rise_map(network_, pixels, procedures.rise_masks(*drawn, side), 0.5)[target],
        difference(1e-4),
        bare_passes(network_, pixels, masks),
    )


def _curves(model: str, side: int, maps: int, steps: int, insertion_fill: str, engine: str | None) -> tuple:
    """Return a network, one image, maps of it without ties, a function that computes our curves, and the network's own passes."""
    network_, pixels = network(model, side), photographs(1, side)
    ranking = torch.rand(maps, side, side, generator=torch.Generator().manual_seed(1)).to(pixels)
    fast = optimised(network_, pixels, engine)

    def ours() -> list[sl.Curve]:
        same = pixels.expand(maps, -1, -1, -1)
        fills = {"deletion": "black", "insertion": insertion_fill}
        return [sl.METRICS[name](fast, same, ranking, steps=steps, fill=fill) for name, fill in fills.items()]

    # the ends of the curves are the same for all maps, so only their inner points need passes of their own
    return network_, pixels, ranking, ours, bare_passes(fast, pixels, 2 * maps * (steps - 1) + 2)


def deletion_rise(model: str, side: int, maps: int, steps: int, engine: str | None = None) -> Race:
    """Build the race of deletion and insertion of several maps of one image against RISE's released procedure."""
    network_, pixels, ranking, ours, passes = _curves(model, side, maps, steps, "blur", engine)

    def peer() -> Tensor:
        curve = partial(procedures.rise_curve, network_, pixels, stride=-(-(side**2) // steps))
        arrays = ranking.cpu().numpy()
        return torch.stack([torch.stack([curve(one, inserting=inserting) for one in arrays]) for inserting in (False, True)])

    return Race(lambda: torch.stack([curve.values.double().cpu() for curve in ours()]), peer, difference(1e-4), passes)


def deletion_torchcam(model: str, side: int, maps: int, steps: int, engine: str | None = None) -> Race:
    """Build the race of deletion and insertion of several maps of one image against torchcam's metric of the same maps."""
    from torchcam.metrics import DeletionInsertionMetric

    network_, pixels, ranking, ours, passes = _curves(model, side, maps, steps, "black", engine)

    class Given:
        """The interface that the metric expects of an extractor."""

        model = network_

        def __call__(self, class_idx: object = None, scores: object = None, **options: object) -> list[Tensor]:
            return [ranking]

        def fuse_cams(self, cams: list[Tensor]) -> Tensor:
            return cams[0]

        def _hooks_off(self) -> contextlib.AbstractContextManager:
            return torch.no_grad()

    def peer() -> Tensor:
        metric = DeletionInsertionMetric(Given(), lambda logits: logits.softmax(-1), steps=steps)
        metric.update(pixels.expand(maps, -1, -1, -1))
        return torch.tensor([metric.summary()[f"{name}_auc"] for name in ("deletion", "insertion")])

    return Race(lambda: torch.stack([curve.area.mean().cpu() for curve in ours()]), peer, difference(1e-4), passes)


def pixel_flipping(model: str, side: int, images: int, steps: int, engine: str | None = None) -> Race:
    """Build the race of the deletion curve over black with given targets against Quantus's pixel flipping."""
    import quantus

    network_, pixels = network(model, side), photographs(images, side)
    ranking = torch.rand(images, side, side, generator=torch.Generator().manual_seed(1)).to(pixels)
    targets = torch.arange(images, device=pixels.device) % 10
    fast = optimised(network_, pixels, engine)
    flipped = quantus.PixelFlipping(
        features_in_step=pixels.shape[1] * side**2 // steps,
        perturb_baseline=0.0,
        normalise=False,
        abs=False,
        disable_warnings=True,
    )
    batch = {"x_batch": pixels.cpu().numpy(), "y_batch": targets.cpu().numpy(), "a_batch": ranking.cpu().numpy()[:, None]}

    def peer() -> Tensor:
        return torch.tensor(np.array(flipped(model=network_, softmax=True, device=str(pixels.device), **batch)))

    def ours() -> Tensor:
        curve = sl.METRICS["deletion"](fast, pixels, ranking, targets, steps=steps, fill="black")
        return curve.values[:, 1:].double().cpu()  # Quantus does not score the whole image

    return Race(ours, peer, difference(1e-4), bare_passes(fast, pixels, images * steps))


def lime(model: str, side: int, samples: int, segments: int, engine: str | None = None) -> Race:
    """Build the race of LIME's weights of square segments against the package lime; each draws its own samples.

    Args:
        segments: number of segments along each side.
    """
    from lime import lime_image

    network_, pixels = network(model, side), photographs(1, side)
    place = torch.arange(side, device=pixels.device) * segments // side
    regions = place[:, None] * segments + place
    fast = optimised(network_, pixels, engine)
    picture, grid = pixels[0].permute(1, 2, 0).cpu().numpy(), regions.cpu().numpy()
    with torch.no_grad():
        target = int(network_(pixels).argmax(1))
    lime_image.tqdm = lambda rows: rows  # its progress bar, which no option switches off

    def classify(copies: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network_(torch.as_tensor(copies).permute(0, 3, 1, 2).to(pixels)).softmax(1).cpu().numpy()

    def peer() -> Tensor:
        explainer = lime_image.LimeImageExplainer(random_state=0)
        options = {"labels": (target,), "top_labels": None, "num_samples": samples, "segmentation_fn": lambda picture: grid}
        found = dict(explainer.explain_instance(picture, classify, **options).local_exp[target])
        weights = torch.tensor([found[part] for part in range(segments**2)])
        return weights[regions.cpu()][None].to(pixels)

    return Race(
        lambda: sl.METHODS["lime"](fast, pixels, target, samples=samples, segments=regions[None]),
        peer,
        rank_correlation(0.5),
        bare_passes(fast, pixels, samples),
    )


def sidu(side: int, layer: str) -> Race:
    """Build the race of SIDU's variant `pytorch_sidu` (one mask per channel) against that package."""
    import pytorch_sidu
    from torchvision.models.feature_extraction import create_feature_extractor

    model, pixels = network("resnet18", side), photographs(1, side)
    _, features, _, _ = features_at(model, model.get_submodule(layer), pixels, None)
    masks, _ = feature_masks(features[0], pixels, 0.15)
    to_the_layer = create_feature_extractor(model, [layer])  # later layers are not used
    return Race(
        lambda: sl.METHODS["sidu"](model, pixels, layer=layer, variant="pytorch_sidu"),
        lambda: pytorch_sidu.sidu(model, layer, pixels, pixels.device),
        difference(1e-3),
        bare_passes(to_the_layer, pixels, masks.count + 1),
    )


def integrated_gradients(side: int, steps: int, batch: int | None) -> Race:
    """Build the race of integrated gradients from black against captum's; batch None is its default, all steps at once."""
    from captum.attr import IntegratedGradients

    model, pixels = network("resnet18", side), photographs(1, side)
    target, explainer = _predicted(model, pixels), IntegratedGradients(model)
    return Race(
        lambda: sl.METHODS["integrated_gradients"](model, pixels, target, steps=steps, baseline="black"),
        lambda: explainer.attribute(pixels, target=target, n_steps=steps, internal_batch_size=batch).sum(1).float(),
        difference(2e-2),  # a ReLU magnifies rounding; in double precision they agree to 1e-7
        bare_passes(model, pixels, steps, backward=True),
    )


def completeness(model: str, side: int, images: int, tolerance: float) -> Race:
    """Build the race of integrated gradients that end at an error of completeness against captum's with the nodes it needs.

    captum's nodes are, for each image, the first of `NODES` with which its error is at most the tolerance, by luck or not.

    Args:
        tolerance: the error relative to the change of the score.

    Raises:
        Disagreement: one of the two does not reach the tolerance.
    """
    from captum.attr import IntegratedGradients

    network_, pixels = trained(model, side), photographs(images, side)
    targets, explainer, size = _predicted(network_, pixels), IntegratedGradients(network_), chunk_size(pixels, None)
    black = torch.zeros_like(pixels)
    with torch.no_grad():
        ends = [network_(inputs).gather(1, targets[:, None])[:, 0] for inputs in (pixels, black)]

    def theirs(row: int, nodes: int) -> Tensor:
        one = slice(row, row + 1)
        found = explainer.attribute(
            pixels[one], black[one], target=targets[one], n_steps=nodes, internal_batch_size=size, method="gausslegendre"
        )
        return found.sum(1).float()

    def enough(row: int) -> int:
        change = ends[0][row] - ends[1][row]
        for nodes in NODES:
            if abs(theirs(row, nodes).sum() - change) <= tolerance * abs(change):
                return nodes
        raise Disagreement(
            f"captum's completeness error of image {row} is above {tolerance:g} with {NODES[-1]} nodes; use a larger tolerance"
        )

    options = {"baseline": "black", "tolerance": tolerance, "steps": 2000}
    taken = sl.estimate("integrated_gradients", network_, pixels, targets, **options)
    if (taken.error > tolerance).any():
        raise Disagreement(f"our completeness error is {taken.error.max():.2g}, above {tolerance:g}; use a larger tolerance")
    needed = [enough(row) for row in range(images)]
    return Race(
        lambda: sl.METHODS["integrated_gradients"](network_, pixels, targets, **options),
        lambda: torch.cat([theirs(row, nodes) for row, nodes in enumerate(needed)]),
        rank_correlation(0.9),
        bare_passes(network_, pixels, int(taken.passes.sum()), backward=True),
    )


def occlusion(side: int, window: int, stride: int, batch: int) -> Race:
    """Build the race of occlusion of the logit by black windows against captum's; its default is one window per pass."""
    from captum.attr import Occlusion

    model, pixels = network("resnet18", side), photographs(1, side)
    target, explainer = _predicted(model, pixels), Occlusion(model)
    channels = pixels.shape[1]
    options = {"sliding_window_shapes": (channels, window, window), "strides": (channels, stride, stride)}
    windows = (-(-(side - window) // stride) + 1) ** 2

    def peer() -> Tensor:
        with torch.no_grad():
            return explainer.attribute(pixels, target=target, perturbations_per_eval=batch, **options)[:, 0]

    return Race(
        lambda: sl.METHODS["occlusion"](model, pixels, target, window=window, stride=stride, fill="black", score="logit"),
        peer,
        difference(1e-3),
        bare_passes(model, pixels, windows + 1),
    )


def _predicted(model: nn.Module, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return model(pixels).argmax(1)
