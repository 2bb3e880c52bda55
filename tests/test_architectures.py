"""Trials of every method on a network, and the table of methods by architecture."""

import pandas as pd
import pytest
import torch
from test_attribution import assert_same_state, state
from torch import nn

import saliency_lib as sl
from docs import architectures
from saliency_lib.artefacts import tables
from saliency_lib.attribution.trials import CONSTANT, REFUSED, WORKS, tried

OF_ATTENTION = ("attention", "attention_rollout", "gradient_rollout", "attn_lrp")
IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def three(monkeypatch):
    """The table of methods with three more, of which one has a constant map, one refuses and one divides by zero."""
    monkeypatch.setattr(sl.METHODS, "_entries", dict(list(sl.METHODS._entries.items())[:1]))
    monkeypatch.setattr(sl.PARTICULAR_METHODS, "_entries", {})

    @sl.METHODS.register
    def flat(model, images, targets=None):
        return torch.ones(images[:, 0].shape)

    @sl.METHODS.register
    def refusing(model, images, targets=None):
        raise RuntimeError("no such layer\nin a long story")

    @sl.METHODS.register
    def silent(model, images, targets=None):
        raise KeyError

    @sl.METHODS.register
    def dividing(model, images, targets=None):
        return images[:, 0] / 0


def test_a_trial_says_what_became_of_each_method(smooth, three):
    first, *others = tried(smooth, IMAGE)
    assert (first.method, first.outcome, first.reason) == (next(iter(sl.METHODS)), WORKS, "")
    assert [(one.method, one.outcome, one.reason) for one in others] == [
        ("flat", CONSTANT, ""),
        ("refusing", REFUSED, "no such layer"),
        ("silent", REFUSED, "KeyError"),
        ("dividing", REFUSED, "the map has values that are not finite"),
    ]
    assert all(one.seconds >= 0 for one in (first, *others))


def test_every_method_is_tried_once_and_the_model_stays_as_it_was(relu_net):
    before = state(relu_net)
    assert [one.method for one in tried(relu_net, IMAGE)] == [*sl.METHODS, *OF_ATTENTION]
    assert_same_state(before, state(relu_net))


def test_a_network_without_units_and_feature_maps_is_refused_with_the_words_of_the_method(linear):
    found = {one.method: one for one in tried(linear, IMAGE)}
    assert found["gradient"].outcome == found["occlusion"].outcome == WORKS
    for name in ("guided_backprop", "gradcam"):
        with pytest.raises(ValueError) as told:
            sl.METHODS[name](linear, IMAGE)
        assert found[name].outcome == REFUSED and found[name].reason == str(told.value).splitlines()[0]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two small networks in place of the families, a table of their own, and the number of times that each was tried."""
    times = []

    def build(name, *given, **options):
        times.append(name)
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 62 * 62, 10))

    monkeypatch.setattr(architectures, "FAMILIES", ("b", "a"))
    monkeypatch.setattr(architectures, "CSV", tmp_path / "outputs" / "architectures.csv")
    monkeypatch.setattr(sl.MODELS, "_fallback", lambda name: lambda *given: build(name))
    monkeypatch.setattr(sl.METHODS, "_entries", {name: sl.METHODS._entries[name] for name in ("gradient", "random")})
    monkeypatch.setattr(sl.PARTICULAR_METHODS, "_entries", {})
    return times


def test_networks_that_the_table_has_are_not_tried_again_unless_they_are_named(small, outputs):
    assert architectures.kept() == ([], {"tried": {}})
    architectures.measure(["a"])
    assert small == ["a"]
    table = architectures.measure()
    assert small == ["a", "b"] and list(table["architecture"]) == ["b", "b", "a", "a"]
    architectures.measure()
    assert small == ["a", "b"]
    architectures.measure(["b"])
    assert small == ["a", "b", "b"]
    rows, origin = architectures.kept()
    assert pd.DataFrame(rows).equals(table) and set(origin["tried"]) == {"a", "b"}
    assert all(one["side"] == architectures.SIDE and one["versions"]["torch"] for one in origin["tried"].values())


def test_an_unknown_network_is_refused_before_any_is_tried(small, outputs):
    with pytest.raises(ValueError, match="architecture 'c' is not known; one of: a, b"):
        architectures.measure(["a", "c"])
    assert not small and not architectures.CSV.exists()


def test_what_was_tried_is_kept_when_a_later_network_cannot_be_built(small, outputs, monkeypatch):
    whole = architectures.outcomes

    def fail(name):
        if name == "a":
            raise KeyboardInterrupt
        return whole(name)

    monkeypatch.setattr(architectures, "outcomes", fail)
    with pytest.raises(KeyboardInterrupt):
        architectures.measure()
    assert {row["architecture"] for row in architectures.kept()[0]} == {"b"}
    monkeypatch.setattr(architectures, "outcomes", whole)
    assert len(architectures.measure()) == 4 and small == ["b", "a"]


def test_a_table_that_was_changed_is_not_continued(small, outputs):
    architectures.measure(["a"])
    architectures.CSV.write_text(architectures.CSV.read_text().replace(WORKS, REFUSED))
    with pytest.raises(ValueError, match="was changed after it was made"):
        architectures.measure()


def test_the_kept_table_has_each_method_once_per_network_and_says_where_it_comes_from():
    rows, origin = architectures.kept()
    table = pd.DataFrame(rows)
    assert set(table["architecture"]) == set(origin["tried"]) <= set(architectures.FAMILIES)
    assert not table.duplicated(["architecture", "method"]).any() and set(table["method"]) == {*sl.METHODS, *OF_ATTENTION}
    assert (table.groupby("architecture").size() == table["method"].nunique()).all()
    assert set(table["outcome"]) <= {WORKS, CONSTANT, REFUSED}
    assert ((table["reason"] != "") == (table["outcome"] == REFUSED)).all()
    assert origin["command"] == "python -m docs.architectures" and tables.read_rows(architectures.CSV)[0] == rows


@pytest.mark.slow
def test_the_networks_are_of_at_least_twenty_families_and_each_is_known():
    assert len(set(architectures.FAMILIES)) == len(architectures.FAMILIES) >= 20
    for name in architectures.FAMILIES:
        assert sl.MODELS[name].channels[-1] == 3
