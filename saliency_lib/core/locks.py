"""Locks: one per model, and one for torch's global generators, so that threads do not change each other's results.

A thread that needs both takes the model's lock first, so that no two threads wait for each other.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

Lock = AbstractContextManager[bool]

GENERATOR: Lock = threading.RLock()  # held by whoever draws from torch's global generators or sets their state
_locks: weakref.WeakKeyDictionary[nn.Module, Lock] = weakref.WeakKeyDictionary()
_looking_up = threading.Lock()


def lock_of(model: nn.Module) -> Lock:
    """Return the lock that a thread holds while it uses a model; the thread may take it several times over.

    It belongs to the first layer that has parameters of its own, so that a model and the wrappers around it share it.
    """
    owner = next((module for module in model.modules() if module._parameters), model)
    with _looking_up:
        return _locks.setdefault(owner, threading.RLock())


class Stream:
    """Random numbers of torch's global generators that no other thread draws from, for what accepts no generator of its own.

    Args:
        seed: fixes the numbers.
        device: a GPU whose generator draws too, besides the CPU's.
    """

    def __init__(self, seed: int, device: torch.device | None = None):
        self._seed = seed
        self._gpus = [device] if device is not None and device.type == "cuda" else []
        self._states: list[Tensor] = []

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """While active, draw the next numbers; on leaving, the global generators are as they were."""
        with GENERATOR, torch.random.fork_rng(self._gpus):
            generators = [torch.default_generator, *(torch.cuda.default_generators[gpu.index or 0] for gpu in self._gpus)]
            for place, generator in enumerate(generators):
                generator.set_state(self._states[place]) if self._states else generator.manual_seed(self._seed)
            try:
                yield
            finally:
                self._states = [generator.get_state() for generator in generators]
