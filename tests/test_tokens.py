"""Agreement with human rationales: by hand, by law, and against scikit-learn and ERASER's definitions."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, f1_score, precision_recall_curve
from test_ties import every_order

import saliency_lib as sl

NAMES = ["token_f1", "iou_f1", "auprc"]


def score(name, maps, objects, **options):
    """The curve of texts (B, T), whose tokens have embeddings of size 3."""
    maps, objects = torch.as_tensor(maps)[:, None], torch.as_tensor(objects)[:, None]
    return sl.METRICS[name](None, torch.zeros(len(maps), 3, *maps.shape[1:]).to(maps), maps, objects=objects, **options)


def text(name, values, marks, **options):
    """The number of one text, from the values of its tokens and the marks of a reader, 0 or 1."""
    return score(name, [[float(value) for value in values]], [[bool(mark) for mark in marks]], **options).area.item()


def drawn(seed, levels, texts=4, tokens=12):
    """Maps of so many distinct values, and rationales of at least one token, (B, T) each."""
    source = torch.Generator().manual_seed(seed)
    maps = torch.randint(levels, (texts, tokens), generator=source).double() / levels - 0.5
    objects = torch.rand(texts, tokens, generator=source) < 0.4
    objects[:, seed % tokens] = True
    return maps, objects


def test_token_f1_of_five_tokens_by_hand():
    values, marks = (5, 1, 4, 3, 2), (1, 1, 0, 1, 0)
    # the two largest values are of tokens 0 and 2, of which 0 is marked: P = 1/2, R = 1/3, F1 = 2 (1/6) / (5/6) = 2/5
    assert text("token_f1", values, marks, share=0.4) == pytest.approx(2 / 5)
    # the three largest are of 0, 2 and 3, of which 0 and 3 are marked: P = R = F1 = 2/3
    assert text("token_f1", values, marks, share=0.6) == pytest.approx(2 / 3)
    # a tenth of five tokens is one token: P = 1, R = 1/3, F1 = 2 (1/3) / (4/3) = 1/2
    assert text("token_f1", values, marks) == pytest.approx(1 / 2)
    # tokens 1, 2 and 3 tie for the second place, and two of them are marked: 1 + 2/3 in common, F1 = 2 (5/3) / (2 + 3) = 2/3
    assert text("token_f1", (5, 3, 3, 3, 2), marks, share=0.4) == pytest.approx(2 / 3)


def test_iou_f1_of_five_tokens_by_hand():
    marks = (1, 1, 0, 1, 0)  # spans 0-1 and 3
    # predicted 0 and 2: span 0 has an IoU of 1/2 with 0-1, span 2 of 0: P = 1/2, R = 1/2, F1 = 1/2
    assert text("iou_f1", (5, 1, 4, 3, 2), marks, share=0.4) == pytest.approx(1 / 2)
    assert text("iou_f1", (5, 1, 4, 3, 2), marks, share=0.4, threshold=0.51) == 0
    # predicted 0, 2 and 3: span 0 has 1/2 with 0-1, span 2-3 has 1/2 with 3: P = R = 1
    assert text("iou_f1", (5, 1, 4, 3, 2), marks, share=0.6) == 1
    # predicted 0: P = 1, R = 1/2, F1 = 2 (1/2) / (3/2) = 2/3
    assert text("iou_f1", (5, 1, 4, 3, 2), marks) == pytest.approx(2 / 3)
    # predicted 0-3: 2/4 with 0-1 and 1/4 with 3, the larger one counts: P = 1, R = 1/2, F1 = 2/3
    assert text("iou_f1", (5, 4, 3, 2, 1), marks, share=0.8) == pytest.approx(2 / 3)
    # predicted 1-4: 1/5 with 0-1 and 1/4 with 3, no hit
    assert text("iou_f1", (1, 5, 4, 3, 2), marks, share=0.8) == 0


def test_auprc_of_five_tokens_by_hand():
    # (R, P) after 1, ..., 5 tokens in the order 0 2 3 4 1: (1/3, 1) (1/3, 1/2) (2/3, 2/3) (2/3, 1/2) (1, 3/5), from (0, 1)
    area = (1 / 3) * 1 + (1 / 3) * (1 / 2 + 2 / 3) / 2 + (1 / 3) * (1 / 2 + 3 / 5) / 2
    assert text("auprc", (5, 1, 4, 3, 2), (1, 1, 0, 1, 0)) == pytest.approx(area)
    # together, 0, 2 and 3 tie, then 1 and 4: (2/3, 2/3) (1, 3/5)
    area = (2 / 3) * (1 + 2 / 3) / 2 + (1 / 3) * (2 / 3 + 3 / 5) / 2
    assert text("auprc", (5, 1, 5, 5, 1), (1, 1, 0, 1, 0), ties="together") == pytest.approx(area)
    # a constant map has the single point (1, 3/5)
    assert text("auprc", (7, 7, 7, 7, 7), (1, 1, 0, 1, 0), ties="together") == pytest.approx((1 + 3 / 5) / 2)


def test_a_constant_map_has_the_auprc_of_a_random_map_unless_ties_pass_together():
    marks = torch.arange(200) % 5 == 0
    flat, noise = torch.zeros(1, 200), torch.rand(400, 200, generator=torch.Generator().manual_seed(0))
    chance = score("auprc", noise, marks.expand(400, -1)).area.mean().item()
    found = score("auprc", flat, marks[None], draws=400)
    assert found.area.item() == pytest.approx(chance, abs=4 * found.error.item() + 0.005)
    assert score("auprc", flat, marks[None], ties="together").area.item() == pytest.approx(0.6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.sampled_from([1, 2, 5, 10**9]))
def test_auprc_with_ties_together_is_that_of_scikit_learn(seed, levels):
    maps, objects = drawn(seed, levels)
    found = score("auprc", maps, objects, ties="together")
    for area, values, marks in zip(found.area.tolist(), maps, objects, strict=True):
        precision, recall, _ = precision_recall_curve(marks.numpy(), values.numpy())
        assert area == pytest.approx(auc(recall, precision), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 1))
def test_without_ties_token_f1_is_that_of_scikit_learn(seed, share):
    maps, objects = drawn(seed, 10**9)
    size = max(1, round(share * 12))
    chosen = torch.zeros_like(objects).scatter(1, maps.topk(size).indices, True)
    expected = [f1_score(marks.numpy(), ours.numpy()) for marks, ours in zip(objects, chosen, strict=True)]
    assert score("token_f1", maps, objects, share=share).area.tolist() == pytest.approx(expected)


def spans(marks):
    """The spans of a rationale, as sets of tokens."""
    runs = itertools.groupby(enumerate(marks), key=lambda token: bool(token[1]))
    return [{token for token, _ in run} for marked, run in runs if marked]


def iou_by_definition(chosen, marks, threshold):
    ours, true = spans(chosen), spans(marks)
    hits = sum(max(len(one & other) / len(one | other) for other in true) >= threshold for one in ours)
    precision, recall = hits / len(ours), hits / len(true)
    return 2 * precision * recall / (precision + recall) if hits else 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 1), threshold=st.sampled_from([0.5, 0.6, 2 / 3, 0.75, 1]))
def test_without_ties_iou_f1_is_that_of_its_definition(seed, share, threshold):
    maps, objects = drawn(seed, 10**9)
    chosen = torch.zeros_like(objects).scatter(1, maps.topk(max(1, round(share * 12))).indices, True)
    expected = [iou_by_definition(*both, threshold) for both in zip(chosen.tolist(), objects.tolist(), strict=True)]
    found = score("iou_f1", maps, objects, share=share, threshold=threshold)
    assert found.area.tolist() == pytest.approx(expected) and found.error.tolist() == [0] * 4


TIED = torch.tensor([[3.0, 1, 1, 2, 1, 1, 1]])
MARKS = torch.tensor([[True, True, False, False, True, True, False]])


@pytest.mark.parametrize("name", NAMES)
def test_tied_tokens_count_as_on_average_over_all_their_orders(name):
    orders = torch.cat(list(every_order(TIED)))
    share = {} if name == "auprc" else {"share": 0.6}
    exact = score(name, orders, MARKS.expand(len(orders), -1), **share).area
    found = score(name, TIED.double(), MARKS, **share, **({} if name == "token_f1" else {"draws": 4000}))
    error = 1e-7 if name == "token_f1" else found.error.item()
    assert exact.std() > 0.05 and found.area.item() == pytest.approx(exact.mean().item(), abs=4 * error)
    assert found.tied.item() == pytest.approx(5 / 7)


def test_the_orders_of_iou_f1_are_fixed_by_seed_and_text_and_have_the_stated_error():
    maps, objects, numbers = TIED.expand(300, -1), MARKS.expand(300, -1), torch.arange(300) + 7
    found = score("iou_f1", maps, objects, share=0.6, indices=numbers)
    assert found.error.square().mean().sqrt().item() == pytest.approx(found.area.std().item(), rel=0.15)
    alone = score("iou_f1", maps[:1], objects[:1], share=0.6, indices=numbers[3:4])
    assert alone.area.item() == found.area[3].item()
    assert not torch.equal(score("iou_f1", maps, objects, share=0.6, indices=numbers, seed=1).area, found.area)


@pytest.mark.parametrize("name", NAMES)
def test_a_map_of_the_rationale_is_perfect(name):
    _, objects = drawn(3, 2)
    for maps, marks in zip(objects.double(), objects, strict=True):
        share = {} if name == "auprc" else {"share": marks.double().mean().item()}
        assert score(name, maps[None], marks[None], **share).area.item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_has_the_numbers_of_its_pixels_in_raster_order(name):
    maps, objects = drawn(5, 10**9)
    image = torch.zeros(4, 2, 3, 4, dtype=maps.dtype)
    found = sl.METRICS[name](None, image, maps.view(4, 3, 4), objects=objects.view(4, 3, 4))
    assert torch.equal(found.area, score(name, maps, objects).area)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_without_a_rationale_is_refused(name):
    with pytest.raises(ValueError, match="objects are missing; pass objects="):
        sl.METRICS[name](None, torch.zeros(1, 3, 1, 5), torch.rand(1, 1, 5))
    with pytest.raises(ValueError, match=r"objects must be bool masks of the maps' shape \(1, 1, 5\), got \(1, 1, 4\)"):
        sl.METRICS[name](None, torch.zeros(1, 3, 1, 5), torch.rand(1, 1, 5), objects=torch.ones(1, 1, 4).bool())
    with pytest.raises(ValueError, match=r"the object of images \[0\] has no pixel"):
        text(name, (1, 2, 3), (0, 0, 0))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("token_f1", {"share": 0}, "share of token_f1 must be a number above 0 and at most 1"),
        ("iou_f1", {"share": 1.5}, "share of iou_f1 must be a number above 0 and at most 1"),
        ("iou_f1", {"threshold": 0.4}, "threshold of iou_f1 must be a number from 0.5 to 1"),
        ("iou_f1", {"draws": 0}, "draws of iou_f1 must be a whole number from 1"),
        ("auprc", {"share": 0.1}, "option of metric 'auprc'"),
    ],
)
def test_options_outside_their_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        text(name, (1, 2, 3), (1, 0, 0), **options)
