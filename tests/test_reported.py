"""The numbers that the papers report: each table is tidy, speaks the compendium's names and says what its paper says."""

import pandas as pd
import pytest

import saliency_lib as sl
from saliency_lib import paths

FILES = sorted(set((paths.ROOT / "data" / "reported").glob("*.csv")) - {paths.ROOT / "data" / "reported" / "claims.csv"})
KEY = ["dataset", "model", "training", "quantity", "method"]
COLUMNS = ["where", *KEY, "value", "read_in"]
RANGES = {  # lowest and highest value that the definition allows
    "accuracy": (0, 1),
    "gan_test": (0, 1),
    "allegiance_black": (0, 0.9),  # the axis ends at 0.9 and the area is not divided by it
    "allegiance_white": (0, 0.9),
    "deletion": (0, 1),
    "insertion": (0, 1),
    "aup_difference": (-1, 1),
    "aur_difference": (-1, 1),
    "comprehensiveness": (-1, 1),
    "sufficiency": (-1, 1),
}
FOREIGN = (  # data that the compendium does not have
    "caltech101",
    "svhn",
    "oxford_iiit_pet",
    "oxford_flowers",
    "imagenet_first_10000",
    "movies",
    "fever",
    "e_snli",
    "multivariate_time_series",
)
TEXT = ("movies", "fever", "e_snli")  # the poster names no network for them, and one random value for both trainings


def reported(paper):
    table = pd.read_csv(paths.ROOT / "data" / "reported" / f"{paper}.csv", keep_default_na=False)
    return table.astype({"value": float})


def side_by_side(paper, column, **where):
    """The rows with these values, one column for each value of `column`."""
    table = reported(paper)
    for name, value in where.items():
        table = table[table[name] == value]
    wide = table.pivot(index=[name for name in KEY if name != column], columns=column, values="value")
    assert len(wide) and wide.notna().all(axis=None)
    return wide


@pytest.fixture(params=[file.stem for file in FILES])
def table(request):
    return reported(request.param)


def test_there_is_one_table_a_paper_and_only_the_one_whose_numbers_cannot_be_had_is_empty():
    assert {file.stem: len(reported(file.stem)) for file in FILES} == {
        "active_gradients": 2 * 3 * 6 + 6,  # fills, maps and networks, and the networks' accuracies
        "guided_nonlinearity": 0,
        "guided_training": 2 * 4 * 6 * 2 + 3 * 2 * (3 * 2 + 1),  # time series; text, with one random value each
        "saliency_benchmark": 2 * 4 * 7 * 2 * 2 + 7 * 2 * 2 + 3,  # areas, accuracies, RISE's own
        "score_matching": 2 * 4,
    }


def test_a_table_has_these_columns_and_one_value_for_each_thing_reported(table):
    assert list(table.columns) == COLUMNS
    assert not table.duplicated(KEY).any()
    assert (table["where"] != "").all()
    assert table.read_in.isin(["code", "paper", "secondary"]).all()  # nothing from memory


def test_a_value_is_finite_and_in_the_range_of_its_quantity(table):
    for row in table.itertuples():
        low, high = RANGES[row.quantity]
        assert low <= row.value <= high, row


def test_every_name_is_the_compendiums_own_or_listed_here_as_foreign(table):
    recipes = sl.recipes()
    for row in table.itertuples():
        assert row.dataset in sl.DATASETS or row.dataset in FOREIGN, row
        assert row.model in sl.MODELS or (row.model == "" and row.dataset in TEXT), row
        assert row.training in recipes or (row.training == "" and row.method == "random" and row.dataset in TEXT), row
        assert row.method in sl.METHODS or (row.method == "" and row.quantity in ("accuracy", "gan_test")), row


@pytest.mark.parametrize(
    ("quantity", "maps"),
    [
        ("allegiance_black", ["positive_gradient", "active_gradient"]),
        ("allegiance_white", ["negative_gradient", "inactive_gradient"]),
    ],
)
def test_active_gradients_says_that_its_maps_lie_below_the_gradient_for_every_network(quantity, maps):
    wide = side_by_side("active_gradients", "method", quantity=quantity)
    assert len(wide) == 6
    assert wide[maps].lt(wide["gradient"], axis=0).all(axis=None)


@pytest.mark.parametrize("model", ["resnet18", "vgg11"])
def test_the_saliency_benchmark_says_that_gradcam_inserts_above_rise_for_every_fine_tuned_network(model):
    wide = side_by_side("saliency_benchmark", "method", quantity="insertion", training="fine_tuning", model=model)
    assert len(wide) == 7
    assert (wide["gradcam"] > wide["rise"]).all()


def test_the_saliency_benchmark_says_that_fine_tuning_classifies_better_than_feature_extraction_with_resnet18():
    wide = side_by_side("saliency_benchmark", "training", quantity="accuracy", model="resnet18")
    assert (wide["fine_tuning"] > wide["feature_extraction"]).all()


@pytest.mark.parametrize("quantity", ["aup_difference", "aur_difference"])
def test_guided_training_says_that_it_helps_with_every_method_where_cells_are_attended_to(quantity):
    wide = side_by_side("guided_training", "training", quantity=quantity, model="lstm_cell_attention")
    assert len(wide) == 6
    assert (wide["saliency_guided"] > wide["standard"]).all()


@pytest.mark.parametrize(("quantity", "sign"), [("comprehensiveness", 1), ("sufficiency", -1)])
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad"])
def test_guided_training_says_that_it_never_harms_on_text(quantity, sign, method):
    wide = side_by_side("guided_training", "training", quantity=quantity, method=method)
    assert len(wide) == len(TEXT)
    assert (sign * (wide["saliency_guided"] - wide["standard"]) >= 0).all()


@pytest.mark.parametrize(
    ("quantity", "ascending"),
    [
        ("gan_test", ["anti_score_matching", "softplus", "score_matching", "gradient_norm"]),
        ("accuracy", ["score_matching", "anti_score_matching", "gradient_norm", "softplus"]),
    ],
)
def test_score_matching_says_in_which_order_the_regularisers_come(quantity, ascending):
    values = side_by_side("score_matching", "training", quantity=quantity)[ascending].iloc[0]
    assert values.is_monotonic_increasing and values.is_unique
