"""sl.evaluate: the same maps and areas as the tables give, intervals, ranks and verdicts, and clear errors."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import saliency_lib as sl


class Sums(torch.nn.Module):
    """The logits are the sums of the left and of the right half of an image."""

    def forward(self, pixels):
        half = pixels.shape[3] // 2
        return torch.stack([pixels[..., :half].sum((1, 2, 3)), pixels[..., half:].sum((1, 2, 3))], 1) / 10


def pixels(count=6):
    return torch.rand(count, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def test_maps_and_areas_are_those_of_the_tables():
    found = sl.evaluate(Sums(), pixels(), ["input_x_gradient"], ["deletion", "srg"], progress=False, seed=4)
    assert set(found.maps) == {"input_x_gradient", "random"}
    assert torch.equal(found.targets, Sums()(pixels()).argmax(1))
    for name, values in found.maps.items():
        more = {"seed": 4, "indices": torch.arange(6)} if name == "random" else {}
        torch.testing.assert_close(values, sl.METHODS[name](Sums(), pixels(), found.targets, **more))
        area = sl.METRICS["deletion"](Sums(), pixels(), values, found.targets, seed=4, indices=torch.arange(6)).area
        np.testing.assert_allclose(found.areas["deletion"][name], area, rtol=1e-5)


def test_the_table_has_means_ranks_and_verdicts_with_the_best_first():
    found = sl.evaluate(Sums(), pixels(120), ["input_x_gradient"], ["deletion"], progress=False)
    best, control = found.table.to_dict("records")
    assert (best["method"], best["verdict"], best["images"]) == ("input_x_gradient", "supported", 120)
    assert (control["method"], control["verdict"], control["gain over random"]) == ("random", "control", "")
    area = found.areas["deletion"]
    assert best["mean"] == pytest.approx(area["input_x_gradient"].mean()) and best["low"] < best["mean"] < best["high"]
    wins = (area["input_x_gradient"] < area["random"]).mean()
    assert best["mean rank"] == pytest.approx(2 - wins) and control["mean rank"] == pytest.approx(1 + wins)
    assert set(sl.evaluate(Sums(), pixels(), ["gradient"], ["deletion"], progress=False).table["verdict"]) == {
        "not tested",
        "control",
    }


def test_a_function_of_ones_own_is_measured_under_its_name_also_by_metrics_that_explain_again():
    def brightness(model, images, targets):
        return images.sum(1)

    found = sl.evaluate(
        Sums(), pixels(), {"bright": brightness, "grad": "gradient"}, ["deletion", "max_sensitivity"], progress=False
    )
    torch.testing.assert_close(found.maps["bright"], pixels()[:, 0])
    assert set(found.table["method"]) == {"bright", "grad", "random"} and (found.areas["max_sensitivity"]["bright"] > 0).all()
    assert isinstance(found.gallery(2, ["a", "b"]), Figure) and "bright" in found._repr_html_() and "bright" in repr(found)


def test_options_go_to_their_method_and_metric():
    plain, other = (
        sl.evaluate(Sums(), pixels(), ["occlusion"], ["deletion"], options=given, progress=False)
        for given in ({}, {"occlusion": {"window": 4, "stride": 4}, "deletion": {"steps": 3}})
    )
    assert not torch.equal(plain.maps["occlusion"], other.maps["occlusion"])
    expected = sl.METHODS["occlusion"](Sums(), pixels(), plain.targets, window=4, stride=4)
    torch.testing.assert_close(other.maps["occlusion"], expected)


def test_without_metrics_there_are_maps_and_an_empty_table():
    found = sl.evaluate(Sums(), pixels(), ["gradient"], [], progress=False)
    assert isinstance(found.table, pd.DataFrame) and found.table.empty and found.maps["gradient"].shape == (6, 12, 12)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((["gradien"],), {}, ValueError, "method 'gradien' is not known; did you mean 'gradient'"),
        (("gradient",), {}, TypeError, r"must be a list of names .*write \['gradient'\]"),
        (([],), {"metrics": ["deletoin"]}, ValueError, "metric 'deletoin' is not known; did you mean 'deletion'"),
        (({"mine": 3},), {}, TypeError, "must be a name in METHODS or a function"),
        ((["gradient"],), {"options": {"rise": {}}}, ValueError, "method or metric with options 'rise' is not known"),
        ((["gradient"],), {"targets": torch.tensor([0, 5, 0, 0, 0, 0])}, ValueError, "5"),
        (({"mine": lambda m, x, t: x[:, 0, :5]},), {}, ValueError, r"\(6, 5, 12\)"),
        (({"mine": lambda m, x, t: x[:, 0] * torch.nan},), {}, ValueError, "NaN|finite"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(arguments, options, kind, message):
    with pytest.raises(kind, match=message):
        sl.evaluate(Sums(), pixels(), *arguments, progress=False, **options)
