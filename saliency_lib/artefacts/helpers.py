"""Helpers: processes that build artefacts into the store beside this one, each with one thread."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TextIO, cast

from saliency_lib import paths
from saliency_lib.artefacts.specification import Spec
from saliency_lib.core.calls import tell

Group = Sequence[Spec]


def build_by_helpers(groups: Sequence[Group], processes: int, ended: Callable[[int], object]) -> None:
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
