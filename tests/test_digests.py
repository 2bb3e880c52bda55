"""The names of artefacts: a specification keeps the digest that it had, because users' stores are found by it."""

import json
from pathlib import Path

import saliency_lib as sl

RECORDED = json.loads(Path(__file__).with_name("digests.json").read_text())


def test_every_specification_keeps_its_digest():
    """A digest names the folder of an artefact, so a digest that moves orphans what users have trained and computed.

    It moves when an option, a preset, a recipe or a field is renamed or gets another default. If the numbers really change with
    it, raise its kind in REVISIONS or let it move, write the new digests to digests.json, and say so in the change log. If not,
    restore it.
    """
    assert len(RECORDED) > 200
    moved = [text for text, digest in RECORDED.items() if sl.from_dict(json.loads(text)).digest != digest]
    assert not moved, f"{len(moved)} of {len(RECORDED)} digests moved, the first of {moved[0]}"
