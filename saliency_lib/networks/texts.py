"""Networks of texts: a CNN, a bidirectional LSTM with attention, and a small Transformer encoder, over vectors of words."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.core.options import Names, Share
from saliency_lib.core.texts import real_tokens, vectors_of
from saliency_lib.networks.embeddings import EMBEDDINGS, WIDTH
from saliency_lib.networks.table import MODELS, Side

Embedding = Annotated[str, Names(EMBEDDINGS)]
UNNAMED = tuple(f"word {number}" for number in range(100))  # the vocabulary of a network that was built without one


class TextModel(nn.Module):
    """A network of texts to logits (B, K). It takes the numbers of words (B, 1, 1, T) or their vectors (B, E, 1, T).

    A text ends with its last vector that is not 0. In `whole`, all T vectors belong to it: kernels then change vectors, to 0 too,
    without shortening the text.

    Args:
        network: maps vectors (B, E, 1, T) and which of them belong to the text, (B, T) bool, to logits.
        words: the vocabulary; the first word is the padding, whose vector is and stays 0.
        first_vectors: gives the words' vectors (n, E), which training changes.
        dropped: share of the words that training leaves out, at random in each step.
    """

    takes_series = True  # so any values, not only those in [0, 1]

    def __init__(
        self,
        network: nn.Module,
        words: tuple[str, ...],
        first_vectors: Callable[[Sequence[str]], np.ndarray],
        dropped: float = 0.0,
    ):
        super().__init__()
        vectors = torch.from_numpy(first_vectors(words))
        vectors[0] = 0
        self.embedding = nn.Embedding.from_pretrained(vectors, freeze=False, padding_idx=0)
        self.network, self.dropout, self.is_whole = network, nn.Dropout(dropped), False

    def embed(self, texts: Tensor) -> Tensor:
        """Return the vectors (B, E, 1, T) of words that are given by their numbers (B, 1, 1, T)."""
        numbers, count = texts.long(), len(self.embedding.weight)
        if texts.shape[1:3] != (1, 1) or texts.ndim != 4:
            raise ValueError(f"texts must be the numbers of words (B, 1, 1, T), got {tuple(texts.shape)}")
        if not torch.compiler.is_compiling() and (texts.amin() < 0 or texts.amax() >= count or (numbers != texts).any()):
            raise ValueError(
                f"the numbers of words must be whole and from 0 to {count - 1}; the model has another vocabulary than the texts"
            )
        return self.embedding(numbers[:, 0, 0]).transpose(1, 2)[:, :, None]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """While active, all vectors belong to their text."""
        before, self.is_whole = self.is_whole, True
        try:
            yield
        finally:
            self.is_whole = before

    def forward(self, texts: Tensor) -> Tensor:
        """Return the logits (B, K) of texts (B, 1, 1, T) or of their vectors (B, E, 1, T) or (B, T, E)."""
        vectors = vectors_of(self, texts)
        width = self.embedding.embedding_dim
        if vectors.shape[1] != width or vectors.shape[2] != 1:
            raise ValueError(f"the model needs numbers (B, 1, 1, T) or vectors (B, {width}, 1, T), got {tuple(texts.shape)}")
        real = vectors.new_ones(len(vectors), vectors.shape[3], dtype=torch.bool) if self.is_whole else real_tokens(vectors)
        return self.network(vectors * self.dropout(torch.ones_like(vectors[:, :1])) if self.training else vectors, real)


class Convolutions(nn.Module):
    """Convolutions over one and three words, their mean and that of the vectors over the text, and a linear layer."""

    def __init__(self, classes: int, width: int, kernels: tuple[int, ...] = (1, 3)):
        super().__init__()
        layers = (nn.Sequential(nn.Conv2d(WIDTH, width, (1, k), padding=(0, k // 2)), nn.ReLU()) for k in kernels)
        self.layers, self.dropout = nn.ModuleList(layers), nn.Dropout(0.5)
        self.head = nn.Linear(WIDTH + len(kernels) * width, classes)

    def forward(self, vectors: Tensor, real: Tensor) -> Tensor:
        """Return the logits (B, K) of vectors (B, E, 1, T)."""
        inside = real[:, None, None].to(vectors)
        features = torch.cat([layer(vectors) for layer in self.layers], 1)
        means = [(one * inside).sum(3) / inside.sum(3) for one in (vectors, features)]
        return self.head(torch.cat([means[0], self.dropout(means[1])], 1).flatten(1))


class Attention(nn.Module):
    """A softmax over tokens, whose weights the method `attention` reads: scores (B, ..., T) and which tokens exist (B, T)."""

    is_attention = True

    def of_words(self, weights: Tensor, texts: int, steps: int) -> Tensor:
        """Return the weights of the words of so many texts and so many steps, (B, ..., T), from what `forward` has returned."""
        return weights

    def forward(self, scores: Tensor, real: Tensor) -> Tensor:
        """Return the weights (B, ..., T), 0 beyond the text's end."""
        absent = ~real.view(len(real), *[1] * (scores.ndim - 2), -1)
        return scores.masked_fill(absent, -math.inf).softmax(-1)


class Bidirectional(nn.Module):
    """A bidirectional LSTM whose outputs are averaged with additive attention."""

    def __init__(self, classes: int, hidden: int):
        super().__init__()
        self.recurrent = nn.LSTM(WIDTH, hidden, batch_first=True, bidirectional=True)
        self.score = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.attention, self.dropout, self.head = Attention(), nn.Dropout(0.5), nn.Linear(2 * hidden, classes)

    def forward(self, vectors: Tensor, real: Tensor) -> Tensor:
        """Return the logits (B, K) of vectors (B, E, 1, T)."""
        series = vectors[:, :, 0].transpose(1, 2)
        steps = real.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(series, steps, batch_first=True, enforce_sorted=False)
        # cuDNN has no backward pass for recurrent networks in evaluation mode, in which saliency maps are computed
        with nullcontext() if self.training else torch.backends.cudnn.flags(enabled=False):
            outputs, _ = nn.utils.rnn.pad_packed_sequence(self.recurrent(packed)[0], True, total_length=series.shape[1])
        weights = self.attention(self.score(outputs)[..., 0], real)
        return self.head(self.dropout((weights[..., None] * outputs).sum(1)))


class Block(nn.Module):
    """One layer of a Transformer encoder, normalised first, whose heads differ in how far they see."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.attention = heads, Attention()
        self.before, self.mixed, self.after = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dropout = nn.Dropout(0.1)
        self.feed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, features: Tensor, real: Tensor) -> Tensor:
        """Return features (B, T, width)."""
        parts = self.mixed(self.before(features)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts
        places = torch.arange(real.shape[1]).to(features)
        slopes = 2.0 ** -torch.arange(self.heads).to(features)
        distances = slopes[:, None, None] * (places[:, None] - places).abs()
        weights = self.attention(query @ key.mT / math.sqrt(query.shape[-1]) - distances, real)
        features = features + self.dropout(self.after((weights @ value).transpose(1, 2).flatten(2)))
        return features + self.dropout(self.feed(features))


class Encoder(nn.Module):
    """Transformer layers over the words, whose features are averaged over the text and classified."""

    def __init__(self, classes: int, width: int, layers: int, heads: int = 4):
        super().__init__()
        self.enter, self.dropout = nn.Linear(WIDTH, width), nn.Dropout(0.1)
        self.layers = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, vectors: Tensor, real: Tensor) -> Tensor:
        """Return the logits (B, K) of vectors (B, E, 1, T)."""
        features = self.dropout(self.enter(vectors[:, :, 0].mT))
        for layer in self.layers:
            features = layer(features, real)
        inside = real[..., None].to(features)
        return self.head((features * inside).sum(1) / inside.sum(1))


@MODELS.register(channels=(1,), texts=True)
def text_cnn(
    classes: int = 2,
    channels: int = 1,
    pretrained: bool = False,
    *,
    width: Side = 50,
    words: tuple[str, ...] = UNNAMED,
    embedding: Embedding = "random",
    dropped: Share = 0.0,
) -> TextModel:
    """Build a CNN of texts: the mean over the text of the words' vectors, and of `width` features each of one and three words.

    Args:
        words: the vocabulary, which a training takes from its data set.
        embedding: the first vectors of the words, `glove` or `random`; training changes them.
        dropped: share of the words that training leaves out, at random in each step.

    Source: Kim 2014. Differs: sizes, and means where it has maxima, with which it memorises the 1,600 reviews of Movies.
    """
    return TextModel(Convolutions(classes, width), words, EMBEDDINGS[embedding], dropped)


@MODELS.register(channels=(1,), texts=True)
def text_lstm(
    classes: int = 2,
    channels: int = 1,
    pretrained: bool = False,
    *,
    hidden: Side = 64,
    words: tuple[str, ...] = UNNAMED,
    embedding: Embedding = "random",
    dropped: Share = 0.0,
) -> TextModel:
    """Build a bidirectional LSTM of texts whose outputs are averaged with additive attention; options as in text_cnn.

    Source: Ismail, Corrada Bravo, Feizi 2021 have a bidirectional LSTM; Bahdanau, Cho, Bengio 2015 for the attention.
    """
    return TextModel(Bidirectional(classes, hidden), words, EMBEDDINGS[embedding], dropped)


@MODELS.register(channels=(1,), texts=True)
def text_transformer(
    classes: int = 2,
    channels: int = 1,
    pretrained: bool = False,
    *,
    width: Side = 64,
    layers: Side = 2,
    words: tuple[str, ...] = UNNAMED,
    embedding: Embedding = "random",
    dropped: Share = 0.0,
) -> TextModel:
    """Build a Transformer encoder of texts with four heads, whose mean over the text is classified; options as in text_cnn.

    Source: Vaswani et al. 2017. Differs: normalisation comes first, and instead of positions the scores of attention have biases
    that grow with the distance of two words (Press, Smith, Lewis 2022, here in both directions), without which it does not learn
    `sentences`.
    """
    if width % 4:
        raise ValueError(f"width of text_transformer must be a multiple of 4, the number of its heads, got {width!r}")
    return TextModel(Encoder(classes, width, layers), words, EMBEDDINGS[embedding], dropped)
