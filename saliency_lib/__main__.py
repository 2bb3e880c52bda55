"""`python -m saliency_lib SPEC` builds the artefact of a specification: its JSON, or a provenance.json that holds one."""

import json
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Build one artefact and print its folder; 2 for a wrong call."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    text = arguments[0]
    content = json.loads(text) if text.lstrip().startswith("{") else json.loads(Path(text).read_text())["spec"]
    from saliency_lib import paths  # here, so that --help does not wait for torch
    from saliency_lib.artefacts import pipeline, specs, store  # here, so that --help does not wait for torch

    spec = specs.from_dict(content)
    pipeline.build(spec)
    print(paths.relative(store.place(spec)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
