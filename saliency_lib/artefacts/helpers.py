"""Many scores at once: with one progress bar, and by helpers, processes that build artefacts into the store beside this one."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, TextIO, TypeVar, cast

from tqdm.auto import tqdm

from saliency_lib import paths
from saliency_lib.artefacts import store
from saliency_lib.artefacts.pipeline import one_bar, score, train
from saliency_lib.artefacts.results import Scored
from saliency_lib.artefacts.specs import Explanation, Score, Spec
from saliency_lib.attribution.table import METHODS
from saliency_lib.core.calls import tell
from saliency_lib.core.checks import positive

Group = Sequence[Spec]
K = TypeVar("K", bound=Hashable)


def score_all(specs: Mapping[K, Score], processes: int = 1) -> dict[K, Scored]:
    """Return the result of `score` for each key, with one progress bar for all.

    Args:
        processes: how many processes share what is not stored, each with one thread and its own copy of the data and the
            networks.

    Raises:
        ValueError, FileNotFoundError: as `score`; or `processes` is less than 1.
    """
    token = one_bar.set(True)
    try:
        with tqdm(total=len(specs), desc="scores", unit="score", mininterval=1) as bar:
            made, found = set[Spec](), {}
            if positive("processes", processes) > 1:
                for group in _built_by_helpers(_groups(specs.values()), processes):
                    made.update(group)
                    bar.update(len(group))
            for key, spec in specs.items():
                found[key] = score(spec)
                bar.update(spec not in made)
            return found
    finally:
        one_bar.reset(token)


def _groups(specs: Iterable[Score]) -> list[Group]:
    """Return the scores that are not stored, those of one explanation together, the longest first."""
    missing = dict.fromkeys(spec for spec in specs if not os.path.lexists(store.place(spec)))
    for training in dict.fromkeys(one for spec in missing for one in (spec.explanation.training, spec.judge) if one):
        train(training)  # here, where its progress is seen
    groups: dict[Explanation, list[Score]] = {}
    for spec in sorted(missing, key=lambda spec: METHODS[spec.explanation.method].family != "mask"):
        groups.setdefault(spec.explanation, []).append(spec)
    return list(groups.values())


def _built_by_helpers(groups: Sequence[Group], processes: int) -> Iterator[Group]:
    """Let helpers build groups of artefacts, each the next one that is left, and yield each group that has been built.

    What helpers warn of is warned of here. A helper that fails leaves its artefact unbuilt, so that whoever asks for it meets
    the error. If this process is killed, the helpers end what they have begun.
    """
    own = {"OMP_NUM_THREADS": "1", "SALIENCY_DATA": str(paths.DATA.absolute()), "SALIENCY_OUTPUTS": str(paths.OUTPUTS.absolute())}
    waiting, told, helpers = deque(groups), set[str](), list[subprocess.Popen]()
    ended: SimpleQueue[Group | None] = SimpleQueue()  # None: a helper has ended

    def work() -> None:
        command = [sys.executable, "-m", "saliency_lib", "-"]
        pipe: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        try:
            with subprocess.Popen(command, **pipe, env=os.environ | own) as helper:
                helpers.append(helper)
                asked, answers = cast(TextIO, helper.stdin), cast(TextIO, helper.stdout)
                while group := _next(waiting):
                    print(json.dumps([spec.to_dict() for spec in group]), file=asked, flush=True)
                    told.update(json.loads(answers.readline()))
                    ended.put(group)
        except (OSError, ValueError):
            pass  # it was killed
        finally:
            ended.put(None)

    left = min(processes, len(groups))
    for _ in range(left):
        threading.Thread(target=work, daemon=True).start()
    try:
        while left:
            group = ended.get()
            if group is None:
                left -= 1
            else:
                yield group
    finally:  # also after an interrupt
        waiting.clear()
        for helper in helpers:
            helper.terminate()
    for words in sorted(told):
        tell(words)


def _next(waiting: deque[Group]) -> Group:
    try:
        return waiting.popleft()
    except IndexError:
        return ()


def serve(lines: TextIO, answers: TextIO, build: Callable[[dict[str, Any]], object]) -> None:
    """Build the specifications of each line, a JSON list, and answer with a line of the warnings meanwhile, a JSON list."""
    for line in lines:
        with warnings.catch_warnings(record=True) as caught:
            for content in json.loads(line):
                with contextlib.suppress(Exception):  # whoever asks for the artefact meets it
                    build(content)
        print(json.dumps(sorted({str(one.message) for one in caught})), file=answers, flush=True)
