"""One flipped bit in any stored file is noticed, or changes nothing that is read."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

import saliency_lib as sl
from saliency_lib.artefacts import inputs, parts, pipeline, store, tables
from saliency_lib.training.checkpoint import load_checkpoint, save_checkpoint
from saliency_lib.training.selection import Best
from tests.faults.campaign import Count, trials

pytestmark = pytest.mark.faults

TRAINING = sl.Training(changes={"epochs": 1, "model_options": {"width": 1}, "images": 200})
SPECS = {
    "training": TRAINING,
    "explanation": sl.Explanation(TRAINING, "edges", stop=6),
    "score": sl.Score(sl.Explanation(TRAINING, "edges", stop=6), "deletion", {"steps": 3}),
    "samples": sl.Samples(TRAINING, count=3, steps=1),
}


def plain(value):
    """All that a result says, in a form that can be compared."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, torch.nn.Module):
        return {name: plain(tensor) for name, tensor in value.state_dict().items()}
    if isinstance(value, pd.DataFrame):
        return value.to_csv()
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def flips(size, count, seed):
    """Places and bits: some at the beginning, where headers are, the others anywhere; no flip twice."""
    draws = np.random.default_rng(seed)
    places = np.concatenate([draws.integers(min(size, 400), size=count // 3), draws.integers(size, size=count - count // 3)])
    return sorted({(int(place), int(bit)) for place, bit in zip(places, draws.integers(8, size=count), strict=True)})


def campaign(file, read, count, *, named):
    """Flip bits of a file one by one; each has to be an error that names the file and a way out, or to change nothing."""
    whole, before = file.read_bytes(), plain(read())
    try:
        for place, bit in flips(len(whole), trials(60), count.tried):
            broken = bytearray(whole)
            broken[place] ^= 1 << bit
            file.write_bytes(broken)
            failure = None
            try:
                if plain(read()) != before:
                    failure = f"{file.name}: bit {bit} of byte {place} changed what is read"
            except ValueError as error:
                text = str(error)
                if not any(name in text for name in named) or not any(way in text for way in ("delete", "again", "put")):
                    failure = f"{file.name}: bit {bit} of byte {place} is an error without file or way out: {text[:200]}"
            except Exception as error:
                failure = f"{file.name}: bit {bit} of byte {place} raises {type(error).__name__}: {error}"
            count.add(failure)
    finally:
        file.write_bytes(whole)
    assert plain(read()) == before


@pytest.mark.parametrize("kind", SPECS)
def test_flipped_bits_of_an_artefact(kind, outputs, capsys):
    spec, count = SPECS[kind], Count(f"bit flips in {kind}")
    pipeline.build(spec)
    folder = store.find(spec).folder
    for file in sorted(folder.iterdir()):
        campaign(file, lambda: pipeline.build(spec), count, named=[folder.name])
    count.report(capsys, least=60)


def test_flipped_bits_of_an_upstream_provenance(outputs, capsys):
    spec, count = SPECS["score"], Count("bit flips in what a score was made from")
    pipeline.build(spec)
    for one in (spec.explanation, TRAINING):
        campaign(store.find(one).folder / store.PROVENANCE, lambda: pipeline.build(spec), count, named=[one.name])
    count.report(capsys, least=60)


def test_flipped_bits_of_a_checkpoint_and_of_what_it_says_of_the_images(outputs, capsys):
    count, file = Count("bit flips in checkpoints"), outputs / ".x.checkpoint.safetensors"
    outputs.mkdir()
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.rand(4, 6)).sum().backward()
    optimiser.step()
    best = Best(1, 0.5, {name: value.clone() for name, value in model.state_dict().items()})
    save_checkpoint(file, model, optimiser, [{"epoch": 1, "loss": 0.5}], best)

    def read():
        other = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
        its = torch.optim.AdamW(other.parameters())
        history, kept = load_checkpoint(file, other, its)
        return [history, kept, other.state_dict(), its.state_dict()["state"]]

    campaign(file, read, count, named=[file.name])
    part = parts.Part("mnist5k", "train", stop=20)
    data = parts.borrow(part)
    origin = file.with_suffix(".json")
    origin.write_text(json.dumps([parts.described(part, data)]))

    def go_on():
        saved = origin.read_bytes()
        try:
            with inputs.continued({part: data}, file):
                return "goes on"
        finally:
            origin.write_bytes(saved)

    campaign(origin, go_on, count, named=[file.name])
    count.report(capsys, least=60)


def test_flipped_bits_of_a_table(outputs, capsys):
    count, file = Count("bit flips in tables"), outputs / "tables" / "one" / "areas.csv"
    frame = pd.DataFrame({"method": [f"method {number}" for number in range(9)], "area": np.random.default_rng(0).random(9)})
    tables.keep(file, frame, {"command": "make it", "parameters": {"images": 2}, "requires": [], "commit": "0" * 40})
    for one in (file, file.with_suffix(".json")):
        campaign(one, lambda: list(tables.read(file)), count, named=["areas."])
    count.report(capsys, least=60)


@pytest.mark.slow
def test_flipped_bits_of_what_is_remembered_of_the_data(outputs, capsys, monkeypatch):
    count, spec = Count("bit flips in fingerprints"), SPECS["explanation"]
    sl.explain(spec)

    def read():
        inputs.forget()
        return sl.explain(spec).maps

    read()
    notes = sorted((outputs / ".fingerprints").iterdir())
    for note in notes:
        campaign(note, read, count, named=["never an error"])
    count.report(capsys, least=30)
