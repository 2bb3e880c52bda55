"""The explorer's worker: computes in a thread, a piece at a time, so that the widgets answer meanwhile."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

NAME = "explorer"


class Worker:
    """Do the latest wish: a new one takes the place of the last, which ends after the piece that it is doing.

    Args:
        failed: called with the error if a wish fails and no other has replaced it.
        stopped: called if the user has stopped the last wish.
    """

    def __init__(self, failed: Callable[[Exception], None], stopped: Callable[[], None]):
        self._failed, self._stopped = failed, stopped
        self._pool, self._stop = ThreadPoolExecutor(1, NAME), threading.Event()

    def start(self, work: Iterator[None]) -> None:
        """Begin a wish as soon as the last one has ended; its pieces end where the iterator yields."""
        self._stop.set()
        self._stop = threading.Event()
        self._pool.submit(self._work, work, self._stop)

    def stop(self) -> None:
        """End the wish after the piece that it is doing."""
        self._stop.set()

    def wait(self) -> None:
        """Wait until nothing is being computed."""
        self._pool.submit(int).result()

    @staticmethod
    def is_here() -> bool:
        """Return whether the caller runs in the worker's thread."""
        return threading.current_thread().name.startswith(NAME)

    def _work(self, work: Iterator[None], stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                next(work)
        except StopIteration:
            return
        except Exception as error:  # whatever a model or a method raises is shown by the widgets
            if not stop.is_set():
                self._failed(error)
                return
        if stop is self._stop:
            self._stopped()
