"""Texts: the same kernels as for images, without padding, on the vectors of the words."""

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients

import saliency_lib as sl
from saliency_lib.core.texts import real_tokens
from saliency_lib.training import objectives
from tests.conftest import quick

NETWORKS = ("text_cnn", "text_lstm", "text_transformer")
LENGTHS = (5, 9, 9, 3)  # tokens of the texts below
BY_RULES = {"guided_backprop", "gnl_integrated_gradients", "deeplift", "deeplift_shap", "guided_smoothgrad"}
BY_LAYERS = {"gradcam", "score_cam", "sidu"}  # which need a layer that every path crosses
ATTENTIVE = {"attention", "attention_rollout"}
TRANSFORMERS = {"attn_lrp", "gradient_rollout"}
ALL = sorted({*sl.METHODS, *sl.PARTICULAR_METHODS} - BY_LAYERS)
RATIONALES = ("auprc", "token_f1", "iou_f1")
TOKEN_METRICS = ("comprehensiveness", "sufficiency", "srg", "deletion", "insertion", "masked_accuracy", *RATIONALES)


def network_for(method: str) -> torch.nn.Module:
    """A random network of texts that the method takes."""
    torch.manual_seed(3)
    name = "text_lstm" if method in ATTENTIVE else "text_transformer" if method in TRANSFORMERS else "text_cnn"
    return sl.MODELS[name](classes=3).eval()


def texts(padding: int = 0) -> torch.Tensor:
    """Four random texts of different lengths, (4, 1, 1, 9 + padding)."""
    drawn = torch.randint(1, 100, (4, max(LENGTHS)), generator=torch.Generator().manual_seed(4)).float()
    for row, length in enumerate(LENGTHS):
        drawn[row, length:] = 0
    return torch.nn.functional.pad(drawn, (0, padding))[:, None, None]


def options_of(method: str) -> dict:
    """Options that make a method cheap, without those that are for images of several rows."""
    known = quick(method) if method in sl.METHODS else {}
    return {name: value for name, value in known.items() if name not in ("window", "stride", "segments")}


def maps_of(method: str, model: torch.nn.Module, inputs: torch.Tensor, **options) -> torch.Tensor:
    extra = {"cells": 1} if method == "sidu_grids" else {}
    return sl.METHODS[method](model, inputs, **options_of(method), **extra, **options)


@pytest.mark.parametrize("method", ALL)
def test_padding_never_counts(method):
    model = network_for(method)
    maps, padded = maps_of(method, model, texts()), maps_of(method, model, texts(padding=7))
    assert maps.shape == (4, 1, 9) and padded.shape == (4, 1, 16)
    torch.testing.assert_close(padded[..., :9], maps, rtol=1e-5, atol=1e-6)
    for row, length in enumerate(LENGTHS):
        assert not padded[row, :, length:].any() and maps[row].isfinite().all()


@pytest.mark.parametrize("method", ALL)
def test_a_map_does_not_depend_on_the_other_texts(method):
    model, inputs, order = network_for(method), texts(), torch.tensor([2, 0, 3, 1])
    known = {**sl.METHODS.options(method)} if method in sl.METHODS else {}
    indices = {"indices": order} if "indices" in known else {}
    maps, permuted = maps_of(method, model, inputs), maps_of(method, model, inputs[order], **indices)
    torch.testing.assert_close(permuted, maps[order], rtol=1e-4, atol=1e-6)
    alone = maps_of(method, model, inputs[3:], **({"indices": [3]} if indices else {}))
    torch.testing.assert_close(alone[0, :, :3], maps[3, :, :3], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", sorted(BY_RULES))
def test_a_rule_refuses_a_network_with_units_that_it_does_not_cover(method):
    with pytest.raises(ValueError, match="lstm"):
        sl.METHODS[method](sl.MODELS["text_lstm"]().eval(), texts())


@pytest.mark.parametrize("metric", TOKEN_METRICS)
def test_the_area_of_a_text_depends_neither_on_padding_nor_on_other_texts(metric):
    model, inputs = network_for("gradient"), texts()
    maps = torch.rand(4, 1, 9, generator=torch.Generator().manual_seed(5))
    objects = {"objects": torch.ones(4, 1, 9, dtype=torch.bool)} if metric in RATIONALES else {}
    curve = sl.METRICS[metric](model, inputs, maps, **objects)
    more = {name: torch.nn.functional.pad(value, (0, 7)) for name, value in objects.items()}
    padded = sl.METRICS[metric](model, texts(padding=7), torch.nn.functional.pad(maps, (0, 7), value=9.0), **more)
    torch.testing.assert_close(padded.area, curve.area, rtol=1e-5, atol=1e-6)
    part = {name: value[3:, :, :3] for name, value in objects.items()}
    alone = sl.METRICS[metric](
        model,
        inputs[3:, ..., :3],
        maps[3:, :, :3],
        **part,
        **({"indices": [3]} if "indices" in sl.METRICS.options(metric) else {}),
    )
    torch.testing.assert_close(alone.area, curve.area[3:], rtol=1e-4, atol=1e-5)
    assert curve.values.shape == (4, len(curve.fractions))


@pytest.mark.parametrize("name", NETWORKS)
def test_integrated_gradients_of_a_text_sum_to_the_change_of_the_score_from_padding(name):
    torch.manual_seed(0)
    model, inputs = sl.MODELS[name](classes=3).eval().double(), texts().double()
    for part in model.modules():  # smooth, so that the integral converges
        if isinstance(part, torch.nn.Sequential) and isinstance(part[-1], torch.nn.ReLU):
            part[-1] = torch.nn.Softplus()
    maps = sl.METHODS["integrated_gradients"](model, inputs, 1, steps=60)
    vectors, real = model.embed(inputs), real_tokens(model.embed(inputs))
    with torch.no_grad():
        for row in range(4):
            text = vectors[row : row + 1, :, :, real[row]]
            with model.whole():
                change = model(text)[0, 1] - model(torch.zeros_like(text))[0, 1]
            limit = 2e-3 if name == "text_cnn" else 1e-6  # the maximum over the text has corners
            assert abs(maps[row].sum() - change) < limit * max(1, abs(change))


def test_integrated_gradients_equal_captums_on_the_layer_of_the_embedding():
    torch.manual_seed(1)
    model, inputs = sl.MODELS["text_lstm"](classes=3).eval(), texts()[1:3]  # which have no padding
    ours = sl.METHODS["integrated_gradients"](model, inputs, 2, steps=30)
    captum = LayerIntegratedGradients(lambda numbers: model(numbers), model.embedding)
    with model.whole():
        theirs = captum.attribute(inputs, torch.zeros_like(inputs), target=2, n_steps=30, method="gausslegendre")
    torch.testing.assert_close(ours[:, 0], theirs.sum(2), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_logits_of_a_text_do_not_depend_on_padding(name):
    torch.manual_seed(0)
    model = sl.MODELS[name](classes=3).eval()
    with torch.no_grad():
        whole, padded = model(texts()), model(texts(padding=12))
        alone = model(texts()[3:, ..., :3])
        vectors = model(model.embed(texts())[:, :, 0].transpose(1, 2))
    for other in (padded, vectors):
        torch.testing.assert_close(other, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone, whole[3:], rtol=1e-5, atol=1e-6)


def test_maps_of_vectors_are_those_of_the_words():
    model = network_for("gradient")
    vectors = model.embed(texts())[:, :, 0].transpose(1, 2).detach()
    flat = sl.METHODS["integrated_gradients"](model, vectors)
    assert flat.shape == (4, 9)
    torch.testing.assert_close(flat, sl.METHODS["integrated_gradients"](model, texts())[:, 0])
    assert sl.METRICS["srg"](model, vectors, flat).area.shape == (4,)


class Sums(torch.nn.Module):
    """Logits whose first is the sum of the vectors' first numbers, so that each word's share is known."""

    def forward(self, vectors, real):
        total = vectors[:, :1, 0].sum(2)
        return torch.cat([total, -total], 1)


def five_tokens() -> tuple[torch.nn.Module, torch.Tensor]:
    """A network whose logit is the sum of what five words are worth: 3, 1, 0, 0 and -1."""
    from saliency_lib.networks.embeddings import random_vectors
    from saliency_lib.networks.texts import TextModel

    model = TextModel(Sums(), tuple(f"word {k}" for k in range(6)), random_vectors).eval()
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.embedding.weight[1:, 0] = torch.tensor([3.0, 1, 1e-9, 1e-9, -1])
    return model, torch.arange(1.0, 6).view(1, 1, 1, 5)


def test_comprehensiveness_and_sufficiency_of_five_tokens_by_hand():
    model, text = five_tokens()
    maps = torch.tensor([[[5.0, 4, 3, 2, 1]]])
    at = lambda total: float(torch.sigmoid(torch.tensor(2.0 * total)))  # noqa: E731, the probability of a sum
    # 40 % are two words, 80 % are four; without them the sum 3 is -1 and -1, with them alone it is 4 and 4
    found = [sl.METRICS[name](model, text, maps, fractions=[0.4, 0.8]) for name in ("comprehensiveness", "sufficiency")]
    assert float(found[0].area) == pytest.approx(at(3) - at(-1), abs=1e-6)
    assert float(found[1].area) == pytest.approx(at(3) - at(4), abs=1e-6)


@pytest.mark.parametrize("metric", ["comprehensiveness", "sufficiency"])
def test_both_are_the_mean_over_the_shares_of_what_single_calls_of_the_model_lose(metric):
    """As the released code of ERASER averages: over the shares, without a term for the empty rationale."""
    model, inputs = network_for("gradient"), texts()
    maps = torch.rand(4, 1, 9, generator=torch.Generator().manual_seed(5))
    ours = sl.METRICS[metric](model, inputs, maps).area
    vectors = model.embed(inputs).detach()
    for row, length in enumerate(LENGTHS):
        text = vectors[row, :, 0, :length].numpy()
        with model.whole(), torch.no_grad():

            def score(values, label=None):
                shares = model(torch.from_numpy(values)[None, :, None]).softmax(1)[0]
                return (int(shares.argmax()), float(shares.max())) if label is None else float(shares[label])

            label, whole = score(text)
            falls = []
            for share in (0.01, 0.05, 0.1, 0.2, 0.5):
                chosen = np.argsort(-maps[row, 0, :length].numpy())[: round(share * length)]
                kept = np.isin(np.arange(length), chosen) == (metric == "sufficiency")
                falls.append(whole - score(np.where(kept, text, 0), label))
        assert float(ours[row]) == pytest.approx(np.mean(falls), abs=1e-6)


def test_lime_and_occlusion_of_a_sum_find_what_each_word_is_worth():
    model, text = five_tokens()
    worth = torch.tensor([3.0, 1, 0, 0, -1])
    exact = sl.METHODS["occlusion"](model, text, 0, score="logit")[0, 0]
    torch.testing.assert_close(exact, worth, atol=1e-5, rtol=0)
    close = sl.METHODS["lime"](model, text, 0, score="logit", samples=2000)[0, 0]
    torch.testing.assert_close(close, worth, atol=0.05, rtol=0.05)
    ranked = sl.METHODS["rise"](model, text, 0, masks=2000, estimator="centred", score="logit")[0, 0]
    torch.testing.assert_close(ranked / ranked[0] * 3, worth, atol=0.3, rtol=0)


# Attention, with weights that are known.


def test_attention_weights_are_those_that_average_the_outputs():
    torch.manual_seed(0)
    model, inputs = sl.MODELS["text_lstm"]().eval(), texts()
    maps = sl.METHODS["attention"](model, inputs)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(4))
    with model.whole(), torch.no_grad():
        network, vectors = model.network, model.embed(inputs[3:, ..., :3])
        outputs, _ = network.recurrent(vectors[:, :, 0].transpose(1, 2))
        torch.testing.assert_close(maps[3, 0, :3], network.score(outputs)[0, :, 0].softmax(0))


def test_rollout_of_two_tokens_by_hand():
    class Given(torch.nn.Module):
        is_attention = True

        def __init__(self, weights):
            super().__init__()
            self.weights = weights

        def forward(self, like):
            return self.weights.expand(len(like), 1, 2, 2)

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Given(torch.tensor([[1.0, 0], [0.5, 0.5]])), Given(torch.tensor([[0.0, 1], [0, 1]]))

        def forward(self, images):
            self.first(images), self.second(images)
            return images.flatten(1)

    # (A1 + I) / 2 = [[1, 0], [.25, .75]], (A2 + I) / 2 = [[.5, .5], [0, 1]]; their product is [[.625, .375], [.25, .75]]
    found = sl.METHODS["attention_rollout"](Two(), torch.rand(1, 1, 1, 2))
    torch.testing.assert_close(found, torch.tensor([[[0.4375, 0.5625]]]))


def test_rare_words_are_those_that_the_text_repeats_least():
    model = network_for("rarity")
    found = sl.METHODS["rarity"](model, torch.tensor([7.0, 7, 8, 7]).view(1, 1, 1, 4))
    torch.testing.assert_close(found[0, 0], -torch.tensor([0.75, 0.75, 0.25, 0.75]).log())


def test_methods_of_some_networks_are_found_by_name_and_not_listed():
    assert set(sl.PARTICULAR_METHODS) == {"attention", "attention_rollout", "attn_lrp", "gradient_rollout", "rarity"} and not set(
        sl.PARTICULAR_METHODS
    ) & set(sl.METHODS)
    assert sl.Explanation(sl.Training("sentences", "text_lstm"), "attention").method == "attention"
    with pytest.raises(ValueError, match="no attention between tokens"):
        sl.METHODS["attention"](network_for("gradient"), texts())


def test_texts_are_shown_by_their_first_words():
    part = sl.load("sentences", stop=2)
    assert repr(part) == "Images(2 of 48 tokens, 2 classes, with masks)"
    assert " ".join(part.texts[1].tokens[:12]) in part._repr_html_()


# Training.


@pytest.mark.parametrize("ranking", ["signed", "absolute"])
@pytest.mark.parametrize("slope", list(objectives.SLOPES))
def test_guided_training_overwrites_a_share_of_the_real_words_alone(slope, ranking):
    model = network_for("gradient")
    vectors, labels = model.embed(texts(padding=5)).detach(), torch.tensor([0, 1, 2, 0])
    chosen = objectives.least_salient(model, vectors, labels, 0.5, ranking, slope)
    assert chosen[:, 0].sum((1, 2)).tolist() == [length // 2 for length in LENGTHS]
    assert not chosen[:, 0, 0][~real_tokens(vectors)].any()
    for row, length in enumerate(LENGTHS):  # by hand, from the gradient of one text
        text = vectors[row : row + 1, :, :, :length].clone().requires_grad_()
        with model.whole():
            (gradient,) = torch.autograd.grad(model(text).log_softmax(1)[0, labels[row]], text)
        values = {"mean": gradient.mean(1), "norm": gradient.norm(dim=1), "times_input": (gradient * text).sum(1)}[slope][0, 0]
        least = (values.abs() if ranking == "absolute" else values).argsort()[: length // 2]
        assert set(chosen[row, 0, 0].nonzero()[:, 0].tolist()) == set(least.tolist())


def test_the_fills_of_texts_are_the_word_before_padding_or_a_word_of_the_text():
    model = network_for("gradient")
    vectors = model.embed(texts()).detach()
    before = objectives.TRAINING_FILLS["previous"](vectors)
    assert torch.equal(before[..., 1:], vectors[..., :-1]) and torch.equal(before[..., 0], vectors[..., 0])
    assert not objectives.TRAINING_FILLS["padding"](vectors).any()
    drawn = objectives.TRAINING_FILLS["another_word"](vectors)
    for row, length in enumerate(LENGTHS):
        own = vectors[row, :, 0, :length].T
        assert all(any(torch.equal(word, one) for one in own) for word in drawn[row, :, 0].T)


@pytest.mark.parametrize("fill", ["previous", "padding", "another_word"])
@pytest.mark.parametrize("name", NETWORKS)
def test_guided_training_reaches_the_vectors_of_the_words(name, fill):
    torch.manual_seed(0)
    model = sl.MODELS[name](classes=3)
    loss = objectives.saliency_guided(model, texts(), torch.tensor([0, 1, 2, 0]), slope="norm", fill=fill)
    loss.backward()
    assert loss.isfinite() and model.embedding.weight.grad.any() and not model.embedding.weight.grad[0].any()


# What does not fit.


def test_a_data_set_of_texts_needs_a_network_of_texts_and_the_reverse():
    with pytest.raises(ValueError, match="has texts, and model 'cnn' takes images or series; models that fit: text_cnn"):
        sl.Training("sentences", "cnn")
    with pytest.raises(ValueError, match="'mnist5k' has images or series, and model 'text_cnn' takes texts"):
        sl.Training("mnist5k", "text_cnn")


@pytest.mark.parametrize(
    "wrong, message",
    (
        (torch.zeros(2, 1, 1, 4), r"texts \[0, 1\] have no token"),
        (torch.full((2, 1, 1, 4), 100.0), "from 0 to 99"),
        (torch.full((2, 1, 1, 4), 1.5), "whole"),
        (torch.ones(2, 1, 3, 4), r"numbers of words \(B, 1, 1, T\)"),
        (torch.ones(2, 7, 1, 4), r"vectors \(B, 50, 1, T\)"),
    ),
)
def test_what_is_no_text_is_refused(wrong, message):
    model = network_for("gradient")
    for call in (model, lambda inputs: sl.METHODS["gradient"](model, inputs)):
        with pytest.raises(ValueError, match=message):
            call(wrong)


def test_an_engine_that_needs_one_shape_refuses_texts_and_specifications_run_without_it():
    with pytest.raises(ValueError, match="texts differ in length; use 'eager'"):
        sl.optimise(network_for("gradient"), texts(), "folded")
    spec = sl.Explanation(sl.Training("sentences", "text_cnn"), "occlusion", engine="openvino")
    assert spec.engine is None and sl.Score(spec, "srg", engine="auto").engine is None


def test_a_text_goes_from_training_to_a_score_through_the_store(outputs):
    training = sl.Training("sentences", "text_lstm", changes={"images": 200, "epochs": 1})
    spec = sl.Explanation(training, "integrated_gradients", {"steps": 5}, stop=12)
    score = sl.score(sl.Score(spec, "token_f1"))
    data = sl.images_of(spec)
    maps = sl.explain(spec).maps
    assert maps.shape == (12, 1, 48) and not maps[data.images[:, 0] == 0].any()
    again = sl.METHODS["integrated_gradients"](sl.train(training).model, data.images, steps=5)
    torch.testing.assert_close(maps, again, rtol=1e-4, atol=1e-6)
    direct = sl.METRICS["token_f1"](sl.train(training).model, data.images, maps, objects=data.masks)
    torch.testing.assert_close(score.curve.area, direct.area)
