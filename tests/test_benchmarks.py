"""The benchmarks: results are compared before a clock starts, the arithmetic is right, the kept table is the cases'."""

import functools
import hashlib
import json
import math
import sys

import pandas as pd
import pytest
import torch

import saliency_lib as sl
from saliency_lib import paths

sys.path.insert(0, str(paths.ROOT))  # benchmarks are no part of the installed package
pytest.importorskip("pytorch_grad_cam")

from benchmarks import __main__ as command
from benchmarks import passes, races, scenes, table
from benchmarks.cases import CASES, QUANTITIES, Case
from benchmarks.measure import (
    BUDGET,
    Disagreement,
    Race,
    Unavailable,
    difference,
    interleaved,
    peak,
    rank_correlation,
    ratio,
)

LIGHT = [name for name in CASES if not name.startswith("compiled")]  # compiling takes up to a minute


def seconds(work):
    """A clock that believes what the work says."""
    return float(work().detach().sum())


def says(*numbers):
    """Work that gives one number after the other, then the last one again."""
    left = list(numbers)
    return lambda: torch.tensor([[float(left.pop(0) if len(left) > 1 else left[0])]])


def case(race, **options):
    return Case("mine", "speed", "here", "theirs", lambda **size: race, {}, {}, **options)


@pytest.fixture(scope="module", autouse=True)
def peaks():
    """Each side of a case is measured in a process once, since starting one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "peak", functools.cache(peak))
        yield table.peak


def here(name, side, tiny):
    """A peak that is not measured, and the result of one side of a case."""
    race = CASES[name].race(tiny)
    return 1.0, (race.ours if side == "ours" else race.peer)()


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_every_case_builds_and_its_sides_agree_at_a_tiny_size(name, monkeypatch):
    if CASES[name].quantity == "growth":  # whose four processes take ten seconds
        race = CASES[name].race(tiny=True)
        assert race.agreement.between(race.ours(), race.peer()).startswith("times the passes")
        return
    if name != next(name for name in CASES if CASES[name].quantity == "memory"):  # one case shows that processes are measured
        monkeypatch.setattr(table, "peak", here)
    found = table.row(CASES[name], 1, seconds, tiny=True)
    assert found["note"] if "note" in found else found["agreement"]
    assert set(found) <= set(table.COLUMNS)


@pytest.mark.parametrize("name", CASES)
def test_every_case_says_what_it_measures_and_asks_more_of_its_aim_than_of_its_floor(name):
    entry = CASES[name]
    assert entry.quantity in QUANTITIES and entry.setting and entry.peer
    assert entry.aim is None or entry.aim > entry.at_least


def test_a_ratio_is_the_median_over_rounds_of_the_peers_seconds_over_ours():
    assert ratio([6, 9, 100], [2, 3, 1]) == 3
    race = Race(says(1, 2, 3, 1), says(1, 6, 9, 100), difference(0), says(1, 2, 3))  # the first ones are compared
    found = table.row(case(race, at_least=3.5), 3, lambda work: seconds(work) / 100)
    assert found["ratio"] == pytest.approx(3) and found["met"] == "no" and found["rounds"] == 3
    assert found["ceiling"] == pytest.approx(6)  # of 6/1, 9/2, 100/3
    assert (found["ours"], found["theirs"]) == (0.02, 0.09)


def test_a_floor_that_is_just_reached_is_met():
    assert [case(None, at_least=2.0).met(number) for number in (1.99, 2.0)] == ["no", "yes"]
    assert case(None).met(1.0) == ""
    words = [case(None, at_least=2.0).met(1.5, ceiling) for ceiling in (1.9, 2.0, math.nan, None)]
    assert words == ["above the ceiling", "no", "no", "no"]


def test_rounds_end_where_the_budget_is_spent_and_every_side_runs_in_each():
    order = []
    sides = {name: (lambda name=name: order.append(name) or torch.tensor(4.0)) for name in "ab"}
    taken = interleaved(sides, 5, seconds, budget=BUDGET)
    assert taken == {"a": [4, 4], "b": [4, 4]} and order == list("abab")
    assert len(interleaved(sides, 3, seconds, budget=math.inf)["a"]) == 3
    assert len(interleaved(sides, 3, seconds, budget=0)["a"]) == 1


@pytest.mark.parametrize("wrong", [[1.0, 2.1], [1.0, float("nan")], [1.0, 2.0, 3.0]])
def test_results_that_disagree_are_an_error_before_the_clock_starts(wrong):
    started = []
    race = Race(lambda: torch.tensor(wrong), lambda: torch.tensor([1.0, 2.0]), difference(1e-2))
    with pytest.raises(Disagreement):
        table.row(case(race), 1, lambda work: started.append(work) or 1.0)
    assert not started


def test_maps_of_another_order_disagree():
    rising = torch.arange(6.0).view(1, 2, 3)
    assert rank_correlation(0.9).between(rising**3, rising) == "rank correlation 1"
    with pytest.raises(Disagreement, match="rank correlation is -1"):
        rank_correlation(0.9).between(-rising, rising)


def test_a_kernel_that_makes_more_passes_than_its_definition_disagrees():
    from benchmarks.kernels import method

    frugal = method("gradient", 32, passes=1, images=2, backward=True)
    assert frugal.agreement.between(frugal.ours(), frugal.peer()) == "surplus passes 0"
    wasteful = method("rise", 32, passes=2, masks=8)
    with pytest.raises(Disagreement, match="surplus passes is 7"):
        wasteful.agreement.between(wasteful.ours(), wasteful.peer())


def test_a_race_to_a_tolerance_that_one_side_does_not_reach_is_refused(monkeypatch):
    monkeypatch.setattr(races, "NODES", [1])
    with pytest.raises(Disagreement, match=r"captum's completeness error of image 0 is above 0.1 with 1 nodes; use a larger"):
        races.completeness("cnn", 32, 1, 0.1)
    with pytest.warns(UserWarning), pytest.raises(Disagreement, match=r"our completeness error is .*, above 1e-12; use a larger"):
        races.completeness("cnn", 32, 1, 1e-12)


def test_the_bare_passes_go_through_the_network_as_often_as_they_say():
    model, pixels = scenes.network("cnn", 32), scenes.photographs(1, 32)
    for backward in (False, True):
        assert scenes.counted(model, scenes.bare_passes(model, pixels, 1000, backward))() == 1000


@pytest.mark.slow
def test_the_peak_of_a_process_holds_what_the_procedure_holds(peaks):
    masks, side = CASES["rise_map_memory"].tiny["masks"], CASES["rise_map_memory"].tiny["side"]
    megabytes, found = peaks("rise_map_memory", "peer", True)
    assert found.shape == (1, side, side)
    assert megabytes * 2**20 >= masks * side**2 * (8 + 4 + 3 * 4)  # double and single masks, masked images


@pytest.mark.slow
def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"the process of nothing, ours failed: (?s:.)*KeyError: 'nothing'"):
        peak("nothing", "ours")


def test_networks_and_photographs_are_the_same_every_time_and_leave_the_random_state():
    before = torch.get_rng_state()
    one, other = (scenes.network("resnet18", 32).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(before, torch.get_rng_state())
    assert scenes.photographs(8, 32).unique(dim=0).shape == (8, 3, 32, 32)


def test_the_table_that_is_kept_has_a_row_for_every_case_and_fits_its_origin():
    found, origin = sl.notebook.measured("benchmarks")
    assert list(found["case"]) == list(CASES) and list(found.columns) == table.COLUMNS
    assert {"processor", "device", "commit", "versions"} <= set(origin)
    for row in found.fillna({"met": ""}).itertuples():
        entry = CASES[row.case]
        assert (row.setting, row.peer, row.quantity) == (entry.setting, entry.peer, entry.quantity)
        measured = row.ratio > 0
        assert row.met == (entry.met(row.ratio, row.ceiling) if measured else "")
        assert measured != isinstance(row.note, str)


def test_a_table_changed_by_hand_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    file = tmp_path / "data" / "measured" / "mine.csv"
    table.write(pd.DataFrame({"case": ["a"], "ratio": [2.0]}), file)
    assert sl.notebook.measured("mine")[0]["ratio"].tolist() == [2.0]
    assert json.loads(file.with_suffix(".json").read_text())["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_text(file.read_text().replace("2", "9"))
    with pytest.raises(ValueError, match=r"mine.csv was changed after it was made: .*; run `make bench` to make it again"):
        sl.notebook.measured("mine")


def test_rows_measured_later_take_their_place_and_the_origin_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    file = tmp_path / "data" / "measured" / "mine.csv"
    monkeypatch.setattr(table, "CASES", dict.fromkeys("acb"))
    table.write(pd.DataFrame({"case": ["a", "b"], "ratio": [2.0, 3.0], "note": [None, "x"]}), file, "all")
    table.write(pd.DataFrame({"case": ["c", "a"], "ratio": [5.0, 4.0], "note": [None, None]}), file, "some", some=True)
    found, origin = sl.notebook.measured("mine")
    assert found["case"].tolist() == ["a", "c", "b"] and found["ratio"].tolist() == [4.0, 5.0, 3.0], "in the order of the cases"
    assert origin["command"] == "all"
    assert [(later["command"], later["cases"]) for later in origin["measured later"]] == [("some", ["c", "a"])]


@pytest.fixture
def cases(monkeypatch):
    """Two cases in place of the others, one of which has no agreement, one that cannot run; and what gets written."""
    one = torch.ones(1)
    races = {"good": Race(lambda: one, lambda: one, difference(0.1)), "bad": Race(lambda: one, lambda: 2 * one, difference(0.1))}

    def absent(**size):
        raise Unavailable("not here")

    entries = {name: Case(name, "speed", "s", "p", lambda race=race: race, {}, {}, 1e9) for name, race in races.items()}
    entries["absent"] = Case("absent", "option", "s", "p", absent, {}, {})
    written = []
    monkeypatch.setattr(command, "CASES", entries)
    monkeypatch.setattr(command.table, "write", lambda found, command, some: written.append(found))
    monkeypatch.setattr(command, "cpu_seconds", lambda work: 1.0)
    return written


def test_a_failed_case_is_reported_the_others_run_and_nothing_is_kept(cases, capsys):
    assert command.main([]) == 1
    printed = capsys.readouterr()
    assert "failed: Disagreement" in printed.out and "good" in printed.out and "nothing was kept: bad" in printed.err
    assert not cases


def test_some_cases_are_printed_and_kept_only_when_asked(cases, capsys):
    assert command.main(["--cases", "good", "absent"]) == 0 and not cases
    assert "not here" in capsys.readouterr().out
    assert command.main(["--cases", "good", "--write"]) == 0 and list(cases[0]["case"]) == ["good"]
    assert list(cases[0]["met"]) == ["no"]  # a miss is no failure


@pytest.mark.parametrize(
    ("words", "message"), [(["--cases", "goood"], "did you mean 'good'"), (["--rounds", "0"], "at least 1, got 0")]
)
def test_a_wrong_word_on_the_command_line_is_refused(cases, words, message, capsys):
    with pytest.raises(SystemExit):
        command.main(words)
    assert message in capsys.readouterr().err


def test_passes_are_measured_per_picture_and_go_on_where_they_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    model, image = scenes.network("cnn", 32), scenes.photographs(1, 32)[0]
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    most = {"independent": 100, "antithetic": 50, "stratified": 50}

    def measured(*seeds):
        return pd.DataFrame(passes.rows(model, "cat", image, most, 400, seeds))

    first = measured(0)
    assert sum(seen) == 400 + 200 + 4  # one more pass per set of masks finds the class
    both = measured(0, 2)
    assert sum(seen) == 604 + 4 * 5 + 200 + 3  # four masks show that the stored scores are those of these masks
    pd.testing.assert_frame_equal(both[both["seed"] == 0], first)
    again = measured(0, 2)
    assert sum(seen) == 827 + 7 * 5
    pd.testing.assert_frame_equal(both, again)
    assert list(both.columns) == passes.COLUMNS and len(both) == 2 * 3 * (2 + 1 + 1)
    assert both["correlation"].between(-1, 1).all() and both.groupby("seed")["correlation"].sum().nunique() == 2
    next(tmp_path.rglob("*antithetic*-0.npy")).write_bytes(next(tmp_path.rglob("*stratified*-0.npy")).read_bytes())
    pd.testing.assert_frame_equal(measured(0, 2), both)
    assert "has the scores of other masks and is made again" in capsys.readouterr().err
    assert len(passes.summary(first)) == len(passes.summary(both)) == 9
    intervals = passes.intervals(both)  # of one picture: over its seeds
    assert (intervals["low"] <= intervals["mean"]).all() and (intervals["mean"] <= intervals["high"]).all()


def test_the_passes_that_are_needed_are_the_fewest_whose_mean_reaches_the_originals_last():
    numbers = {
        0: {"original": (0.1, 0.3, 0.5), "centred": (0.45, 0.6, 0.7), "controlled": (0.6, 0.6, 0.6)},
        2: {"original": (0.1, 0.2, 0.4), "centred": (0.5, 0.5, 0.7), "controlled": (0.2, 0.2, 0.2)},
    }
    found = pd.DataFrame(
        [
            dict(zip(passes.COLUMNS, (picture, seed, name, "independent", count, number + shift), strict=True))
            for seed, lines in numbers.items()
            for name, line in lines.items()
            for count, number in zip((10, 20, 30), line, strict=True)
            for picture, shift in (("cat", -0.1), ("dog", 0.1))
        ]
    )
    needed = passes.summary(found).xs("independent", level="design")
    assert needed.loc["original"].tolist() == [30, 1, 1]
    assert needed.loc["centred"].tolist() == [10, 1.5, 3]  # seed 0 needs 20 masks, seed 2 needs 10, and so does the mean
    assert needed["reached"].isna().to_dict() == {"original": False, "centred": False, "controlled": True}
    assert needed.loc["controlled"].isna().all()  # seed 0 would reach it at once


def test_the_passes_that_are_kept_are_of_the_first_pictures_and_name_each():
    found, origin = sl.notebook.measured("rise_passes")
    known = list(passes.pictures())
    kept = list(found["picture"].unique())
    assert kept == known[: len(kept)] and f"--passes {len(kept)} " in origin["command"]
    assert list(found.columns) == passes.COLUMNS and set(found["design"]) == set(passes.MOST)
    seeds = found["seed"].unique()
    assert set(seeds) <= set(passes.SEEDS) and passes.OTHER_SEED not in seeds
    assert (found.groupby(["picture", "seed"]).size() == len(found) / len(kept) / len(seeds)).all()
    assert len(sl.figures.correlations(found).axes) == len(passes.MOST)


def test_there_are_twenty_pictures_and_the_photographs_come_first():
    found = passes.pictures()
    assert len(found) == 20 and {tuple(image.shape) for image in found.values()} == {(3, 224, 224)}
    photos = sl.DATASETS["photos"]()
    assert torch.equal(torch.stack([*found.values()][:6]), photos.images)


@pytest.mark.parametrize("count", ["0", "21"])
def test_more_pictures_than_there_are_cannot_be_measured(count, capsys):
    with pytest.raises(SystemExit):
        command.main(["--passes", count])
    assert f"must be from 1 to 20, got {count}" in capsys.readouterr().err


def test_the_figure_has_a_line_for_every_case_that_was_measured():
    found, _ = sl.notebook.measured("benchmarks")
    parts = {quantity: part for quantity, part in found.groupby("quantity") if quantity in ("speed", "growth")}
    figure = sl.figures.ratios(parts)
    drawn = {axes.get_xlabel(): len(axes.get_yticks()) for axes in figure.axes}
    assert drawn == {name: sum(entry.quantity == name for entry in CASES.values()) for name in parts} and len(drawn) == 2
