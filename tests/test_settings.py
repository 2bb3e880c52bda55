"""The settings of a recipe: what they refuse, and in which words."""

import pytest

import saliency_lib as sl
from saliency_lib.training.settings import DEFAULTS, Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": {"by": "loss", "patiense": 3}}, "field of selection 'patiense' is not known; did you mean 'patience'"),
        ({"trainable": "heads"}, "trainable must be 'all' or 'head', got 'heads'"),
        ({"precision": "16"}, "precision must be '32-true' or 'bf16-mixed', got '16'"),
        ({"devices": 0}, "devices must be greater than or equal to 1, got 0"),
        ({"devices": 100}, "100 devices cannot share a batch of 64 images"),
        ({"optimiser": "nesterov"}, "optimiser nesterov needs a momentum above 0"),
        ({"images": -1}, "images must be greater than or equal to 1, got -1"),
        ({"options": {"fraction": 0.5}}, "option of objective 'cross_entropy' 'fraction' is not known"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        sl.Training(changes=changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": {"by": "acc"}}, "selection.by must be 'loss' or 'accuracy', got 'acc'"),
        ({"selection": {"split": "tests"}}, "selection.split must be 'validation' or 'test', got 'tests'"),
        ({"selection": {"patience": "20"}}, "selection.patience must be a valid integer, got '20'"),
        ({"selection": {"patience": 0}}, "selection.patience must be greater than or equal to 1, got 0"),
        ({"selection": {"share": 2}}, "selection.share must be less than 1, got 2"),
        ({"selection": "loss"}, "selection must be a valid dictionary or instance of Selection, got 'loss'"),
        ({"learning_rate": "fast"}, "learning_rate must be a valid number, got 'fast'"),
        ({"learning_rate": -1}, "learning_rate must be greater than 0, got -1"),
        ({"optimiser": "adamm"}, "optimiser 'adamm' is not known; did you mean 'adam'"),
        ({"schedule": "stepp"}, "schedule 'stepp' is not known; did you mean 'step'"),
        ({"augmentation": "flip"}, "augmentation 'flip' is not known; did you mean 'crop_flip'"),
    ],
)
def test_values_are_checked_before_anything_is_trained(changes, message):
    with pytest.raises(ValueError, match=message):
        sl.Training(changes=changes)


def test_differences_of_logits_are_not_taken_in_half_precision():
    with pytest.raises(ValueError, match="bf16-mixed rounds to nothing; use precision 32-true"):
        sl.Training("mnist5k", "cnn", "score_matching", changes={"precision": "bf16-mixed"})
    sl.Training("mnist5k", "cnn", "gradient_norm", changes={"precision": "bf16-mixed"})


def test_settings_that_a_recipe_leaves_out_rename_nothing():
    """A setting that was added later, at the value that it had before it was there, is not part of the digest."""
    assert sl.Training(changes={"batch_norm": "frozen"}).digest != sl.Training().digest
    assert not set(sl.Training().implied()["settings"]) & set(DEFAULTS)


def test_settings_that_are_missing_or_unknown_are_named():
    whole = sl.Training().settings
    with pytest.raises(ValueError, match=r"^epochs is missing$"):
        Settings.model_validate({name: value for name, value in whole.items() if name != "epochs"})
    with pytest.raises(ValueError, match="field of settings 'epoch' is not known; did you mean 'epochs'"):
        Settings.model_validate(whole | {"epoch": 1})
    assert Settings.model_validate(whole).epochs == whole["epochs"]
