"""Write maps of pictures as a folder: a page, an overlay per map, the maps themselves and a table of scores."""

import html
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from saliency_lib.core.references import slug


@dataclass(frozen=True, eq=False)
class Cell:
    """A map over its picture.

    Args:
        name: of its file.
        about: what it is, for its caption.
        image: (C, S, S) in [0, 1].
        map: (S, S).
    """

    name: str
    about: str
    image: Any
    map: Any


Row = tuple[str, Sequence[Cell]]  # a heading, and what is beside each other below it


def write_page(out: Path, sections: Mapping[str, Sequence[Row]], tensors: Mapping[str, Any], table: pd.DataFrame | None) -> None:
    """Write a folder with a page of overlays, which appears whole or not at all.

    Args:
        out: the folder; it does not exist, or is empty.
        sections: per heading its rows; a heading may be empty.
        tensors: written to maps.safetensors by their names.
        table: written to scores.csv and shown on the page.
    """
    from safetensors.torch import save_file

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as draft:
        folder, body, number = Path(draft) / "whole", [], 0
        folder.mkdir()
        for section, rows in sections.items():
            body.append(f"<h2>{html.escape(section)}</h2>" if section else "")
            for heading, cells in rows:
                figures = []
                for cell in cells:
                    picture = f"{number:04d}-{slug(cell.name)[:80]}.png"
                    _draw(folder / picture, cell)
                    figures.append(_figure(picture, heading, cell.about))
                    number += 1
                body.append(f"<h3>{html.escape(heading)}</h3><div>{''.join(figures)}</div>")
        save_file({name: values.contiguous() for name, values in tensors.items()}, folder / "maps.safetensors")
        scores = ""
        if table is not None:
            table.to_csv(folder / "scores.csv", index=False)
            scores = table.to_html(index=False, float_format="{:.3f}".format)
        page = PAGE.format(scores=scores, body="\n".join(body))
        (folder / "index.html").write_text(page, encoding="utf-8")
        if out.exists():
            out.rmdir()  # it is empty
        folder.rename(out)


def _draw(file: Path, cell: Cell) -> None:
    from matplotlib.figure import Figure

    from saliency_lib.figures.maps import draw_map  # here, since a page without overlays does without matplotlib

    figure = Figure(figsize=(3, 3))
    axes = figure.add_axes((0, 0, 1, 1))
    draw_map(axes, cell.map.float().numpy(), image=cell.image.numpy(), opacity=0.7)
    figure.savefig(file, dpi=100)


def _figure(picture: str, heading: str, about: str) -> str:
    alt, link = (html.escape(text, quote=True) for text in (f"map of {heading}: {about}", picture))
    return f'<figure><img src="{link}" alt="{alt}" loading="lazy"><figcaption>{html.escape(about)}</figcaption></figure>'


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Saliency maps</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
div {{ display: flex; flex-wrap: wrap; gap: .5rem }} figure {{ margin: 0; max-width: 200px }} img {{ width: 100% }}
figcaption {{ font-size: .85rem; overflow-wrap: anywhere }}
table {{ border-collapse: collapse }} td, th {{ padding: .2rem .6rem; text-align: left }}
</style></head><body><h1>Saliency maps</h1>
<p>Red is evidence for the predicted class and blue against it; maps without signs go from dark to light.</p>
{scores}
{body}
</body></html>
"""
