"""Previews of results in a notebook: a strip of small pictures, or a small table."""

import base64
import html
import io
from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor

SHOWN, SIDE = 8, 64  # pictures in a strip, and its height in pixels


def strip(title: str, shown: Tensor) -> str:
    """Return HTML of a title and the first eight pictures, side by side in one PNG.

    Args:
        title: text above the pictures.
        shown: images (N, C, H, W), which are rescaled if they exceed [0, 1]; or maps (N, H, W), each relative to its largest
            absolute value: grey if no value is negative, and else red for positive and blue for negative values.
    """
    first = shown[:SHOWN].detach().float().cpu()
    row = torch.cat(list(_coloured(first) if shown.ndim == 3 else first), 2)
    if row.min() < 0 or row.max() > 1:  # time series
        row = (row - row.min()) / (row.max() - row.min())
    picture, content = Image.fromarray(row.mul(255).byte().permute(1, 2, 0).squeeze(2).numpy()), io.BytesIO()
    if picture.height > SIDE:
        picture = picture.resize((max(1, SIDE * picture.width // picture.height), SIDE)).quantize(64)  # photographs, small
    picture.save(content, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    style = f"height: {SIDE}px; max-width: none; image-rendering: pixelated"
    return f'<div>{html.escape(title)}</div><img src="{source}" style="{style}" alt="the first {len(first)}">'


def _coloured(maps: Tensor) -> Tensor:
    largest = maps.abs().amax((1, 2), keepdim=True)
    scaled = (maps / largest.where(largest > 0, 1)).clamp(-1, 1)
    if scaled.min() >= 0:
        return scaled[:, None]
    return torch.stack([1 - (-scaled).clamp(min=0), 1 - scaled.abs(), 1 - scaled.clamp(min=0)], 1)


def table(title: str, rows: Mapping[str, object]) -> str:
    """Return HTML of a title and a table with one row per name and value."""
    cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in rows.items())
    return f"<div>{html.escape(title)}</div><table>{''.join(cells)}</table>"
