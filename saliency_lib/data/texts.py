"""Texts with human rationales: folders in ERASER's format, and sentences that need no download.

A text is an image of one channel, one row and T columns, which hold the numbers of its words in the data set's vocabulary.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saliency_lib import paths
from saliency_lib.core.lines import objects, text_of
from saliency_lib.data.table import DATASETS, Dataset, Split, Text

PADDING, UNKNOWN, SEPARATOR = "<padding>", "<unknown>", "<separator>"  # the first three words of every vocabulary
SPECIAL = (PADDING, UNKNOWN, SEPARATOR)
LENGTH = 1000  # tokens of a text unless stated otherwise
ERASER_SPLITS = ("train", "val", "test")
LEAST = 2  # training texts that a word must occur in to be known


@dataclass(frozen=True)
class Document:
    """A whole text: its words, its label, and which of its words people marked as the reason for the label."""

    name: str
    words: tuple[str, ...]
    label: str
    marked: np.ndarray


def vocabulary(documents: Sequence[Document], least: int = LEAST) -> tuple[str, ...]:
    """Return the known words: the special ones, then those that occur in at least so many documents, sorted."""
    counts = Counter(word for document in documents for word in set(document.words))
    return (*SPECIAL, *sorted(word for word, count in counts.items() if count >= least and word not in SPECIAL))


def texts_split(
    documents: Sequence[Document], classes: Sequence[str], words: tuple[str, ...], sources: Sequence[Path] | None, *, last: bool
) -> Split:
    """Return a split of documents, of which the first or the last tokens are read.

    Args:
        words: the vocabulary; a word that is not in it has the number of UNKNOWN.
        last: whether the end of a document that is too long is read, and not its beginning.
    """
    number = {word: place for place, word in enumerate(words) if word != PADDING}  # in a document it is an unknown word

    def read(chosen: range, side: int) -> dict[str, Any]:
        ids, masks, texts = np.zeros((len(chosen), side), np.float32), np.zeros((len(chosen), side), bool), []
        for row, document in enumerate(documents[place] for place in chosen):
            first = max(0, len(document.words) - side) if last else 0
            part = slice(first, first + side)
            tokens, total = document.words[part], document.marked.sum()
            ids[row, : len(tokens)] = [number.get(token, SPECIAL.index(UNKNOWN)) for token in tokens]
            masks[row, : len(tokens)] = document.marked[part]
            texts.append(Text(tokens, first, 1 - float(masks[row].sum() / total) if total else 0.0))
        if unread := [documents[place].name for place, row in zip(chosen, ids, strict=True) if row.max() < len(SPECIAL)]:
            raise ValueError(
                f"no word of the texts {unread[:5]} is in the vocabulary of {len(words)} words; leave them out, or read more "
                f"than {side} tokens of each"
            )
        return {
            "images": torch.from_numpy(ids)[:, None, None],
            "labels": torch.tensor([classes.index(documents[place].label) for place in chosen]),
            "masks": torch.from_numpy(masks)[:, None],
            "names": tuple(documents[place].name for place in chosen),
            "texts": tuple(texts),
            "vocabulary": words,
        }

    return Split(len(documents), tuple(classes), read, sources)


def read_sentence(sentence: str, words: Sequence[str]) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Return the numbers (1, 1, 1, T) of a sentence's words, and the words, split and lower-cased as in ERASER's documents.

    Args:
        sentence: at most 1,000 words.
        words: the vocabulary; a word that is not in it has the number of UNKNOWN.

    Raises:
        ValueError: the sentence is empty or too long, or no word of it is in the vocabulary.
    """
    tokens = re.findall(r"n't|'(?:s|re|ve|m|ll|d)\b|\w+(?=n't)|\w+|[^\w\s]", sentence.lower().replace("\u2019", "'"))
    if not tokens or len(tokens) > LENGTH:
        raise ValueError(f"the sentence has {len(tokens):,} words; write from 1 to {LENGTH:,}")
    number = {word: place for place, word in enumerate(words)}
    numbers = [number.get(token, SPECIAL.index(UNKNOWN)) for token in tokens]
    if max(numbers) < len(SPECIAL):
        raise ValueError(f"the network knows none of the words {', '.join(tokens[:5])}; write others")
    return torch.tensor(numbers, dtype=torch.float32)[None, None, None], tuple(tokens)


# Folders in ERASER's format.


def _state(file: Path) -> tuple[int, ...] | None:
    """Return the size and times of a file, which tell whether it has changed; None if there is no such file."""
    facts = file.stat() if file.is_file() else None
    return (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns) if facts else None


@contextmanager
def _line(file: Path, number: int) -> Iterator[None]:
    """While active, errors name the line of a file that they are about."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OSError) as error:
        what = f"lacks {error}; add it, or leave the row out" if isinstance(error, KeyError) else str(error)
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{paths.relative(file)}, line {number}: {what}") from None


def _said(row: Mapping[str, Any], key: str) -> str:
    """Return what a row says under a key, which has to be text."""
    if not isinstance(row[key], str):
        raise ValueError(f"{key!r} must be text, got {row[key]!r}; correct it, or leave the row out")
    return row[key]


class _Folder:
    """What a folder in ERASER's format has in train.jsonl, val.jsonl and test.jsonl, and in docs/<name> or docs.jsonl.

    Raises:
        ValueError: a row is damaged; the message names the file, the line and what is wrong.
        FileNotFoundError: a row names a document that is missing.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.seen: dict[Path, tuple[int, ...] | None] = {}  # each file, and its state before it was read
        self.listed: dict[str, str] = {}
        listed = folder / "docs.jsonl"
        for number, row in self._rows(listed):
            with _line(listed, number):
                self.listed[_said(row, "docid")] = _said(row, "document")
        files = {split: folder / f"{split}.jsonl" for split in ERASER_SPLITS}
        rows = {split: self._rows(file) for split, file in files.items()}
        joined = len({str(row.get("query")) for part in rows.values() for _, row in part}) > 1
        self.documents: dict[str, list[Document]] = {split: [] for split, file in files.items() if self._exists(file)}
        for split, part in self.documents.items():
            for number, row in rows[split]:
                with _line(files[split], number):
                    part.append(self._document(row, joined=joined))
        self.classes = sorted({document.label for document in self.documents["train"]})
        if odd := {one.label for part in self.documents.values() for one in part} - set(self.classes):
            raise ValueError(f"{paths.relative(folder)}: no training text has the labels {sorted(odd)}; add some, or remove them")
        self.vocabulary = vocabulary(self.documents["train"])

    @property
    def sources(self) -> list[Path]:
        """The files that the folder was read from."""
        return sorted(file for file, state in self.seen.items() if state)

    @property
    def is_current(self) -> bool:
        """Whether none of the files has been written, added or removed since."""
        return all(_state(file) == state for file, state in self.seen.items())

    def _exists(self, file: Path) -> bool:
        """Return whether there is a file, and note its state when it was first read."""
        return self.seen.setdefault(file, _state(file)) is not None

    def _rows(self, file: Path) -> list[tuple[int, dict[str, Any]]]:
        return list(objects(file)) if self._exists(file) else []

    def _words(self, name: str) -> list[str]:
        content = self.listed.get(name)
        if content is None:
            paths.inside(self.folder / "docs", name)
            file = self.folder / "docs" / name
            if not self._exists(file):
                raise FileNotFoundError(f"document {name} is missing; put it at {paths.relative(file)}, or leave the row out")
            content = text_of(file)
        if not (words := content.lower().split()):
            raise ValueError(f"document {name} is empty; leave the row out")
        return words

    def _document(self, row: Mapping[str, Any], *, joined: bool) -> Document:
        """Return the query of a row if the rows have different ones, then its documents one after the other."""
        identifier, spans = _said(row, "annotation_id"), [span for group in row["evidences"] for span in group]
        names = row.get("docids") or list(dict.fromkeys(span["docid"] for span in spans)) or [identifier]
        if strange := sorted({span["docid"] for span in spans} - set(names)):
            raise ValueError(f"it has rationales in {strange}, but its documents are {names}; add them to docids")
        words: list[str] = []
        marked: list[bool] = []
        for name in names:
            own = self._words(name)
            known = [False] * len(own)
            for span in (span for span in spans if span["docid"] == name):
                first, end = span["start_token"], span["end_token"]
                if not 0 <= first <= end <= len(own):
                    raise ValueError(f"a rationale covers the tokens {first} to {end} of document {name}, which has {len(own)}")
                if _said(span, "text").lower().split() != own[first:end]:
                    raise ValueError(
                        f"a rationale says {span['text'][:40]!r}, but document {name} has {' '.join(own[first:end])[:40]!r}"
                    )
                known[first:end] = [True] * (end - first)
            words += [*([SEPARATOR] if words else []), *own]
            marked += [*([False] if marked else []), *known]
        if joined:
            query = [*_said(row, "query").lower().split(), SEPARATOR]  # first, so that a text that is too long keeps it
            words, marked = query + words, [False] * len(query) + marked
        return Document(identifier, tuple(words), _said(row, "classification"), np.array(marked))


@functools.lru_cache(maxsize=2)
def _kept(folder: Path) -> _Folder:
    return _Folder(folder)


def _read(folder: Path) -> _Folder:
    """Return what a folder has, which is read again if one of its files has changed."""
    if not _kept(folder).is_current:
        _kept.cache_clear()
    return _kept(folder)


def is_eraser(folder: Path) -> bool:
    """Return whether a folder has ERASER's format."""
    return (folder / "train.jsonl").is_file() and ((folder / "docs").is_dir() or (folder / "docs.jsonl").is_file())


def eraser(name: str, folder: Path, *, last: bool = False) -> Callable[[str, bool], Split]:
    """Return the function that loads a split of a folder in ERASER's format.

    A text is the row's query if the queries differ, and its documents, lower-cased and with SEPARATOR between them. Words that
    fewer than two training texts have are UNKNOWN.

    Args:
        last: whether the end of a text that is too long is read, and not its beginning.

    Source: DeYoung et al. 2020 (ERASER).
    """

    def load(split: str, download: bool) -> Split:
        if not is_eraser(folder):
            place = paths.relative(folder)
            raise FileNotFoundError(
                f"{name} is not in {place}; put ERASER's files at {place}/{{train,val,test}}.jsonl and {place}/docs/ "
                "(https://www.eraserbenchmark.com), or use the data set sentences, which needs no download"
            )
        found = _read(folder)
        if split not in found.documents:
            raise FileNotFoundError(f"{name} has no {split} split; put it at {paths.relative(folder)}/{split}.jsonl")
        return texts_split(found.documents[split], found.classes, found.vocabulary, found.sources, last=last)

    return load


def eraser_folder(name: str, folder: Path) -> Dataset:
    """Return the data set of a folder of data/ in ERASER's format."""
    load = eraser(name, folder)
    load.__doc__ = f"Load the texts of data/{name}/, see `eraser`."
    return DATASETS.entry(load, name, splits=ERASER_SPLITS, shape=(1, LENGTH), texts=True)


def _movies(name: str, last: bool, part: str) -> None:
    def load(split: str, download: bool) -> Split:
        return eraser(name, paths.DATA / "eraser_movies", last=last)(split, download)

    load.__doc__ = f"""Load 2,000 film reviews, positive or negative, with human rationales; the {part} {LENGTH} tokens of each.

    Args:
        size: how many tokens; `Images.texts` says which share of each rationale is lost.

    Source: Zaidan, Eisner, Piatko 2007, as in ERASER (DeYoung et al. 2020): 1,600 training, 200 validation and 199 test texts.
    """
    DATASETS.register(name=name, shape=(1, LENGTH), splits=ERASER_SPLITS, texts=True)(load)


_movies("eraser_movies", False, "first")
_movies("eraser_movies_end", True, "last")
