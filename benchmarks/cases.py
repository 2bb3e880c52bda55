"""The table of cases: what runs, compared with what, at which size, and which ratio is required."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import engines, kernels, races, steps, switches
from benchmarks.measure import Race

QUANTITIES = ("speed", "memory", "growth", "efficiency", "engine", "peak", "option", "cost")


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        name: the name on the command line.
        quantity: what the ratio is of: `speed` (the peer's seconds over ours), `memory` (the peer's peak over ours),
            `growth` (the peak for four times the work over ours), `efficiency` (seconds of the network's own passes over the
            kernel's), `engine` (seconds of the network as it is over the engine's), `peak` (seconds of matrix products with as
            many operations over the kernel's), `option` (seconds without the option over with it), `cost` (seconds of a
            standard training step over one with the objective).
        setting: the network and the size, in words.
        peer: what ours is compared with.
        build: the function that builds the race.
        size, tiny: its options, for the measurement and for a quick test.
        at_least, aim: the ratio that is required and the ratio that is desired.
    """

    name: str
    quantity: str
    setting: str
    peer: str
    build: Callable[..., Race]
    size: dict
    tiny: dict
    at_least: float | None = None
    aim: float | None = None

    def race(self, tiny: bool = False) -> Race:
        """Build both sides, ready to run."""
        return self.build(**(self.tiny if tiny else self.size))

    def met(self, ratio: float, ceiling: float | None = None) -> str:
        """Return `yes` or `no`, `above the ceiling` if the network's own passes forbid what is required, or nothing."""
        if self.at_least is None:
            return ""
        if ratio >= self.at_least:
            return "yes"
        return "above the ceiling" if ceiling is not None and ceiling < self.at_least else "no"


Build = Callable[..., Race]


def _speed(
    name: str,
    setting: str,
    peer: str,
    build: Build,
    size: dict,
    tiny: dict,
    at_least: float | None = None,
    aim: float | None = None,
) -> Case:
    return Case(name, "speed", setting, peer, build, size, tiny, at_least, aim)


def _efficiency(name: str, setting: str, build: Build, size: dict, tiny: dict, at_least: float | None = None) -> Case:
    setting = f"ResNet-18, 224 px: {setting}"
    return Case(f"efficiency_{name}", "efficiency", setting, "the bare passes", build, size, tiny, at_least)


def _option(name: str, without: str, build: Build, method: str, passes: int) -> Case:
    setting = f"EfficientNet-Lite0, 224 px: {method}, 4 images, {passes} {switches.PASSES_OPTION[method]}"
    options = {"model": "efficientnet_lite0", "method": method, "images": 4, "passes": passes}
    tiny = {"model": "cnn", "method": method, "images": 1, "passes": 4}
    return Case(f"{name}_{method}", "option", setting, without, build, options, tiny)


def _engines(model: str, at_least: float, aim: float) -> list[Case]:
    """Return the cases of the engines on one network: forward-only kernels, and gradients of the folded network."""
    words = {"efficientnet_lite0": "EfficientNet-Lite0", "resnet18": "ResNet-18"}[model]
    cases = []
    for name, (setting, size, tiny) in FORWARD.items():
        for engine in ("openvino", "compiled", "folded") if name in ("deletion", "rise") else ("openvino",):
            wanted = (at_least, aim) if engine == "openvino" else (None, None)
            options, small = ({"engine": engine, "model": m, "name": name} | o for m, o in ((model, size), ("cnn", tiny)))
            label, words_ = f"{engine}_{name}_{model}", f"{words}, 224 px: {name}, {setting}"
            cases.append(Case(label, "engine", words_, "eager", engines.kernel, options, small, *wanted))
    for name, options in BACKWARD.items():
        size, tiny = ({"engine": "folded", "model": m, "name": name, "side": d, "low": 0.99} | options
                      for m, d in ((model, 224), ("cnn", 32)))  # fmt: skip
        cases.append(Case(f"folded_{name}_{model}", "engine", f"{words}, 224 px: {name}", "eager", engines.kernel, size, tiny))
    return cases


def _peak(name: str) -> Case:
    setting, size, tiny = FORWARD[name]
    size, tiny = ({"engine": "openvino", "model": m, "square": rows, "name": name} | options
                  for m, rows, options in (("resnet18", 1024, size), ("cnn", 64, tiny)))  # fmt: skip
    return Case(f"peak_{name}", "peak", f"ResNet-18, 224 px, OpenVINO: {name}, {setting}", "matrix products", engines.peak,
                size, tiny, 0.6, 0.85)  # fmt: skip


def _growth(name: str, work: str, amount: int, tiny: int) -> Case:
    size, small = ({"name": name, "side": side, "work": work, "amount": n} for side, n in ((224, amount), (64, tiny)))
    return Case(f"growth_{name}", "growth", f"ResNet-18, 224 px: {name}, {amount} {work}", f"{4 * amount} {work}",
                engines.growth, size, small)  # fmt: skip


def _steps(objective: str, setting: str, size: dict, tiny: dict) -> list[Case]:
    """Return the cases of an objective's training step: against the released procedure and against a standard step."""
    size, tiny = ({"objective": objective} | options for options in (size, tiny))
    setting = f"a training step, {setting}"
    return [
        _speed(f"step_{objective}", setting, "the released procedure", steps.released, size, tiny, 1.0),
        Case(f"cost_{objective}", "cost", setting, "a standard step", steps.standard, size, tiny),
    ]


PAG, RISE, TORCHCAM, CAPTUM = "PAG's procedure", "RISE's procedure", "torchcam 0.5.0", "captum 0.9.0"
LIME, SIDU, QUANTUS = "lime 0.2.0.1", "pytorch_sidu 1.1.3", "Quantus 0.6.0"
SMALL = {"model": "cnn", "side": 32}
CURVES = {"model": "cnn", "side": 56, "maps": 6, "steps": 224}
LARGE_CURVES = {"model": "resnet18", "side": 224, "maps": 2, "steps": 28}
TINY_CURVES = {"model": "cnn", "side": 32, "maps": 2, "steps": 8}
CURVES_WORDS = "cnn, 56 px: 6 maps of one image, 225 points"
LARGE_CURVES_WORDS = "ResNet-18, 224 px: 2 maps of one image, 29 points"
RISE_500 = {"model": "resnet18", "side": 224, "masks": 500}
RISE_TINY = SMALL | {"masks": 20}
TEXTS_WORDS = "text_cnn, 32 texts of 5 to 500 words"
NARROW = {"batch": 32, "width": 32}
OPENVINO = {"engine": "openvino"}
OCCLUSION = {"side": 224, "window": 56, "stride": 28}
OCCLUSION_TINY = {"side": 64, "window": 32, "stride": 16}

FORWARD = {  # kernels that need forward passes alone: their words, their options, and those of a quick test
    "deletion": ("2 maps, 29 points", {"side": 224, "maps": 2, "steps": 28}, {"side": 32, "maps": 1, "steps": 4}),
    "insertion": ("2 maps, 29 points", {"side": 224, "maps": 2, "steps": 28}, {"side": 32, "maps": 1, "steps": 4}),
    "rise": ("60 masks", {"side": 224, "masks": 60}, {"side": 32, "masks": 8}),
    # an untrained network hardly sees a window, so roundings would decide the order of its map
    "occlusion": ("49 windows", OCCLUSION, {"model": "efficientnet_lite0"} | OCCLUSION_TINY),
}
BACKWARD = {  # kernels that need gradients, with cheap options
    "gradient": {},
    "smoothgrad": {"samples": 10},
    "integrated_gradients": {"steps": 10},
    "active_gradient": {"classes": 4},
}

_ALL = [
    _speed("gradcam", "ResNet-18, 224 px: 8 images", "grad-cam 1.5.7", races.gradcam,
           {"side": 224, "images": 8}, {"side": 64, "images": 2}, 3.0, 3.5),
    _speed("gradcam_folded", "ResNet-18, 224 px: 8 images, BatchNorm folded", "grad-cam 1.5.7", races.gradcam,
           {"side": 224, "images": 8, "engine": "folded"}, {"side": 64, "images": 2, "engine": "folded"}, 3.3, 4.0),
    _speed("five_maps", "ResNet-18, 224 px: 1 image, 10 classes", PAG, races.five_maps,
           {"model": "resnet18", "side": 224, "images": 1}, SMALL | {"images": 2}, 7.0, 9.0),
    _speed("five_maps_small", "cnn, 32 px: 8 images, 10 classes", PAG, races.five_maps,
           SMALL | {"images": 8}, SMALL | {"images": 1}, 7.0, 9.0),
    _speed("rise_masks", "224 px: 2,000 masks", f"{RISE} (scikit-image)", races.rise_masks,
           {"side": 224, "masks": 2000}, {"side": 32, "masks": 20}, 20.0, 40.0),
    _speed("rise_map", "ResNet-18, 224 px: 500 masks", RISE, races.rise_map, RISE_500, RISE_TINY, 1.3, 1.5),
    _speed("rise_map_small", "cnn, 32 px: 500 masks", RISE, races.rise_map, SMALL | {"masks": 500}, RISE_TINY, 1.3, 1.5),
    Case("rise_map_memory", "memory", "ResNet-18, 224 px: 500 masks, ours 5 a pass", RISE, races.rise_map,
         RISE_500, RISE_TINY, 20.0, 50.0),
    Case("rise_map_memory_small", "memory", "ResNet-18, 224 px: 500 masks, ours 2 a pass", RISE, races.rise_map,
         RISE_500 | {"batch_size": 2}, RISE_TINY | {"batch_size": 2}, 20.0, 50.0),
    _speed("deletion_rise", LARGE_CURVES_WORDS, RISE, races.deletion_rise, LARGE_CURVES, TINY_CURVES, 2.5, 3.0),
    _speed("deletion_rise_openvino", f"{LARGE_CURVES_WORDS}, OpenVINO", RISE, races.deletion_rise,
           LARGE_CURVES | OPENVINO, TINY_CURVES | OPENVINO, 2.2, 3.0),
    _speed("deletion_rise_small", CURVES_WORDS, RISE, races.deletion_rise, CURVES, TINY_CURVES, 2.5, 3.0),
    _speed("deletion_torchcam", LARGE_CURVES_WORDS, TORCHCAM, races.deletion_torchcam, LARGE_CURVES, TINY_CURVES, 1.3, 1.5),
    _speed("deletion_torchcam_openvino", f"{LARGE_CURVES_WORDS}, OpenVINO", TORCHCAM, races.deletion_torchcam,
           LARGE_CURVES | OPENVINO, TINY_CURVES | OPENVINO, 1.8, 2.2),
    _speed("deletion_torchcam_small", CURVES_WORDS, TORCHCAM, races.deletion_torchcam, CURVES, TINY_CURVES, 1.3, 1.5),
    _speed("pixel_flipping", "ResNet-18, 192 px: 2 images, 24 steps", QUANTUS, races.pixel_flipping,
           {"model": "resnet18", "side": 192, "images": 2, "steps": 24}, SMALL | {"side": 24, "images": 2, "steps": 6}, 4.0, 6.0),
    _speed("pixel_flipping_openvino", "ResNet-18, 192 px: 2 images, 24 steps, OpenVINO", QUANTUS, races.pixel_flipping,
           {"model": "resnet18", "side": 192, "images": 2, "steps": 24} | OPENVINO,
           SMALL | {"side": 24, "images": 2, "steps": 6} | OPENVINO, 1.7, 2.0),
    _speed("pixel_flipping_small", "ResNet-18, 48 px: 1 image, 48 steps", QUANTUS, races.pixel_flipping,
           {"model": "resnet18", "side": 48, "images": 1, "steps": 48}, SMALL | {"side": 24, "images": 2, "steps": 6}, 4.0, 6.0),
    _speed("lime", "ResNet-18, 224 px: 100 samples, 16 segments", LIME, races.lime,
           {"model": "resnet18", "side": 224, "samples": 100, "segments": 4}, SMALL | {"samples": 100, "segments": 2}, 4.0, 6.0),
    _speed("lime_openvino", "ResNet-18, 224 px: 1,000 samples, 49 segments, OpenVINO", LIME, races.lime,
           {"model": "resnet18", "side": 224, "samples": 1000, "segments": 7} | OPENVINO,
           SMALL | {"samples": 100, "segments": 2} | OPENVINO, 1.2, 1.9),
    _speed("lime_small", "cnn, 28 px: 1,000 samples, 196 segments", LIME, races.lime,
           {"model": "cnn", "side": 28, "samples": 1000, "segments": 14}, SMALL | {"samples": 100, "segments": 2}, 4.0, 6.0),
    _speed("sidu", "ResNet-18, 224 px: 128 masks of layer2", SIDU, races.sidu,
           {"side": 224, "layer": "layer2"}, {"side": 64, "layer": "layer1"}, 2.0, 3.0),
    _speed("sidu_small", "ResNet-18, 112 px: 512 masks of layer4", SIDU, races.sidu,
           {"side": 112, "layer": "layer4"}, {"side": 64, "layer": "layer1"}, 2.0, 3.0),
    _speed("integrated_gradients", "ResNet-18, 224 px: 50 steps", f"{CAPTUM}, its defaults", races.integrated_gradients,
           {"side": 224, "steps": 50, "batch": None}, {"side": 64, "steps": 3, "batch": None}, 1.1),
    _speed("integrated_gradients_batch", "ResNet-18, 224 px: 50 steps", f"{CAPTUM}, 8 a pass", races.integrated_gradients,
           {"side": 224, "steps": 50, "batch": 8}, {"side": 64, "steps": 3, "batch": 2}, 1.1),
    _speed("occlusion", "ResNet-18, 224 px: 49 windows", f"{CAPTUM}, its defaults", races.occlusion,
           OCCLUSION | {"batch": 1}, OCCLUSION_TINY | {"batch": 1}, 1.2),
    _speed("occlusion_batch", "ResNet-18, 224 px: 49 windows", f"{CAPTUM}, 8 a pass", races.occlusion,
           OCCLUSION | {"batch": 8}, OCCLUSION_TINY | {"batch": 8}, 1.2),
    _efficiency("gradient", "8 images", kernels.method,
                {"name": "gradient", "side": 224, "passes": 1, "images": 8, "backward": True},
                {"name": "gradient", "side": 32, "passes": 1, "images": 2, "backward": True}),
    _efficiency("smoothgrad", "24 samples", kernels.method,
                {"name": "smoothgrad", "side": 224, "passes": 24, "backward": True, "samples": 24},
                {"name": "smoothgrad", "side": 32, "passes": 2, "backward": True, "samples": 2}),
    _efficiency("integrated_gradients", "24 steps", kernels.method,
                {"name": "integrated_gradients", "side": 224, "passes": 24, "backward": True, "steps": 24},
                {"name": "integrated_gradients", "side": 32, "passes": 2, "backward": True, "steps": 2}, 0.9),
    _efficiency("gradcam", "8 images", kernels.method,
                {"name": "gradcam", "side": 224, "passes": 1, "images": 8, "layer": "layer4"},
                {"name": "gradcam", "side": 64, "passes": 1, "images": 2, "layer": "layer4"}),
    _efficiency("rise", "48 masks", kernels.method,
                {"name": "rise", "side": 224, "passes": 48, "masks": 48},
                {"name": "rise", "side": 32, "passes": 2, "masks": 2}, 0.9),
    _efficiency("occlusion", "49 windows", kernels.method,
                {"name": "occlusion", "side": 224, "passes": 50, "window": 56, "stride": 28},
                {"name": "occlusion", "side": 32, "passes": 10, "window": 16, "stride": 8}, 0.9),
    _efficiency("sidu", "masks of layer2", kernels.sidu, {"side": 224, "layer": "layer2"}, {"side": 64, "layer": "layer1"}),
    _efficiency("lime", "48 samples, 49 segments", kernels.lime, {"side": 224, "samples": 48, "segments": 7},
                {"side": 32, "samples": 4, "segments": 2}),
    _efficiency("deletion", "2 maps, 29 points", kernels.curve, {"name": "deletion", "side": 224, "maps": 2, "steps": 28},
                {"name": "deletion", "side": 32, "maps": 2, "steps": 2}, 0.9),
    _efficiency("insertion", "2 maps, 29 points", kernels.curve, {"name": "insertion", "side": 224, "maps": 2, "steps": 28},
                {"name": "insertion", "side": 32, "maps": 2, "steps": 2}),
    *_steps("saliency_guided", "sgt_cnn, 128 digits", {"batch": 128}, {"batch": 4}),
    _speed("step_texts", f"a training step, {TEXTS_WORDS}", "our definition, text by text", steps.texts,
           {"batch": 32, "words": 500}, {"batch": 3, "words": 9}, 1.0),
    Case("efficiency_step_texts", "efficiency", f"a training step, {TEXTS_WORDS}", "the bare passes", steps.texts,
         {"batch": 32, "words": 500, "bare": True}, {"batch": 3, "words": 9, "bare": True}),
    *[
        case
        for objective in ("score_matching", "anti_score_matching", "gradient_norm")
        for case in _steps(objective, "cifar_resnet9 of width 32, 32 images of 32 px", NARROW, {"batch": 4, "width": 4})
    ],
    *[
        _option(name, without, build, method, passes)
        for name, without, build in (
            ("bfloat16", "float32", switches.bfloat16),
            ("channels_last", "channels first", switches.channels_last),
        )
        for method, passes in (("rise", 24), ("integrated_gradients", 10))
    ],
    *_engines("efficientnet_lite0", 1.5, 1.9),
    *_engines("resnet18", 1.2, 1.3),
    Case("compiled_step", "engine", "a training step of cross-entropy, cifar_resnet9 of width 32, 32 images of 32 px", "eager",
         engines.training_step, {"model": "cifar_resnet9", "width": 32, "batch": 32},
         {"model": "cifar_resnet9", "width": 2, "batch": 4}),
    *[_peak(name) for name in FORWARD],
    _growth("rise", "masks", 50, 8),
    _growth("deletion", "steps", 28, 8),
    _growth("integrated_gradients", "steps", 12, 4),
    _growth("gradcam", "images", 3, 1),
    _speed("rise_equal_quality", "EfficientNet-Lite0, 224 px: 350 masks with control variates, OpenVINO", f"{RISE}, 2,000 masks",
           engines.rise_at_equal_quality,
           {"model": "efficientnet_lite0", "side": 224, "masks": 2000, "fewer": 350, "engine": "openvino", "low": 0.3},
           SMALL | {"masks": 40, "fewer": 30, "engine": "openvino", "low": -1.0}, 10.0, 20.0),
    _speed("integrated_gradients_complete", "EfficientNet-Lite0, 224 px: 6 photographs, completeness error 1 %",
           f"{CAPTUM}, the nodes that it needs", races.completeness,
           {"model": "efficientnet_lite0", "side": 224, "images": 6, "tolerance": 0.01},
           SMALL | {"images": 1, "tolerance": 0.1}, 1.5, 3.0),
]  # fmt: skip
CASES = {case.name: case for case in _ALL}
