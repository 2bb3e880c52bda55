"""Wrong use of every method, metric, objective and model: a call works, or it raises an error of ours that says what to do.

The campaign draws calls at random from a seed. `SALIENCY_FAULTS=10` makes it ten times as long.
"""

import math
import os
import random
import re
import signal
import time
import traceback
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import context, quick

import saliency_lib as sl
from saliency_lib import paths

pytestmark = pytest.mark.faults
TIMES = int(os.environ.get("SALIENCY_FAULTS", 1))
LONGEST = 10  # seconds that a call may take
ALLOWED = (ValueError, TypeError, KeyError)
INSTRUCTION = re.compile(
    r"\b(must be|use|pass|give|write|choose|convert|wrap|check|leave|lower|divide|build|one of|did you mean|take|make)\b"
)

NAMES = {"images": r"\bimages?\b|\bpixels\b|\bseries\b", "maps": r"\bmaps?\b"}  # the words for an argument in messages

VALUES = {  # what an option of any type is given
    "text": "1e-3",
    "word": "no",
    "empty text": "",
    "bytes": b"x",
    "none": None,
    "true": True,
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "zero": 0,
    "minus one": -1,
    "a half": 0.5,
    "a billion": 10**9,
    "a trillion": 10**12,
    "ten to thirty": 10**30,
    "1e300": 1e300,
    "empty list": [],
    "list of texts": ["a", "b"],
    "list with nan": [0.1, math.nan],
    "falling list": [0.9, 0.1],
    "mapping": {"a": 1},
    "array": np.array([0.5, 1.0]),
    "scalar": torch.tensor(0.5),
    "vector": torch.tensor([1, 2]),
    "complex": 1j,
    "object": SimpleNamespace(),
}


def of_shape(*shape, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


IMAGES = {
    "array": of_shape(2, 3, 16, 16).numpy(),
    "Images": SimpleNamespace(images=of_shape(2, 3, 16, 16)),
    "list": [[0.5]],
    "none": None,
    "bytes": (255 * of_shape(2, 3, 16, 16)).byte(),
    "double": of_shape(2, 3, 16, 16, dtype=torch.float64),
    "half": of_shape(2, 3, 16, 16, dtype=torch.float16),
    "complex": of_shape(2, 3, 16, 16, dtype=torch.complex64),
    "nan": of_shape(2, 3, 16, 16) * math.nan,
    "infinite": of_shape(2, 3, 16, 16) / 0,
    "none at all": of_shape(0, 3, 16, 16),
    "no pixels": of_shape(2, 3, 0, 16),
    "one image": of_shape(3, 16, 16),
    "grey": of_shape(2, 1, 16, 16),
    "four channels": of_shape(2, 4, 16, 16),
    "channels last": of_shape(2, 16, 16, 3),
    "flat": of_shape(2, 768),
    "video": of_shape(2, 3, 4, 16, 16),
    "one pixel": of_shape(2, 3, 1, 1),
}
MAPS = {
    "array": of_shape(2, 16, 16).numpy(),
    "attributions": of_shape(2, 3, 16, 16),
    "one channel": of_shape(2, 1, 16, 16),
    "list": [[0.5]],
    "none": None,
    "one map": of_shape(16, 16),
    "too many": of_shape(3, 16, 16),
    "too small": of_shape(2, 8, 8),
    "whole numbers": of_shape(2, 16, 16).long(),
    "complex": of_shape(2, 16, 16, dtype=torch.complex64),
    "nan": of_shape(2, 16, 16) * math.nan,
    "double": of_shape(2, 16, 16, dtype=torch.float64),
}
TARGETS = {
    "text": "a",
    "float": 0.5,
    "nan": math.nan,
    "negative": -1,
    "too large": 10,
    "huge": 10**30,
    "floats": torch.tensor([0.0, 1.0]),
    "bools": torch.tensor([True, False]),
    "too many": torch.tensor([0, 1, 2]),
    "matrix": torch.zeros(2, 2).long(),
    "one hot": torch.eye(10)[:2],
    "list": [0, 1],
    "list of texts": ["a", "b"],
    "array": np.array([0, 1]),
    "mapping": {},
}
MODELS = {"none": None, "text": "cnn", "function": lambda images: images.flatten(1)[:, :10], "class": torch.nn.Linear}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return sl.MODELS["cnn"](width=4).eval()


def calls(model):
    """Every call that the campaign chooses from: what is wrong, the argument that is, its value, and the call."""
    images, maps, labels = of_shape(2, 3, 16, 16), of_shape(2, 16, 16), torch.tensor([0, 1])
    for table, name in [(known, name) for known in (sl.METHODS, sl.METRICS, sl.OBJECTIVES) for name in known]:
        usual = quick(name) if table is sl.METHODS else context(name, images) if table is sl.METRICS else {}
        given = {"model": model, "images": images}
        given |= {"maps": maps} if table is sl.METRICS else {}
        given |= {"labels": labels} if table is sl.OBJECTIVES else {"targets": labels}
        wrong = {"images": IMAGES, "maps": MAPS, "targets": TARGETS, "model": MODELS, "labels": TARGETS}
        for argument in given:
            for kind, value in wrong[argument].items():
                arguments = tuple((given | {argument: value}).values())
                yield f"{name}: {argument} {kind}", argument, value, table[name], arguments, usual
        for option in table.options(name):
            for kind, value in VALUES.items():
                options = {**usual, option: value}
                yield f"{name}: {option} {kind}", option, value, table[name], tuple(given.values()), options
        yield f"{name}: optoin", "optoin", 1, table[name], tuple(given.values()), {**usual, "optoin": 1}
    for name in ("cnn", "cifar_resnet9", "lstm", "transformer", "resnet18", "efficientnet_lite0"):
        for option in ("classes", "channels", "pretrained", *sl.MODELS.options(name), "widht"):
            for kind, value in VALUES.items():
                if not (option == "pretrained" and value is True):  # may download
                    yield f"{name}: {option} {kind}", option, value, sl.MODELS[name], (), {option: value}


def tokens(value):
    """What a message may call a value."""
    shape = getattr(value, "shape", ())
    whole = isinstance(value, (np.ndarray, torch.Tensor))
    texts = {repr(value)[:12], str(value)[:12], type(value).__name__, *(map(str, value) if isinstance(value, list) else ())}
    if callable(value) or isinstance(value, type):
        texts.add("function")
    if whole:
        texts |= {str(tuple(shape)), str(value.dtype), str(value.tolist())[:10]}
        texts |= {str([float(number) for number in value])} if value.ndim == 1 and value.dtype != torch.complex64 else set()
        texts |= {str(tuple(shape[1:]))[1:]} if value.ndim > 2 else set()  # the images of another batch
        texts |= {"NaN or infinity"} if not np.isfinite(np.asarray(value)).all() else set()
        texts |= {f"range from {value.min()}"} if str(value.dtype).endswith("int64") else set()
    return texts | ({"missing"} if value is None else set()) | ({f"{value:,}"} if isinstance(value, int) else set())


def fault(call):
    """Return what is wrong with the answer to a call, or None."""
    _, argument, value, function, arguments, options = call

    def stop(number, frame):
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*arguments, **options)
        return None
    except TimeoutError:
        return f"took more than {LONGEST} s"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1].filename
        message = " ".join([str(error), *getattr(error, "__notes__", ())])
        if not isinstance(error, ALLOWED) or not place.startswith(str(paths.ROOT / "saliency_lib")):
            return f"raised {type(error).__name__} in {place.rpartition('site-packages/')[2]}: {message[:150]}"
        if not re.search(NAMES.get(argument, rf"\b{argument}\b"), message):
            return f"does not name {argument}: {message[:150]}"
        if not any(token in message for token in tokens(value) | ({argument} if argument in ("optoin", "widht") else set())):
            return f"does not say what was given: {message[:150]}"
        return None if INSTRUCTION.search(message) else f"does not say what to do: {message[:150]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.mark.slow
def test_wrong_use_works_or_says_what_to_do(model, request, record_property):
    every = list(calls(model))
    draw = random.Random(request.config.option.randomly_seed)
    chosen = draw.sample(every, min(len(every), 4000 * TIMES))
    faults, slow, begun = {}, [], time.perf_counter()
    for call in chosen:
        before = time.perf_counter()
        if found := fault(call):
            faults[call[0]] = found
        slow.append((time.perf_counter() - before, call[0]))
    print(f"tried {len(chosen)}, failed {len(faults)}, of {len(every)} in {time.perf_counter() - begun:.0f} s")
    print("\n".join(f"{seconds:.1f} s {name}" for seconds, name in sorted(slow)[-5:]))
    record_property("tried", len(chosen)), record_property("failed", len(faults))
    print("\n".join(f"{name}: {found}" for name, found in sorted(faults.items())))
    assert not [found for found in faults.values() if found.startswith("took")]
    assert len(faults) < 0.01 * len(chosen)
