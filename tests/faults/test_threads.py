"""Threads that use one model, and threads that draw from torch's global generator beside a training.

The tests are short. `SALIENCY_FAULTS=10` makes them ten times as long.
"""

import copy
import gc
import os
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import context, quick
from torch import nn

import saliency_lib as sl
from saliency_lib.core.batching import frozen
from saliency_lib.core.locks import GENERATOR, Stream, _locks, lock_of
from saliency_lib.training.loop import fit
from saliency_lib.training.settings import DEFAULTS

pytestmark = pytest.mark.faults
TIMES = int(os.environ.get("SALIENCY_FAULTS", 1))
METHODS = ["gradient", "guided_backprop", "smoothgrad", "integrated_gradients", "deeplift", "gradcam", "rise", "sidu", "lime"]
METRICS = ["deletion", "insertion", "infidelity", "max_sensitivity", "model_randomisation", "average_drop", "road"]


@pytest.fixture(autouse=True)
def often():
    """Let threads take turns a hundred times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 100)
    yield
    sys.setswitchinterval(usual)


class Wrapped(nn.Module):
    """A model of its own around another."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images)


def state_of(model):
    """What a call has to leave as it was: modes, flags, gradients, and the number of hooks."""
    modes = [module.training for module in model.modules()]
    flags = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)) for module in model.modules()
    ]
    return modes, flags, hooks


def jobs(model, images):
    """Calls of methods, metrics and objectives, each of which gives the same tensor whenever it is made."""
    targets = torch.tensor([0, 1, 2, 3, 0])
    maps = sl.METHODS["edges"](model, images)
    explain = lambda model, images, targets: sl.METHODS["lime"](model, images, targets, **quick("lime"))  # noqa: E731
    series = images.mean(1)  # (B, T, F): a hook on the model makes them images
    found = {name: lambda name=name: sl.METHODS[name](model, images, targets, **quick(name)) for name in METHODS}
    for name in METRICS:
        options = context(name, images) | ({"explain": explain} if name == "model_randomisation" else {})
        found[name] = lambda name=name, options=options: sl.METRICS[name](model, images, maps, targets, **options).values
    found["series"] = lambda: sl.METHODS["gradient"](Grey(model), series, targets)
    found["wrapped"] = lambda: sl.METHODS["gradient"](Wrapped(model), images, targets)
    found["predict"] = lambda: sl.predict(model, images)[0]
    found["curve"] = lambda: sl.perturbation_curve(model, images, maps, targets, fractions=(0, 0.5, 1)).values
    return found


class Grey(nn.Module):
    """A model of series (B, T, F) around one of colour images."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, series):
        return self.model(series[:, None].expand(-1, 3, -1, -1))


@pytest.mark.parametrize("threads", [2, 4])
def test_calls_from_several_threads_on_one_model_give_what_one_thread_gets(threads, relu_net, images, record_property):
    relu_net.train()
    work = jobs(relu_net, images)
    before, expected = state_of(relu_net), {name: job() for name, job in work.items()}
    order = torch.randperm(len(work) * 3 * TIMES, generator=torch.Generator().manual_seed(threads)).tolist()
    names = [list(work)[number % len(work)] for number in order]

    def tried(name):
        try:
            return torch.equal(work[name](), expected[name])
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(tried, names))
    failed = [f"{name}: {answer}" for name, answer in zip(names, answers, strict=True) if answer is not True]
    print(f"tried {len(names)}, failed {len(failed)}")
    record_property("tried", len(names)), record_property("failed", len(failed))
    assert not failed
    assert state_of(relu_net) == before


def test_a_training_beside_threads_that_build_networks_has_the_weights_of_one_alone(record_property):
    images = torch.rand(64, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 4
    settings = DEFAULTS | {
        "objective": "saliency_guided", "options": {}, "model_options": {}, "optimiser": "adamw", "learning_rate": 1e-3,
        "weight_decay": 0.0, "momentum": 0.0, "schedule": "constant", "milestones": [], "augmentation": "none",
        "batch_size": 8, "epochs": 3 * TIMES,
    }  # fmt: skip

    def trained():
        with Stream(0).drawn():  # torch's own layers draw from the global generator, as the builders do
            model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(400, 4))
        fit(model, images, labels, settings, seed=1)
        return model.state_dict()

    def built_until(over, count):
        pictures = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
        while not over.is_set():
            network = sl.MODELS["cnn"](width=4)
            sl.OBJECTIVES["saliency_guided"](network, pictures, torch.tensor([0, 1]))
            maps = sl.METHODS["edges"](network, pictures)
            sl.METRICS["model_randomisation"](network, pictures, maps, explain=sl.METHODS["edges"], steps=2)
            count.append(1)

    alone, over, count = trained(), threading.Event(), []
    with ThreadPoolExecutor(2) as pool:
        builders = [pool.submit(built_until, over, count) for _ in range(2)]
        try:
            beside = trained()
        finally:
            over.set()
        for builder in builders:
            builder.result()
    moved = [name for name in alone if not torch.equal(alone[name], beside[name])]
    print(f"tried {len(count)}, failed {len(moved)}")
    record_property("tried", len(count)), record_property("failed", len(moved))
    assert count and not moved


def test_a_training_leaves_the_global_generator_as_it_was():
    images, labels = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    settings = DEFAULTS | {
        "objective": "saliency_guided", "options": {}, "model_options": {}, "optimiser": "adamw", "learning_rate": 1e-3,
        "weight_decay": 0.0, "momentum": 0.0, "schedule": "constant", "milestones": [], "augmentation": "none",
        "batch_size": 4, "epochs": 2,
    }  # fmt: skip
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 2))
    before = torch.get_rng_state()
    fit(model, images, labels, settings, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_releases_the_lock(relu_net, images):
    with pytest.raises(ValueError, match="targets"):
        sl.METHODS["gradient"](relu_net, images, torch.full((5,), 99))
    with pytest.raises(KeyError), frozen(relu_net):
        raise KeyError("broken")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(sl.METHODS["gradient"], relu_net, images).result(timeout=10)
        assert pool.submit(GENERATOR.acquire, timeout=1).result() and pool.submit(GENERATOR.release).result() is None


def test_a_model_and_its_wrappers_share_a_lock_and_two_models_do_not(relu_net):
    other = copy.deepcopy(relu_net)
    assert lock_of(Wrapped(relu_net)) is lock_of(relu_net) is lock_of(sl.LogProbabilities(Wrapped(relu_net)))
    assert lock_of(other) is not lock_of(relu_net)
    assert lock_of(nn.Flatten()) is not lock_of(nn.Flatten())


def test_locks_do_not_keep_a_model_and_are_no_part_of_it(relu_net, images):
    sl.METHODS["gradient"](relu_net, images)
    with lock_of(relu_net):
        again = pickle.loads(pickle.dumps(copy.deepcopy(relu_net)))
    assert torch.equal(again(images), relu_net(images)) or relu_net.training
    gc.collect()
    held = len(_locks)
    for _ in range(5):
        sl.METHODS["gradient"](copy.deepcopy(relu_net), images)
    gc.collect()
    assert len(_locks) <= held


def test_two_threads_use_two_models_at_once(relu_net, images):
    met = threading.Barrier(2, timeout=30)

    class Meeting(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.waits = nn.Linear(3, 4), True

        def forward(self, inputs):
            if self.waits:
                self.waits = False
                met.wait()
            return self.head(inputs.mean((2, 3)))

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(sl.METHODS["gradient"], Meeting(), images) for _ in range(2)]
        assert all(torch.isfinite(call.result()).all() for call in calls)


def test_two_threads_on_one_model_take_turns(images):
    inside, most = [], []

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, inputs):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()
            return self.head(inputs.mean((2, 3)))

    model = Slow()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: sl.METHODS["gradient"](model, images), range(4)))
    assert max(most) == 1
