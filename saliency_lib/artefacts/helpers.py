"""Many scores at once: with one progress bar, and by helpers, processes that build artefacts into the store beside this one."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
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
            networks. On the CPU two such processes take less time than one with two threads.

    Raises:
        ValueError, FileNotFoundError: as `score`; or `processes` is less than 1.
    """
    token = one_bar.set(True)
    try:
        with tqdm(total=len(specs), desc="scores", unit="score", mininterval=1) as bar:
            shared = _score_by_helpers(specs.values(), processes, bar.update) if positive("processes", processes) > 1 else ()
            found = {}
            for key, spec in specs.items():
                found[key] = score(spec)
                bar.update(spec not in shared)
            return found
    finally:
        one_bar.reset(token)


def _score_by_helpers(specs: Iterable[Score], processes: int, ended: Callable[[int], object]) -> set[Score]:
    """Let helpers make the scores that are not stored, and return those; the scores of one explanation stay together."""
    missing = dict.fromkeys(spec for spec in specs if not os.path.lexists(store.place(spec)))
    for training in dict.fromkeys(one for spec in missing for one in (spec.explanation.training, spec.judge) if one):
        train(training)  # here, where its progress is seen
    groups: dict[Explanation, list[Score]] = {}
    for spec in sorted(missing, key=lambda spec: METHODS[spec.explanation.method].family != "mask"):  # which take longest
        groups.setdefault(spec.explanation, []).append(spec)
    _build_by_helpers(list(groups.values()), processes, ended)
    return set(missing)


def _build_by_helpers(groups: Sequence[Group], processes: int, ended: Callable[[int], object]) -> None:
    """Let helpers build groups of artefacts, each the next group that is left; what they warn of is warned of here.

    A helper that fails leaves its artefact unbuilt, so that whoever asks for it meets the error. If this process is killed, the
    helpers end what they have begun.

    Args:
        groups: of specifications that have much in common, the longest first.
        processes: how many helpers there are.
        ended: called with the size of each group that has ended.
    """
    own = {"OMP_NUM_THREADS": "1", "SALIENCY_DATA": str(paths.DATA.absolute()), "SALIENCY_OUTPUTS": str(paths.OUTPUTS.absolute())}
    waiting, told, helpers = deque(groups), set[str](), list[subprocess.Popen]()

    def work() -> None:
        command = [sys.executable, "-m", "saliency_lib", "-"]
        pipe: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(command, **pipe, env=os.environ | own) as helper:
            helpers.append(helper)
            asked, answers = cast(TextIO, helper.stdin), cast(TextIO, helper.stdout)
            while waiting and (group := _next(waiting)):
                try:
                    print(json.dumps([spec.to_dict() for spec in group]), file=asked, flush=True)
                    told.update(json.loads(answers.readline() or "[]"))
                except (OSError, ValueError):
                    return  # it was killed
                ended(len(group))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(processes, len(groups)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:  # for instance an interrupt
        waiting.clear()
        for helper in helpers:
            helper.terminate()
        raise
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
