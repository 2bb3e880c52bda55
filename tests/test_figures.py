"""Figures: what they show, and that the style holds."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from saliency_lib import figures, statistics
from saliency_lib.attribution.table import METHODS

TRAININGS = ("standard", "saliency_guided", "saliency_guided_absolute")


def noise(*shape):
    return np.random.default_rng(2).random(shape)


def test_figures_have_axes_units_and_legends():
    fractions, values = np.linspace(0, 1, 5), {name: np.random.default_rng(1).random((20, 5)) for name in ("gradient", "random")}
    figure = figures.mean_curves(fractions, values, changed="pixels removed", score="probability", lower_is_better=True)
    left, right = figure.axes
    assert "%" in left.get_xlabel() and "95 %" in left.get_ylabel() and left.get_ylim() == (0, 1)
    assert {label.get_text() for label in right.get_yticklabels()} == {"gradient", "random"}
    keyed = {line.get_color() for line in right.lines if line.get_linestyle() != "None"}  # the key to the curves
    assert {line.get_color() for line in left.lines} <= keyed
    assert "smaller is better" in right.get_xlabel()
    signed = figures.mean_curves(fractions, {"random": -values["random"]}, changed="c", score="s", lower_is_better=True, of="")
    assert signed.axes[0].get_ylim()[0] < 0 and "(%)" in signed.axes[0].get_xlabel()
    panels = {name: {"gradient": noise(20), "edges": noise(20)} for name in "abcd"}
    several = figures.intervals(panels, dict.fromkeys("abcd", False))
    assert [axes.get_xlabel()[0] for axes in several.axes] == list("abcd")
    assert isinstance(figures.gallery(noise(2, 3, 8, 8), {"gradient": noise(2, 8, 8)}, ["a", "b"]), Figure)
    wide = figures.gallery(noise(2, 3, 8, 8), {str(number): noise(2, 8, 8) for number in range(20)})
    assert len([axes for axes in wide.axes if axes.images]) == 2 * (20 + 3)  # three bands, each with the image again
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "test_accuracy": [0.3, 0.6], "learning_rate": [0.1, 0.1]})
    assert len(figures.training_history(history, noise(2, 1, 8, 8), ["a", "b"], np.ones(2), np.ones(2, bool)).axes) == 2 + 6
    assert figures.training_history(history[:0], noise(7, 1, 8, 8), ["a"] * 7, np.ones(7), np.ones(7, bool)).axes


def test_signed_maps_are_drawn_about_zero_and_others_from_their_least_values():
    figure = Figure()
    one, other, flat = figure.subplots(1, 3)
    figures.draw_map(one, np.array([[-2.0, 1.0]]))
    figures.draw_map(other, np.array([[0.0, 3.0]]))
    figures.draw_map(flat, np.zeros((2, 2)), image=noise(3, 2, 2), opacity=0.5)
    (low, high), (bottom, top) = one.images[0].get_clim(), other.images[0].get_clim()
    assert low == -high and 0 <= bottom < 0.02 * top
    assert len(flat.images) == 2
    figures.draw_map(other, np.array([[5.0, 6.0]]))  # as RISE's maps are, all high
    assert other.images[1].get_clim() == pytest.approx((5.0, 6.0), abs=0.01)


def test_every_method_has_a_colour_of_its_own():
    colours = [figures.colour(name) for name in METHODS]
    assert len(set(colours)) == len(colours)


@pytest.mark.parametrize("shared", [True, False])
def test_panels_have_one_axes_a_case_and_a_key_to_every_line(shared):
    source = np.random.default_rng(0)
    lines = {"standard": source.random((5, 4)), "saliency_guided": source.random((5, 4))}
    values = {"gradient": lines, "random": lines if shared else {"rise": source.random((5, 4))}}
    figure = figures.panels(np.linspace(0, 0.9, 4), values, changed="pixels", score="accuracy")
    drawn = [axes for axes in figure.axes if axes.lines]
    assert [len(axes.lines) for axes in drawn] == [2, 2 if shared else 1]
    keys = figure.legends if shared else [axes.get_legend() for axes in drawn]
    assert {text.get_text() for key in keys for text in key.get_texts()} == {"standard", "saliency guided"} | (
        set() if shared else {"rise"}
    )


def test_the_pictures_show_every_method_and_number():
    areas = {"deletion": {name: number / 2 + noise(40) for number, name in enumerate("abcde")}}
    table = statistics.mean_ranks(areas, {"deletion": True})
    figure = figures.critical_difference_diagram({"first": table, "second": table}, 1.0)
    for axes in figure.axes:
        assert [tick.get_text() for tick in axes.get_yticklabels()] == list(table["method"])
        assert len(axes.lines) == 2 * len(table) + len(statistics.cliques(table["rank"], 1.0)) + 1
    numbers = pd.DataFrame({"x": [1.0, 2.0], "y": [0.5, np.nan]}, index=["a", "b"])
    shown = [text.get_text() for text in figures.heatmap(numbers, "rank").axes[0].texts]
    assert shown == ["1.0", "0.5", "2.0", ""]


def test_the_figure_frames_what_the_proxy_does_not_recognise():
    draws = np.random.default_rng(3)
    names = ("softplus", "score_matching")
    right = {"softplus": np.array([True, False, True, True]), "score_matching": np.array([True, True, True, False])}
    pictures = {name: draws.random((4, 1, 8, 8)) for name in names}
    labels, ratios = np.array([1, 0, 1, 0]), {name: draws.random((6, 3)) for name in names}
    figure = figures.sample_quality(pictures, labels, ["zero", "one"], right, np.array([0, 0.1, 0.2]), ratios)
    assert isinstance(figure, Figure)
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in drawn] == ["zero", "one", "", ""]
    assert np.array_equal(drawn[0].images[0].get_array(), pictures["softplus"][1][0])  # the first sample of class 0
    assert [len(axes.patches) for axes in drawn] == [1, 0, 0, 0]
    left, other = [axes for axes in figure.axes if not axes.images]
    assert {label.get_text() for label in left.get_yticklabels()} == {"softplus", "score matching"}
    assert "recognises" in left.get_xlabel() and "pixel value" in other.get_xlabel() and "logits" in other.get_ylabel()


def test_trainings_stand_side_by_side_in_every_case():
    cases = {case: {"standard": np.full(5, place), "saliency_guided": np.full(5, place + 1)} for place, case in enumerate("abc")}
    figure = figures.intervals_by_training({"Diff(AUP)": cases, "Diff(AUR)": cases})
    for axes in figure.axes:
        dots = [(line.get_xdata()[0], round(line.get_ydata()[0])) for line in axes.lines if line.get_marker() == "o"]
        assert dots == [(0, 2), (1, 2), (1, 1), (2, 1), (2, 0), (3, 0)]  # the first case at the top
    assert [text.get_text() for text in figure.legends[0].texts] == ["standard", "saliency guided"]


def test_what_a_paper_reports_of_a_training_stands_hollow_at_the_height_of_its_own_dot():
    cases = {case: {"standard": np.zeros(5), "saliency_guided": np.ones(5)} for case in "ab"}
    figure = figures.intervals_by_training(
        {"AUP": cases, "AUR": cases}, {("AUP", "b", "saliency_guided"): 0.4, ("AUP", "c", "tcn"): 9.0}
    )
    left, right = ([line for line in axes.lines if line.get_marker() in ("o", "D")] for axes in figure.axes)
    assert [line.get_marker() for line in left] == [*"ooooD"] and [line.get_marker() for line in right] == [*"oooo"]
    ours, hollow = left[-2:]
    assert hollow.get_xdata() == [0.4] and hollow.get_ydata() == ours.get_ydata()
    assert (hollow.get_markerfacecolor(), hollow.get_color()) == ("none", ours.get_color())


def test_what_a_paper_reports_is_hollow_at_the_height_of_its_method():
    values = {"deletion": {"rise": np.full(9, 0.2), "lime": np.full(9, 0.4)}}
    rows = [("deletion", "lime", 0.5), ("deletion", "lime", 0.6), ("insertion", "rise", 0.9), ("deletion", "sidu", 0.9)]
    reported = pd.DataFrame(rows, columns=["quantity", "method", "value"])
    figure = figures.against_reported(values, {"deletion": True}, reported, " (CIFAR-10)")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rise", "lime"] and list(axes.get_yticks()) == [1, 0]
    assert axes.collections[0].get_offsets().tolist() == [[0.5, 0], [0.6, 0]]
    assert [text.get_text() for text in figure.legends[0].texts] == ["this run, with 95 % interval", "reported (CIFAR-10)"]


def test_a_wrong_prediction_is_named():
    history = pd.DataFrame({"epoch": [], "loss": [], "test_accuracy": []})
    figure = figures.training_history(history, noise(2, 1, 8, 8), ["cat", "dog"], np.array([0.5, 1]), np.array([True, False]))
    assert [axes.get_title() for axes in figure.axes[:2]] == ["cat\n50%", "dog\n100%, wrong"]


def names(count):
    return [*METHODS][:count]


CASES = {f"{model} · {name}": {one: noise(9) for one in TRAININGS} for model in ("tcn", "lstm") for name in names(6)}
BENCHMARK = pd.DataFrame({"case": names(9), "ratio": 1.5, "at_least": 2.0, "aim": 3.0, "ceiling": 30.0})
FEWER = pd.DataFrame(
    [
        {
            "picture": picture,
            "seed": seed,
            "estimator": estimator,
            "design": design,
            "passes": passes,
            "correlation": 0.1 * row + 0.0001 * passes,
        }
        for row, estimator in enumerate(("original", "centred", "controlled"))
        for design in ("independent", "antithetic", "stratified")
        for passes in (50, 500, 2000)
        for picture in ("cat", "dog")
        for seed in (0, 2)
    ]
)
SENTENCE = ["the", "incomprehensibilities", "of", "this", "film", "were", "not", "lost", "on", "us", "."]
FEW_NAMES = ("gradient", "guided path integrated gradients")
LONG = {
    "correlations": lambda: figures.correlations(FEWER),
    "mean_curves": lambda: figures.mean_curves(
        np.linspace(0, 1, 5), {name: noise(30, 5) for name in METHODS}, changed="pixels removed", score="p", lower_is_better=True
    ),
    "panels": lambda: figures.panels(
        np.linspace(0, 1, 5), {name: {one: noise(30, 5) for one in TRAININGS} for name in names(7)}, changed="pixels", score="p"
    ),
    "intervals": lambda: figures.intervals(
        {metric: {name: noise(30) for name in METHODS} for metric in ("deletion", "insertion", "average_drop", "road")},
        dict.fromkeys(("deletion", "insertion", "average_drop", "road"), True),
    ),
    "intervals_by_training": lambda: figures.intervals_by_training({"Diff(AUP)": CASES, "Diff(AUR)": CASES}),
    "critical_difference_diagram": lambda: figures.critical_difference_diagram(
        dict.fromkeys(TRAININGS, statistics.mean_ranks({"deletion": {name: noise(30) for name in METHODS}}, {"deletion": True})),
        3.0,
    ),
    "ratios": lambda: figures.ratios({"peer's processor time over ours (larger is better)": BENCHMARK}),
    "heatmap": lambda: figures.heatmap(pd.DataFrame(noise(len(METHODS), 3), index=[*METHODS], columns=TRAININGS), "mean rank"),
    "highlighted": lambda: figures.highlighted(SENTENCE * 12, {name: noise(120) for name in FEW_NAMES}),
    "gallery": lambda: figures.gallery(noise(2, 3, 8, 8), {name: noise(2, 8, 8) for name in METHODS}, ["cat", "dog"]),
    "sample_quality": lambda: figures.sample_quality(
        {name: noise(10, 1, 8, 8) for name in TRAININGS},
        np.arange(10),
        [f"class {number}" for number in range(10)],
        {name: noise(10) > 0.5 for name in TRAININGS},
        np.linspace(0, 1, 4),
        {name: noise(9, 4) for name in TRAININGS},
    ),
}


def test_the_goal_of_fewer_passes_is_the_original_at_its_most():
    figure = figures.correlations(FEWER)
    assert [axes.get_title() for axes in figure.axes] == ["independent masks", "antithetic masks", "stratified masks"]
    for axes in figure.axes:
        dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert [line.get_ydata()[0] for line in dotted] == pytest.approx([0.2])  # 0.0001 of 2,000 passes
        assert len(axes.lines) == 3 + 1  # the mean of each estimator, and the goal


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_words_lie_inside_the_figure_and_do_not_overlap(name, monkeypatch):
    figure, drawn, draw = LONG[name](), [], Text.draw
    monkeypatch.setattr(Text, "draw", lambda self, renderer: (drawn.append(self), draw(self, renderer)))
    FigureCanvasAgg(figure).draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn if text.get_visible() and text.get_text().strip()]
    assert len(boxes) > 10
    for text, box in boxes:
        assert box.x0 > -1 and box.x1 < figure.bbox.width + 1 and box.y0 > -1 and box.y1 < figure.bbox.height + 1, text
    for (one, box), (other, against) in itertools.combinations(boxes, 2):
        overlap = Bbox.intersection(box, against)
        assert overlap is None or min(overlap.width, overlap.height) < 2, (one, other)  # pixels


def test_the_style_holds_whatever_the_readers_settings_are_and_leaves_them_alone():
    with matplotlib.rc_context({"xtick.labelsize": 20, "font.size": 20, "grid.color": "red"}):
        figure = figures.intervals({"deletion": {"rise": noise(9), "lime": noise(9)}}, {"deletion": True})
        assert matplotlib.rcParams["font.size"] == 20
        FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert {label.get_fontsize() for label in axes.get_xticklabels() + axes.get_yticklabels()} == {8}
    assert {line.get_color() for line in axes.get_xgridlines()} == {"#dddddd"} and not axes.spines["top"].get_visible()


def test_words_have_the_colour_of_their_value_and_those_that_people_marked_a_line():
    values, marked = np.array([2.0, 0, -1]), np.array([True, False, True])
    (axes,) = figures.highlighted(["good", "a", "bad"], {"occlusion": values}, marked).axes
    (red, white, blue) = [patch.get_facecolor()[:3] for patch in axes.patches]
    assert red[0] > red[2] + 0.2 and blue[2] > blue[0] + 0.1 and max(white) - min(white) < 0.02
    assert [text.get_text() for text in axes.texts] == ["good", "a", "bad"] and len(axes.lines) == 2
    page = figures.highlighted_html(["<b>", "a"], np.array([1.0, -1]), np.array([False, True]))
    assert "&lt;b&gt;" in page and "<b>" not in page and page.count("underline") == 1 and 'title="-1"' in page


def test_an_axis_says_which_side_is_better():
    rows = {"gradient": {"standard": noise(20)}}
    figure = figures.intervals_by_training({"up": rows, "down": rows}, smaller_is_better=["down"])
    assert [axes.get_xlabel().split("; ")[1] for axes in figure.axes] == ["larger is better", "smaller is better"]
