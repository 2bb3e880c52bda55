"""Networks of multivariate time series: an LSTM, an LSTM with input-cell attention, a temporal CNN and a Transformer.

Sizes are those of the released benchmark code. Dropout is 0.1 everywhere; weights are initialised as torch does.
"""

import math
from contextlib import nullcontext
from typing import Annotated

import torch
from torch import Tensor, nn

from saliency_lib.core.options import Range
from saliency_lib.networks.table import MODELS, Side

Features = Annotated[int, Range(1, 2000)]
HIDDEN = 5  # units of the recurrent networks, and features within the temporal CNN
DROPOUT = 0.1


class SeriesModel(nn.Module):
    """A network of series (B, T, F), or (B, 1, T, F) as the data sets return them, to logits (B, K).

    Args:
        network: maps series (B, T, F) to logits.
        features: F.
    """

    takes_series = True  # so any values, not only those in [0, 1]

    def __init__(self, network: nn.Module, features: int):
        super().__init__()
        self.network, self.features = network, features

    def forward(self, series: Tensor) -> Tensor:
        """Return the logits (B, K) of series (B, T, F) or (B, 1, T, F)."""
        shape, wanted = tuple(series.shape), self.features
        if shape[-1] != wanted or not (series.ndim == 3 or (series.ndim == 4 and shape[1] == 1)):
            raise ValueError(
                f"the model needs series (B, T, {wanted}) or (B, 1, T, {wanted}), got {shape}; build it with another features="
            )
        return self.network(series.flatten(0, -3))


class Recurrent(nn.LSTM):
    """An LSTM that returns its last output: (B, T, F) to (B, hidden)."""

    def forward(self, series: Tensor) -> Tensor:  # type: ignore[override]  # an LSTM also takes and returns its states
        """Return the output (B, hidden) at the last step of series (B, T, F)."""
        # cuDNN has no backward pass for recurrent networks in evaluation mode, in which saliency maps are computed
        with nullcontext() if self.training else torch.backends.cudnn.flags(enabled=False):
            return super().forward(series)[0][:, -1]


class CellAttention(nn.Module):
    """The mean of all steps up to each step, weighted by attention: (B, T, F) to (B, T, F).

    M_t = 1/r sum_h sum_{i <= t} softmax_i(w_h . tanh(W x_i)) x_i

    Args:
        width: rows of W.
        hops: r, the number of vectors w_h.

    Source: Ismail et al. 2019, Input-cell attention reduces vanishing saliency of recurrent neural networks; the r means are
    averaged as in the released code.
    """

    def __init__(self, features: int, width: Side = 50, hops: int = 10):
        super().__init__()
        self.score = nn.Sequential(nn.Linear(features, width), nn.Tanh(), nn.Linear(width, hops))

    def forward(self, series: Tensor) -> Tensor:
        """Return the weighted means (B, T, F) of series (B, T, F)."""
        steps = torch.arange(series.shape[1], device=series.device)
        scores = self.score(series).transpose(1, 2)[:, :, None]
        attention = torch.where(steps > steps[:, None], -math.inf, scores).softmax(3).mean(1)
        return attention @ series


class FeaturesFirst(nn.Module):
    """Series (B, T, F) as images (B, F, T, 1), so that rules and class activation maps support the layers that follow."""

    def forward(self, series: Tensor) -> Tensor:
        """Return the series as images (B, F, T, 1)."""
        return series.transpose(1, 2)[..., None]


class CausalBlock(nn.Module):
    """Two convolutions over the steps so far, on (B, C, T, 1), and a shortcut that is a 1x1 convolution if C changes."""

    def __init__(self, inputs: int, outputs: int, dilation: int, kernel: int = 4):
        super().__init__()
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            convolution = nn.Conv2d(width, outputs, (kernel, 1), dilation=(dilation, 1))
            layers += [nn.ZeroPad2d((0, 0, (kernel - 1) * dilation, 0)), convolution, nn.ReLU(), nn.Dropout(DROPOUT)]
        self.residual = nn.Sequential(*layers)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.activation = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Return features (B, outputs, T, 1)."""
        return self.activation(self.residual(features) + self.shortcut(features))


class Encoder(nn.Module):
    """A causal Transformer encoder and the maximum over time: (B, T, F) to (B, F)."""

    def __init__(self, features: int, layers: int = 6, heads: int = 5, width: Side = 400):
        super().__init__()
        layer = nn.TransformerEncoderLayer(features, heads, width, DROPOUT, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(features), enable_nested_tensor=False)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, series: Tensor) -> Tensor:
        """Return the maximum over time (B, F) of the encoded series (B, T, F)."""
        _, steps, features = series.shape
        frequencies = 10000 ** (-torch.arange(0, features, 2).to(series) / features)
        angles = torch.arange(steps).to(series)[:, None] * frequencies
        positions = torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :features]
        causal = nn.Transformer.generate_square_subsequent_mask(steps, series.device, series.dtype)
        inputs = self.dropout(math.sqrt(features) * series + positions)
        return self.layers(inputs, mask=causal, is_causal=True).amax(1)


def _classifier(classes: int, features: int, width: int, *layers: nn.Module) -> SeriesModel:
    """Return a model of the layers, which map (B, T, F) to (B, width), with a linear head."""
    return SeriesModel(nn.Sequential(*layers, nn.Linear(width, classes)), features)


@MODELS.register(channels=(1,))
def lstm(classes: int = 10, channels: int = 1, pretrained: bool = False, *, features: Features = 50) -> SeriesModel:
    """Build one LSTM layer of 5 units whose last output is classified.

    Source: Ismail et al. 2020, released code. Differs: returns logits, not their softmax.
    """
    parts = nn.Dropout(DROPOUT), Recurrent(features, HIDDEN, batch_first=True), nn.Dropout(DROPOUT)
    return _classifier(classes, features, HIDDEN, *parts)


@MODELS.register(channels=(1,))
def lstm_cell_attention(
    classes: int = 10, channels: int = 1, pretrained: bool = False, *, features: Features = 50
) -> SeriesModel:
    """Build an `lstm` whose input at each step is an attention over all steps so far (10 hops of width 50; `CellAttention`).

    Source: Ismail et al. 2020, released code. Differs: like lstm.
    """
    recurrent = Recurrent(features, HIDDEN, batch_first=True)
    parts = nn.Dropout(DROPOUT), CellAttention(features), recurrent, nn.Dropout(DROPOUT)
    return _classifier(classes, features, HIDDEN, *parts)


@MODELS.register(channels=(1,))
def tcn(classes: int = 10, channels: int = 1, pretrained: bool = False, *, features: Features = 50) -> SeriesModel:
    """Build a temporal CNN of three causal residual blocks (5, 5 and 50 features, dilation 1, 2 and 4) and a maximum over time.

    Source: Ismail et al. 2020, released code; Bai, Kolter, Koltun 2018. Differs: like lstm; without weight normalisation, with
    which layers can neither be reinitialised nor explained by rules.
    """
    blocks = CausalBlock(features, HIDDEN, 1), CausalBlock(HIDDEN, HIDDEN, 2), CausalBlock(HIDDEN, 50, 4)
    return _classifier(classes, features, 50, FeaturesFirst(), *blocks, nn.AdaptiveMaxPool2d(1), nn.Flatten())


@MODELS.register(channels=(1,))
def transformer(classes: int = 10, channels: int = 1, pretrained: bool = False, *, features: Features = 50) -> SeriesModel:
    """Build a Transformer encoder of six causal layers (5 heads, 400 wide), as wide as the series, and a maximum over time.

    Args:
        features: of the series, a multiple of 5, the number of heads.

    Source: Ismail et al. 2020, released code; Vaswani et al. 2017. Differs: like lstm; the waves of the positional encoding have
    Vaswani's lengths, which the released code squares.
    """
    if features % 5:
        raise ValueError(f"features of a transformer must be a multiple of 5, the number of its heads, got {features!r}")
    return _classifier(classes, features, features, Encoder(features))
