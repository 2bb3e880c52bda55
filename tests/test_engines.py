"""Engines: the same logits, maps and scores for any number of images, and a clear word where one cannot be used."""

import copy
import dataclasses
import functools
import shutil
import socket
import sys

import pytest
import torch
import torchvision
from conftest import context, quick
from torch import nn
from torch.nn.utils import parametrizations

import saliency_lib as sl
from saliency_lib.artefacts import pipeline
from saliency_lib.networks import engines
from saliency_lib.networks.folding import NORMS

pytest.importorskip("openvino")

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
COMPILED = pytest.param("compiled", marks=[pytest.mark.slow, needs_compiler])  # takes seconds to compile
ENGINES = ["folded", "openvino", COMPILED]
FORWARD_ONLY = [name for name, entry in sl.METHODS.items() if entry.forward_only]
FOLLOWING = [name for name in sl.METRICS if "explain" not in sl.METRICS.options(name)]


def settled(model):
    """The model in evaluation mode, with statistics and scales that no BatchNorm begins with."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, NORMS):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            if module.affine:
                module.weight.data.uniform_(-1.5, 1.5, generator=generator)
                module.bias.data.normal_(0, 0.3, generator=generator)
    return model.eval()


@functools.cache
def network():
    """A network with what engines change: BatchNorm, in-place units, a branch, pooling, dropout."""
    torch.manual_seed(3)
    return settled(sl.MODELS["cifar_resnet9"](10, 3, activation="relu", width=4))


@functools.cache
def pictures():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@functools.cache
def optimised(engine):
    return sl.optimise(network(), pictures(), engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [1, 2, 3, 64, 513])  # fewer and more than one pass has
def test_any_number_of_images_has_the_logits_of_the_original(engine, count):
    images = torch.rand(count, 3, 16, 16)
    with torch.no_grad():
        expected, logits = network()(images), optimised(engine)(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("method", FORWARD_ONLY)
def test_a_map_by_forward_passes_is_that_of_the_original(engine, method):
    maps = [sl.METHODS[method](model, pictures(), 3, **quick(method)) for model in (network(), optimised(engine))]
    assert sl.rank_correlation(*maps).min() >= 0.999
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("variant", ["original", "pytorch_sidu"])
def test_sidu_reads_a_layer_that_is_asked_for_behind_an_engine(variant):
    options = {"layer": "stem.0", "variant": variant}
    fast, seen = optimised("openvino"), []
    handle = fast.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    maps = [sl.METHODS["sidu"](model, pictures(), 3, **options) for model in (network(), fast)]
    handle.remove()
    assert (sum(seen) > 2 * len(pictures())) is (variant == "original")  # the other reads the layer in every pass
    assert not torch.equal(maps[0], sl.METHODS["sidu"](network(), pictures(), 3, variant=variant))
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("metric", FOLLOWING)
def test_a_score_is_that_of_the_original(engine, metric):
    images, maps = pictures(), pictures().mean(1)
    curves = [sl.METRICS[metric](m, images, maps, None, **context(metric, images)) for m in (network(), optimised(engine))]
    for quantity in ("area", "values"):
        torch.testing.assert_close(*(getattr(curve, quantity) for curve in curves), rtol=1e-3, atol=0.002, equal_nan=True)


def test_methods_that_need_gradients_are_refused_by_an_engine():
    assert set(FORWARD_ONLY) == {"rise", "sidu", "sidu_grids", "lime", "occlusion", "kernel_shap", "score_cam"}
    for name in set(sl.METHODS) - {*FORWARD_ONLY, "random", "edges"}:
        with pytest.raises(
            ValueError, match=r"engine 'openvino' computes no gradients and shows no layers|a model that an engine runs"
        ):
            sl.METHODS[name](optimised("openvino"), pictures(), 3, **quick(name))


@pytest.mark.parametrize("method", [name for name, entry in sl.METHODS.items() if entry.family != "control"])
def test_a_folded_network_has_the_maps_of_the_original(method):
    model, images = copy.deepcopy(network()).double(), pictures().double()
    maps = [sl.METHODS[method](one, images, 3, **quick(method)) for one in (model, sl.optimise(model, images))]
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-5, atol=1e-7 * float(maps[0].abs().max()))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "vgg11_bn"])
def test_the_layer_of_an_activation_map_is_the_same_in_a_folded_network(name):
    torch.manual_seed(1)
    model, images = settled(torchvision.models.get_model(name, num_classes=7)), torch.rand(1, 3, 64, 64)
    layers = [{id(part): label for label, part in one.named_modules()}[id(sl.find_layer(one, None, images))]
              for one in (model, sl.optimise(model, images))]  # fmt: skip
    assert layers[0] == layers[1]


def test_a_folded_network_keeps_the_names_of_its_layers():
    maps = [sl.METHODS["gradcam"](one, pictures(), 3, layer="layer1") for one in (network(), optimised("folded"))]
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-3, atol=1e-4 * float(maps[0].abs().max()))


# Folding


class Several(nn.Module):
    """What must not be folded, and what may."""

    def __init__(self):
        super().__init__()
        self.read_twice, self.a = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.runs_twice, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.watched, self.c = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.derived, self.d = parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4)
        self.transposed, self.e = nn.ConvTranspose2d(4, 4, 2), nn.BatchNorm2d(4)
        self.plain, self.f = nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6, affine=False)
        self.g = self.f_again = self.f
        self.dense, self.h = nn.Linear(6, 5), nn.BatchNorm1d(5)
        self.watched.register_forward_hook(lambda module, inputs, output: output * 2)

    def forward(self, images):
        x = self.read_twice(images)
        x = self.a(x) + x.detach().relu() + x
        x = self.b(self.runs_twice(self.runs_twice(x).relu()))
        x = self.d(self.derived(self.c(self.watched(x)).relu()))
        x = self.e(self.transposed(x)).relu()
        return self.h(self.dense(self.f(self.plain(x)).relu().mean((2, 3))))


def test_only_what_a_batchnorm_alone_reads_is_folded():
    torch.manual_seed(1)
    model = settled(Several())
    copy = sl.optimise(model, pictures())
    left = [name for name, module in copy.named_modules() if isinstance(module, NORMS)]
    assert left == ["a", "b", "c", "d", "e"]
    assert isinstance(copy.f_again, nn.Identity)
    torch.testing.assert_close(copy(pictures()), model(pictures()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "norms", "left"),
    [
        ("resnet18", {}, 20, 0),
        ("mobilenet_v2", {}, 52, 0),
        ("densenet121", {}, 121, 62),
        ("googlenet", {"aux_logits": False, "init_weights": False}, 57, 0),
    ],
)
def test_networks_are_folded_as_far_as_their_order_allows(name, options, norms, left):
    torch.manual_seed(1)
    model = settled(torchvision.models.get_model(name, num_classes=7, **options)).double()
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    result = sl.optimise(model, images)
    assert [sum(isinstance(m, NORMS) for m in one.modules()) for one in (model, result)] == [norms, left]
    with torch.no_grad():
        torch.testing.assert_close(result(images), model(images), rtol=1e-6, atol=1e-8)


def test_the_original_is_left_as_it_was():
    torch.manual_seed(1)
    model = settled(Several()).train()
    model.dense.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    result = sl.optimise(model, pictures())
    assert not any(module.training for module in result.modules())
    assert all(module.training for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not {id(p) for p in result.parameters()} & {id(p) for p in model.parameters()}


# What cannot be used


class Deciding(nn.Module):
    """Chooses by the values of its input, which torch.compile cannot record as one graph."""

    def forward(self, x):
        return x if x.amax() < 1e6 else -x


class Rare(nn.Module):
    """A function that OpenVINO does not have."""

    def forward(self, x):
        return torch.special.bessel_j0(x)


@pytest.mark.parametrize(("engine", "unit"), [("openvino", Rare()), pytest.param("compiled", Deciding(), marks=needs_compiler)])
def test_a_unit_that_an_engine_cannot_take_is_named(engine, unit):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), unit), nn.Flatten(), nn.Linear(784, 3)).eval()
    with pytest.raises(ValueError, match=rf"the engine '{engine}' cannot take the unit 1\.1 \({type(unit).__name__}\)"):
        sl.optimise(model, pictures(), engine)
    with pytest.warns(UserWarning, match=r"cannot take the unit 1\.1 .*; the original model is used"):
        assert sl.optimise(model, pictures(), engine, fallback=True) is model


def test_softplus_with_another_sharpness_is_not_run_as_the_usual_one():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(beta=3), nn.Flatten(), nn.Linear(784, 3)).eval()
    try:
        result = sl.optimise(model, pictures(), "openvino")
    except ValueError as error:
        assert "unit 1 (Softplus): its outputs differ by" in str(error)
    else:  # a later version of OpenVINO
        torch.testing.assert_close(result(pictures()), model(pictures()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(2, 3, 17, 16), r"optimised for images of \(3, 16, 16\) in torch.float32 on cpu, got \(3, 17, 16\)"),
        (
            torch.rand(2, 3, 16, 16).double(),
            r"got \(3, 16, 16\) in torch.float64 on cpu; call sl.optimise with images like these",
        ),
        (torch.rand(2, 3, 16, 16, requires_grad=True), "the engine 'openvino' computes no gradients"),
    ],
)
def test_images_that_an_optimised_model_cannot_take(images, words):
    with pytest.raises(ValueError, match=words):
        optimised("openvino")(images)


@pytest.mark.parametrize(
    ("images", "engine", "words"),
    [
        (pictures()[0], "folded", r"images must be floats of shape \(B, C, H, W\)"),
        (pictures() * float("nan"), "folded", "images contain NaN"),
        (pictures(), "onnx", "engine"),
        (pictures().double(), "openvino", r"runs on the CPU in float32, and the images are torch.float64"),
    ],
)
def test_what_is_refused(images, engine, words):
    with pytest.raises(ValueError, match=words):
        sl.optimise(network().double() if images.dtype == torch.float64 else network(), images, engine)
    network().float()


def test_nothing_is_sent_over_the_network(monkeypatch):
    def refused(*arguments, **options):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    sl.optimise(network(), pictures(), "openvino")


def test_auto_is_the_fastest_engine_that_takes_the_network(monkeypatch):
    soft = nn.Sequential(nn.Conv2d(3, 4, 3), Rare(), nn.Flatten(), nn.Linear(784, 3)).eval()
    assert [sl.optimise(model, pictures(), "auto").engine for model in (network(), soft)] == ["openvino", "folded"]
    assert sl.optimise(soft, pictures(), "eager") is soft
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert sl.optimise(network(), pictures(), "auto").engine == "folded"


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'saliency-compendium\[openvino\]'"):
        sl.optimise(network(), pictures(), "openvino", fallback=True)


# In specifications

TRAINING = sl.Training(changes={"epochs": 1, "model_options": {"width": 2}, "images": 200})


def engine_of(method, asked):
    return sl.Explanation(TRAINING, method, stop=4, engine=asked).engine


def test_a_method_gets_an_engine_that_shows_what_it_needs():
    for name, entry in sl.METHODS.items():
        if entry.forward_only:
            found = [engine_of(name, asked) for asked in engines.ENGINES]
            assert found == [None if asked == "eager" else asked for asked in engines.ENGINES]
        else:
            folded = None if entry.family == "control" else "folded"
            assert {asked: engine_of(name, asked) for asked in engines.ENGINES} == {
                "auto": folded, "folded": folded, "compiled": None, "openvino": None, "eager": None
            }  # fmt: skip
    usual, other = (sl.Explanation(TRAINING, "gradient", stop=4, engine=engine) for engine in (None, "openvino"))
    assert usual == other and usual.digest == other.digest != sl.Explanation(TRAINING, "gradient", stop=4, engine="folded").digest
    with pytest.raises(ValueError, match="engine"):
        sl.Explanation(TRAINING, "rise", engine="onnx")


def test_a_metric_that_computes_new_maps_gets_no_engine():
    for name in sl.METRICS:
        score = sl.Score(sl.Explanation(TRAINING, stop=4), name, engine="folded")
        assert (score.engine == "folded") == (name in FOLLOWING)


def test_an_engine_runs_the_model_that_is_asked_for(outputs):
    images = sl.load("mnist5k", stop=2)
    for seed in (0, 1):
        trained = sl.train(dataclasses.replace(TRAINING, seed=seed))
        model = pipeline._running(trained, images, "folded")
        torch.testing.assert_close(model(images.images), trained.model(images.images), rtol=1e-4, atol=1e-5)


def test_the_store_says_which_engine_ran_and_builds_it_once(outputs, monkeypatch):
    built = []

    def watched(model, images, engine):
        built.append(engine)
        return engines.optimise(model, images, engine)

    monkeypatch.setattr("saliency_lib.artefacts.pipeline.optimise", watched)
    maps = {e: sl.explain(sl.Explanation(TRAINING, "occlusion", stop=4, engine=e)) for e in (None, "openvino", "auto")}
    torch.testing.assert_close(maps["openvino"].maps, maps[None].maps, rtol=1e-3, atol=1e-6)
    spec = sl.Explanation(TRAINING, "edges", stop=4, engine="openvino")
    scores = {e: sl.score(sl.Score(spec, "deletion", {"steps": 4}, engine=e)) for e in (None, "openvino")}
    assert (scores[None].curve.area - scores["openvino"].curve.area).abs().max() <= 0.002
    assert built == ["openvino", "auto"]
    facts = [item.artefacts[0].facts["engine"] for item in (*maps.values(), *scores.values())]
    assert facts == ["eager", "openvino", "openvino", "eager", "openvino"]
    assert scores["openvino"].artefacts[0].provenance["spec"]["engine"] == "openvino"
    assert (
        scores["openvino"]
        .artefacts[0]
        .folder.name.startswith("mnist5k-cnn-standard-embedded-seed0-test0-4-edges-deletion-by-openvino")
    )
