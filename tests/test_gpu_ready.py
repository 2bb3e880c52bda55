"""Ready for a GPU: every entry of the tables stays on it, and makes the host wait for it as often for much work as for little."""

from collections import Counter

import lightning_fabric
import pytest
import torch
from gpu import DEVICE, OnGPU, fetched, gpu, on_gpu
from torch import nn

import saliency_lib as sl
from saliency_lib.attribution.adaptive_path import ROUNDS, _moved
from saliency_lib.attribution.estimators import ESTIMATORS, looks
from saliency_lib.core.batching import _need_rows_first
from saliency_lib.core.fills import FILLS, filled
from saliency_lib.core.locks import Stream
from saliency_lib.core.options import LARGEST, Names, Range, _annotations, _members
from saliency_lib.core.streams import generator, noise, noise_by_draw, pairs, row_indices, sent
from saliency_lib.evaluation.generative import activation_maximisation, density_ratio
from saliency_lib.evaluation.sanity import most_frequent
from saliency_lib.training import loop

TABLES = {"METHODS": sl.METHODS, "METRICS": sl.METRICS, "OBJECTIVES": sl.OBJECTIVES}
ENTRIES = [(table, name) for table, entries in TABLES.items() for name in entries]
LITTLE, MUCH = 0, 1
COUNTS = 2, 6  # of whatever an entry counts: samples, steps, masks, draws, probes; even, for pairs
MORE = {
    "fractions": ((0.25, 0.5), (0.1, 0.2, 0.3, 0.5, 0.7)),
    "window": (8, 8),
    "stride": (8, 4),
}
BATCH = 3  # inputs per pass, so that more work is more passes
# What asks the GPU once per pass or per image, and why.
ON_HOST = {
    ("deeplift", "backend", "captum"): "captum reads the target of a pass of a single image, as the last pass of four images is",
    ("lime", "backend", "lime"): "the package makes the masked copies as arrays, and has them scored a pass at a time",
    ("model_randomisation", "similarity", "ssim"): "scikit-image compares arrays; the maps of all steps together may not fit",
}
SHARED = {"reduction", "score", "fill", "baseline"}  # one function of the library for all entries of a table


def network():
    torch.manual_seed(3)
    layers = (
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(),
    )
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, 4)).eval()


def explain(model, images, targets):
    return images.sum(1) + model[0].weight.sum()


def problem(table, name, images, size):
    """The arguments and the options of an entry for so many images and little or much other work."""
    source = torch.Generator().manual_seed(5)
    pixels = torch.rand(images, 3, 16, 16, generator=source)
    maps = (8 * torch.rand(images, 16, 16, generator=source)).round() / 8 - 0.5  # with ties
    known = {
        "explain": explain,
        "objects": pixels[:, 0] > 0.7,
        "indices": torch.arange(images) + 9,
        "batch_size": BATCH,
        **{option: values[size] for option, values in MORE.items() if table == "METRICS" or name == "occlusion"},
    }
    options = {}
    for option, annotation in _annotations(TABLES[table][name].function).items():
        limits = [limit for _, limit in _members(annotation)]
        if any(isinstance(limit, Range) and limit.least == 1 and limit.most < LARGEST for limit in limits):
            options[option] = COUNTS[size]
        elif option in known:
            options[option] = known[option]
    return (pixels, maps, torch.arange(images) % 4) if table == "METRICS" else (pixels, torch.arange(images) % 4), options


def values_of(result, model=None):
    """The tensors that an entry returns; of a loss also its gradients."""
    if isinstance(result, sl.Curve):
        return {name: value for name, value in vars(result).items() if value is not None}
    if result.ndim == 0:
        return {"loss": result.detach()} | dict(enumerate(torch.autograd.grad(result, tuple(model.parameters()))))
    return {"maps": result}


def run(table, name, images, size, there, **given):
    """Run an entry, there or on the CPU; return its tensors and how often the host waited, by operation and line."""
    model, (arguments, options) = network(), problem(table, name, images, size)
    options |= given
    torch.manual_seed(4)
    if table == "OBJECTIVES":
        model.train()
    if not there:
        _need_rows_first.add(model)  # both have the same layout, so every bit is the same
        return values_of(TABLES[table][name](model, *arguments, **options), model), Counter()
    model, arguments, options = on_gpu(model), on_gpu(arguments), on_gpu(options)
    _need_rows_first.add(model)
    with gpu() as waits:
        return values_of(TABLES[table][name](model, *arguments, **options), model), waits


def check_entry(table, name, **given):
    """Compare an entry there with itself on the CPU, and the number of waits for little work with that for more of every kind."""
    expected, _ = run(table, name, 2, LITTLE, False, **given)
    found, few = run(table, name, 2, LITTLE, True, **given)
    assert {key: value.device for key, value in found.items()} == dict.fromkeys(expected, DEVICE)
    torch.testing.assert_close(fetched(found), expected, rtol=0, atol=0)
    check_waits(few, run(table, name, 4, MUCH, True, **given)[1])


def check_waits(few, *more):
    grown = {place: (few[place], *(waits[place] for waits in more)) for place in set().union(*more)}
    grown = {place: counts for place, counts in grown.items() if max(counts) > counts[0]}
    assert all(sum(waits.values()) <= sum(few.values()) for waits in more), f"the host waits more often for more work: {grown}"


@pytest.mark.parametrize("table, name", ENTRIES)
@pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")
def test_an_entry_stays_on_the_gpu_and_waits_as_often_for_more_images_samples_masks_and_steps(table, name):
    check_entry(table, name)


def choices():
    """Each named value of an option that is not its default, which every entry is tested with; of a shared option once per table.

    The fill `noise` is each entry's own: an entry numbers its draws.
    """
    seen = set()
    for table, name in ENTRIES:
        defaults = TABLES[table].defaults(name)
        for option, annotation in _annotations(TABLES[table][name].function).items():
            names = {value for _, limit in _members(annotation) if isinstance(limit, Names) for value in limit.table}
            for value in sorted(names - {defaults.get(option)}):
                key = (table, option, value) if option in SHARED and value != "noise" else (table, name, option, value)
                if key not in seen:
                    seen.add(key)
                    yield table, name, option, value


@pytest.mark.slow
@pytest.mark.parametrize("table, name, option, value", choices())
@pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")
def test_every_named_choice_of_an_option_does_so_too(table, name, option, value):
    given = {option: value} | ({"preset": "saliency_benchmark"} if name == "insertion" and value == "released" else {})
    if (name, option, value) in ON_HOST:
        with pytest.raises(AssertionError, match="waits more often"):  # else it need not be in the table
            check_entry(table, name, **given)
    else:
        check_entry(table, name, **given)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")
def test_a_fill_is_made_on_the_gpu(fill):
    def made(images):
        with gpu() as waits:
            return filled(fill, None, on_gpu(images)), waits

    images = torch.rand(4, 3, 8, 8)
    found, few = made(images)
    assert found.device == DEVICE
    torch.testing.assert_close(fetched(found), filled(fill, None, images))
    check_waits(few, made(images.repeat(3, 1, 1, 1))[1])


@pytest.mark.parametrize("law", [torch.rand, torch.randn])
def test_random_numbers_are_those_of_one_generator_per_purpose_seed_image_and_draw_on_every_device(law):
    images, numbers = torch.rand(3, 2, 5, 7), [4, 0, 8]
    keys = [(row, draw) for row in range(3) for draw in range(4)]
    cpu = torch.device("cpu")
    expected = torch.stack([law(2, 5, 7, generator=generator(cpu, "smoothgrad", 6, numbers[row], draw)) for row, draw in keys])
    here = noise_by_draw(images, "smoothgrad", law, 6, numbers)
    assert torch.equal(here(*pairs(0, 12, 4, cpu)), expected)
    assert torch.equal(here(*(part.flip(0) for part in pairs(5, 9, 4, cpu))), expected[5:9].flip(0))
    with gpu() as waits:
        there = noise_by_draw(on_gpu(images), "smoothgrad", law, 6, numbers)
        found = torch.cat([there(*pairs(0, 5, 4, DEVICE)), there(*pairs(5, 12, 4, DEVICE))])
        first = noise(on_gpu(images), numbers, 6, "smoothgrad", 0, law=law)
        assert not waits
        again = there(*(part + 0 for part in pairs(0, 5, 4, DEVICE)))  # numbers that only the GPU knows are fetched
        assert waits.total() == 2
    assert torch.equal(fetched(found), expected) and torch.equal(fetched(first), expected[::4])
    assert torch.equal(fetched(again), expected[:5])


def test_the_numbers_of_images_are_fetched_once():
    with gpu() as waits:
        assert row_indices(on_gpu(torch.rand(9, 3, 2, 2)), on_gpu(torch.arange(9) * 2)) == list(range(0, 18, 2))
    assert waits.total() == 1


@pytest.mark.parametrize("fraction", [1.0, 0.25, 0.1, 0.06, 0.01])
def test_on_a_gpu_the_features_of_a_guided_path_move_as_far_without_asking_it(fraction):
    covered, length, slope = torch.rand(3, 9, 400)
    covered, slope = covered * 0.3, slope.round(decimals=1)  # with ties
    length[3, :350] = 0  # only some can move
    for goal in (0.25, 0.4, 1.0):
        limits = goal, goal - 0.2, min(goal + 0.2, 1.0), fraction
        with gpu() as waits:
            found = _moved(*on_gpu((covered, length, slope)), *limits)
        assert torch.equal(fetched(found), _moved(covered, length, slope, *limits))
        assert bool(waits) == (fraction < 1 / ROUNDS)


def test_the_most_frequent_value_is_the_mode():
    values = torch.randint(-3, 4, (50, 12)).float()
    assert torch.equal(most_frequent(values), values.mode(1, keepdim=True).values)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")
def test_kernels_outside_the_tables_wait_as_often_for_more_work():
    def ratio(images, samples, sigmas=(0.1,)):
        with gpu() as waits:
            found = density_ratio(on_gpu(network()), on_gpu(images), sigmas=sigmas, samples=samples, batch_size=BATCH)
        return found, waits

    def typical(labels, steps):
        with gpu() as waits:
            found = activation_maximisation(on_gpu(network()), labels, shape=(3, 16, 16), steps=steps, batch_size=BATCH)
        return found, waits

    images, labels = torch.rand(2, 3, 16, 16), torch.tensor([1, 3])
    found, few = ratio(images, 4)
    torch.testing.assert_close(fetched(found), density_ratio(network(), images, sigmas=[0.1], samples=4), rtol=1e-4, atol=1e-6)
    check_waits(few, ratio(images.repeat(3, 1, 1, 1), 4)[1], ratio(images, 9, (0.1, 0.2))[1])
    found, few = typical(labels, 2)
    expected = activation_maximisation(network(), labels, shape=(3, 16, 16), steps=2)
    torch.testing.assert_close(fetched(found), expected, rtol=1e-5, atol=1e-6)
    check_waits(few, typical(labels.repeat(3), 2)[1], typical(labels, 6)[1])


@pytest.mark.parametrize(
    "objective, augmentation", [("cross_entropy", "none"), ("cross_entropy", "crop_flip"), ("saliency_guided", "none")]
)
def test_an_epoch_of_training_waits_as_often_for_many_batches_as_for_few(objective, augmentation, monkeypatch):
    fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1)
    monkeypatch.setattr(lightning_fabric, "Fabric", lambda **settings: fabric)
    monkeypatch.setattr(loop, "Stream", lambda seed, device: Stream(seed))  # there is no generator of the GPU
    images, labels = torch.rand(24, 3, 16, 16), torch.arange(24) % 4
    settings = {**sl.Training().settings, "epochs": 1, "objective": objective, "augmentation": augmentation}
    settings["selection"] = {"share": 0.25}

    def trained(batch_size, there):
        model = network()
        test = images[:BATCH], labels[:BATCH]
        known = {"settings": settings | {"batch_size": batch_size}, "seed": 1, "test": test}
        if not there:
            return model, loop.fit(model, images, labels, **known), None
        model = on_gpu(model)
        with gpu() as waits:
            return model, loop.fit(model, images, labels, **known), waits

    model, rows, few = trained(9, True)
    expected, expected_rows, _ = trained(9, False)
    torch.testing.assert_close(fetched(dict(model.state_dict())), dict(expected.state_dict()), rtol=1e-4, atol=1e-5)
    assert rows == [pytest.approx(row, rel=1e-4) for row in expected_rows]
    check_waits(few, trained(2, True)[2])


class Hinge(nn.Module):
    """Logits that bend where the first pixel is 1/2, so that each round of bisection halves one interval and the error."""

    def forward(self, images):
        return (images[:, :2, 0, 0] - 0.5).relu()


@pytest.mark.parametrize("estimator", [*ESTIMATORS, "bisection"])
@pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning", "ignore:.*raise masks or the tolerance:UserWarning")
def test_with_a_tolerance_the_host_waits_a_fixed_number_of_times_per_round(estimator):
    def waits_of(rounds, images=1):
        pixels = on_gpu(torch.ones(images, 3, 8, 8))
        with gpu() as waits:
            if estimator == "bisection":
                options = {"baseline": "black", "tolerance": 2.0 ** -(2 + rounds), "batch_size": 64}  # eight lines at a time
                sl.METHODS["integrated_gradients"](Hinge(), pixels, 0, **options)
            else:  # no map ends before its last mask
                options = {"masks": looks(2000, 1)[rounds - 1], "tolerance": 1e-9, "estimator": estimator}
                sl.METHODS["rise"](on_gpu(network()), pixels, 0, cells=4, **options)
        return waits.total()

    first, second, third, fourth = map(waits_of, (1, 2, 3, 4))
    assert 0 < second - first == third - second == fourth - third
    assert waits_of(3, images=8) <= third


def test_gradients_and_maps_that_are_not_finite_are_still_refused():
    class Broken(nn.Module):
        def forward(self, images):
            dark = images.detach().flatten(1)[:, :1] < 0.5
            return images.flatten(1)[:, :4] * torch.where(dark, torch.inf, 1.0)

    images = torch.full((4, 3, 6, 6), 0.25)
    images[[0, 2]] = 0.75
    for name, options in {
        "gradient": {},
        "smoothgrad": {"samples": 3, "sigma": 0.0},
        "integrated_gradients": {"tolerance": 0.1, "baseline": "white"},
        "guided_path_integrated_gradients": {"steps": 4, "baseline": "white"},
    }.items():
        with gpu(), pytest.raises(ValueError, match=r"gradient is NaN or infinite for images \[1, 3\]"):
            sl.METHODS[name](Broken(), on_gpu(images), on_gpu(torch.zeros(4).long()), batch_size=2, **options)

    def broken(model, images, targets):
        return images[:, 0] / torch.arange(4).to(images).view(-1, 1, 1)

    for metric in ("max_sensitivity", "model_randomisation"):
        with gpu(), pytest.raises(ValueError, match=r"maps contain NaN or infinity \(maps \[0\]\)"):
            sl.METRICS[metric](on_gpu(network()), on_gpu(images), on_gpu(images[:, 0]), explain=broken)


ASKS = {  # what makes the host wait for a GPU, and how often
    "a number": (lambda x: x.sum().item(), 1),
    "a condition": (lambda x: bool((x > 0).any()), 1),
    "a list": (lambda x: x.tolist(), 1),
    "a copy here": (lambda x: x.cpu() + x.to("cpu"), 2),
    "a copy there": (lambda x: torch.arange(3).to(x) + torch.arange(3).to(DEVICE), 2),
    "made from a list": (lambda x: torch.tensor([1, 2], device=DEVICE) + x.new_tensor([1, 2]), 2),
    "where it is": (lambda x: x.nonzero(), 1),
    "what is chosen": (lambda x: x[x > 0.5], 1),
    "a choice in place": (lambda x: x.clone().index_put_((x > 0.5,), x[x > 0.5]), 2),
    "places from here": (lambda x: x[torch.tensor([1, 0])], 1),
    "distinct values": (lambda x: x.unique(), 1),
    "counts": (lambda x: (4 * x).long().flatten().bincount(), 1),
    "the mode of rows": (lambda x: x.mode(1), 2),
    "a checked solution": (lambda x: torch.linalg.solve(x @ x.T + torch.eye(2, device=DEVICE), x), 1),
    "equality": (lambda x: torch.equal(x, x), 1),
    "arithmetic": (lambda x: (x * 2 + x.new_ones(3)).where(x > 0.5, 0).sort(1).values.gather(1, (x * 0).long()), 0),
    "one value for what is chosen": (
        lambda x: x.clone().masked_fill_(x > 0.5, 0).index_add_(0, torch.arange(2, device=DEVICE), x),
        0,
    ),
    "an unchecked solution": (lambda x: torch.linalg.solve_ex(x @ x.T + torch.eye(2, device=DEVICE), x), 0),
    "a pinned copy": (lambda x: sent(torch.arange(3), DEVICE) + x, 0),
}


@pytest.mark.parametrize("what", ASKS)
def test_the_gpu_of_these_tests_counts_what_makes_the_host_wait(what):
    call, times = ASKS[what]
    with gpu() as waits:
        call(on_gpu(torch.rand(2, 3)))
    assert waits.total() == times


def test_the_gpu_of_these_tests_refuses_what_a_gpu_refuses():
    here, there = torch.rand(2, 3), on_gpu(torch.rand(2, 3))
    with gpu():
        for call in (lambda: here + there, lambda: torch.cat([here, there]), lambda: there @ here.T, lambda: here[there.long()]):
            with pytest.raises(RuntimeError, match="same device"):
                call()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, generator=torch.Generator(), device=DEVICE)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert isinstance(there + 1, OnGPU) and isinstance(torch.zeros(2, device=there.device), OnGPU)
        assert not isinstance(there.cpu(), OnGPU)


@pytest.mark.parametrize("wasteful", [lambda x: [one.sum().item() for one in x], lambda x: [torch.ones(1).to(x) for _ in x]])
def test_an_entry_that_asks_once_per_image_would_fail(wasteful):
    def asked(count):
        with gpu() as waits:
            wasteful(on_gpu(torch.rand(count, 3)))
        return waits

    with pytest.raises(AssertionError, match="more often for more work"):
        check_waits(asked(2), asked(5))
