"""Build the artefact of a specification: `python -m saliency_lib SPEC`, where SPEC is its JSON or a provenance.json file.

SPEC may be -, for lists of specifications, one JSON list per line of the standard input; see `artefacts.helpers`.
"""

import json
import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Build one artefact, print its folder, and return the exit status: 0, or 2 for a wrong call."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    text = arguments[0]
    if text == "-":
        answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
        from saliency_lib.artefacts import helpers, pipeline, specs

        helpers.serve(sys.stdin, answers, lambda content: pipeline.build(specs.from_dict(content)))
        return 0
    content = json.loads(text) if text.lstrip().startswith("{") else json.loads(Path(text).read_text())["spec"]
    from saliency_lib import paths
    from saliency_lib.artefacts import pipeline, specs, store  # here, so that --help does not wait for torch

    spec = specs.from_dict(content)
    pipeline.build(spec)
    found = store.find(spec)
    print(paths.relative(found.folder if found else store.place(spec)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
