"""Written sentences of which it is known which words decide."""

import functools
from collections.abc import Sequence

import numpy as np

from saliency_lib.data.table import DATASETS, TRAIN_AND_TEST, Split
from saliency_lib.data.texts import Document, texts_split, vocabulary

GOOD = ["brilliant", "charming", "clever", "delightful", "gripping", "honest", "lovely", "moving", "superb", "witty"]
BAD = ["awful", "boring", "clumsy", "dreadful", "dull", "flat", "lifeless", "pointless", "stale", "tedious"]
JUDGED = ["film", "plot", "acting", "dialogue", "script", "story"]
OTHER = ["weather", "coffee", "hotel", "traffic", "weekend", "dinner"]
FILLERS = tuple(
    tuple(sentence.split())
    for sentence in (
        "we saw it on a rainy evening with some friends .",
        "the cinema was full and we sat near the back .",
        "it runs for about two hours .",
        "the director has made three others before .",
        "my sister had read the book .",
        "the music starts after a minute or so .",
    )
)


def _sentences(key: tuple[int, int]) -> Document:
    """Return a text whose label is the opinion of what is judged, fixed by the key alone.

    The opinion is one marked sentence: what is judged, `not` in a third of the texts, and a word of opinion. One or two other
    sentences say the same kind of words of other things, and the rest says nothing.
    """
    rng = np.random.default_rng((77, *key))
    label, negated = int(rng.integers(2)), bool(rng.random() < 1 / 3)

    def opinion(subjects: Sequence[str], words: Sequence[str], negated: bool) -> tuple[list[str], list[bool]]:
        subject, word = str(rng.choice(subjects)), str(rng.choice(words))
        tokens = ["the", subject, "was", *(["not"] if negated else []), word, "."]
        return tokens, [False, True, False, *([True] if negated else []), True, False]

    parts = [opinion(JUDGED, GOOD if bool(label) != negated else BAD, negated)]
    for _ in range(rng.integers(1, 3)):
        tokens, _ = opinion(OTHER, (GOOD, BAD)[rng.integers(2)], bool(rng.random() < 1 / 3))
        parts.append((tokens, [False] * len(tokens)))
    for place in rng.choice(len(FILLERS), rng.integers(1, 3), replace=False):
        parts.append((list(FILLERS[place]), [False] * len(FILLERS[place])))
    ordered = [parts[place] for place in rng.permutation(len(parts))]
    words = tuple(word for tokens, _ in ordered for word in tokens)
    return Document(
        f"{key[1]}", words, ("negative", "positive")[label], np.array([one for _, marked in ordered for one in marked])
    )


@functools.cache
def _drawn(split: str) -> tuple[Document, ...]:
    return tuple(_sentences((TRAIN_AND_TEST.index(split), index)) for index in range({"train": 2000, "test": 400}[split]))


@DATASETS.register(shape=(1, 48), texts=True)
def sentences(split: str, download: bool) -> Split:
    """Write 2,000 training and 400 test texts of a few sentences, of which the marked words decide whether they are positive.

    Text i depends on (split, i) only. A word of opinion counts only in the sentence about the film, and `not` reverses it.
    """
    return texts_split(_drawn(split), ("negative", "positive"), vocabulary(_drawn("train"), 1), (), last=False)
