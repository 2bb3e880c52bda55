"""The command `saliency`: explain pictures, measure maps and see which methods a network allows, without a notebook."""

import argparse
import html
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODEL_HELP = "a name in MODELS, or a reference: timm:NAME, hf:FOLDER, file:WEIGHTS?arch=NAME, module:PACKAGE.MODULE:FUNCTION"
USUAL = ("gradient", "integrated_gradients", "gradcam")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("saliency", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="COMMAND")
    kinds.add_parser("methods", help="list the methods, their families and what they cost")
    kinds.add_parser("metrics", help="list the metrics")
    doctor = kinds.add_parser("doctor", help="run every method once and say which work on a network, and why others do not")
    explain = kinds.add_parser("explain", help="draw the maps of pictures: PNG files and a page")
    measure = kinds.add_parser("measure", help="explain, and measure the maps: also a CSV file with intervals and verdicts")
    for one in (doctor, explain, measure):
        one.add_argument("model", help=MODEL_HELP)
        one.add_argument("--classes", metavar="FILE", help="the names of the classes, one per line; else ImageNet's, or numbers")
        one.add_argument("--side", type=int, help="side of the pictures in pixels; else the network's own, or 224")
    for one in (explain, measure):
        one.add_argument("pictures", nargs="+", help="picture files, or folders of them")
        one.add_argument("-m", "--methods", nargs="+", default=list(USUAL), metavar="NAME", help=f"default: {' '.join(USUAL)}")
        one.add_argument(
            "-o", "--out", default="saliency", metavar="FOLDER", help="a new folder for the results; default: saliency"
        )
        one.add_argument("--seed", type=int, default=0, help="fixes the random numbers; default: 0")
    measure.add_argument(
        "--metrics", nargs="+", default=["deletion", "insertion"], metavar="NAME", help="default: deletion insertion"
    )
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, or 2 for wrong input, whose message is printed."""
    chosen = _parser().parse_args(words)
    try:
        status = _run(chosen)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, for instance `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, FileNotFoundError, FileExistsError, ModuleNotFoundError, ImportError) as error:
        print(f"saliency {chosen.kind}: {error}", file=sys.stderr)
        return 2


def _run(chosen: argparse.Namespace) -> int:
    import saliency_lib as sl  # here, so that --help does not wait for torch

    if chosen.kind in ("methods", "metrics"):
        print(repr(sl.METHODS if chosen.kind == "methods" else sl.METRICS))
        return 0
    if chosen.kind == "doctor":
        return _doctor(chosen)
    return _pictures(chosen)


# What a command starts from.


def _network(chosen: argparse.Namespace) -> tuple[Any, Any, list[str] | None]:
    """Return the model with its weights, how pictures are prepared for it, and the names of its classes if they are known."""
    import saliency_lib as sl
    from saliency_lib.artefacts.inputs import device
    from saliency_lib.data.classes import imagenet_classes
    from saliency_lib.networks.table import Preparation

    entry = sl.MODELS[chosen.model]
    if not entry.weights or entry.texts:
        raise ValueError(
            f"{chosen.model} has no published weights for pictures; name your own by file:WEIGHTS.safetensors?arch={chosen.model}"
        )
    names = Path(chosen.classes).read_text().split("\n") if chosen.classes else None
    names = [name.strip() for name in names if name.strip()] if names else None
    model = entry(len(names) if names else entry.known, 3, True).to(device()).eval()
    preparation = entry.preparation or Preparation()
    if chosen.side:
        side = chosen.side
        preparation = Preparation(side, round(side * preparation.resize / preparation.side), preparation.interpolation)
    if names is None and entry.predicts in ("imagenet", "any") and entry.known == 1000:
        names = list(imagenet_classes())
    return model, preparation, names


def _files(given: Sequence[str]) -> list[Path]:
    from saliency_lib.data.folders import SUFFIXES

    found: list[Path] = []
    for name in map(Path, given):
        if not name.exists():
            raise FileNotFoundError(f"there is no picture or folder {name}")
        found += sorted(file for file in name.rglob("*") if file.suffix.lower() in SUFFIXES) if name.is_dir() else [name]
    if not found:
        raise FileNotFoundError(f"there are no pictures in {' '.join(given)}; they end with {', '.join(sorted(SUFFIXES))}")
    return found


def _read(files: Sequence[Path], preparation: Any) -> Any:
    """Return pictures as pixels (B, 3, S, S), prepared as for the network's own evaluation."""
    import numpy as np
    import torch
    from PIL import Image, UnidentifiedImageError

    from saliency_lib.data.pictures import seen
    from saliency_lib.data.splits import as_pixels, crop

    pixels = []
    for file in files:
        try:
            with Image.open(file) as picture:
                whole = seen(picture).convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{file} cannot be read as a picture ({error}); leave it out") from error
        border = preparation.resize / preparation.side
        fitted = crop(
            whole, preparation.side, border=border, interpolation=preparation.interpolation, stretched=preparation.stretched
        )
        pixels.append(as_pixels(np.array(fitted)).permute(2, 0, 1))
    return torch.stack(pixels)


# The commands.


def _doctor(chosen: argparse.Namespace) -> int:
    import torch

    import saliency_lib as sl

    model, preparation, _ = _network(chosen)
    image = torch.rand(1, 3, preparation.side, preparation.side, generator=torch.Generator().manual_seed(0))
    image = image.to(next(model.parameters(), image))
    print(f"{chosen.model}: {sum(p.numel() for p in model.parameters()):,} parameters, pictures of {preparation.side} pixels\n")
    working = 0
    for name in sl.METHODS:
        few = sl.METHODS.cheap(name)
        few |= {"window": preparation.side // 4, "stride": preparation.side // 4} if "window" in few else {}
        begun = time.perf_counter()
        try:
            maps = sl.METHODS[name](model, image, **few)
            outcome = f"works       {time.perf_counter() - begun:6.2f} s" + (
                ", but the map is constant" if maps.std() == 0 else ""
            )
            working += 1
        except Exception as error:  # whatever stops a method is what the reader wants to know
            outcome = f"refused     {next(iter(str(error).splitlines()), type(error).__name__)}"
        print(f"{name:34}{outcome}", flush=True)
    print(f"\n{working} of {len(sl.METHODS)} methods work; the times are of few masks, samples and steps")
    return 0


def _pictures(chosen: argparse.Namespace) -> int:
    import saliency_lib as sl
    from saliency_lib.core.batching import device_of, logits_of

    out = Path(chosen.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not empty; name another folder by --out")
    for name in chosen.methods:
        sl.METHODS[name]
    files = _files(chosen.pictures)
    model, preparation, names = _network(chosen)
    images = _read(files, preparation)
    shares = logits_of(model, images.to(device_of(model))).softmax(1).cpu()
    chances, targets = shares.max(1)
    words = [names[k] if names and k < len(names) else f"class {k}" for k in targets.tolist()]
    measured = chosen.kind == "measure"
    found = sl.evaluate(model, images, chosen.methods, chosen.metrics if measured else (), targets=targets, seed=chosen.seed)
    table = found.table if measured else None
    maps = found.maps if measured else {name: found.maps[name] for name in chosen.methods}
    _write(out, files, images, maps, [f"{word}, {share:.0%}" for word, share in zip(words, chances.tolist(), strict=True)], table)
    print(f"The maps of {len(files)} pictures by {len(maps)} methods are in {out}/; open {out / 'index.html'}")
    if table is not None:
        print(table.to_string(index=False, float_format="%.3f"))
    return 0


def _write(out: Path, files: Sequence[Path], images: Any, maps: Any, words: Sequence[str], table: Any) -> None:
    """Write an overlay per picture and method, the maps, the table and a page; the folder appears whole or not at all."""
    import tempfile

    from matplotlib.figure import Figure
    from safetensors.torch import save_file

    from saliency_lib.figures.maps import draw_map

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as draft:
        folder, rows = Path(draft) / "whole", []
        folder.mkdir()
        for number, (file, word) in enumerate(zip(files, words, strict=True)):
            cells = []
            for name, values in maps.items():
                figure = Figure(figsize=(3, 3))
                axes = figure.add_axes((0, 0, 1, 1))
                draw_map(axes, values[number].float().numpy(), image=images[number].numpy(), opacity=0.7)
                picture = f"{number:04d}-{file.stem}-{name}.png"
                figure.savefig(folder / picture, dpi=100)
                alt = html.escape(f"map of {file.name} by {name}", quote=True)
                link = html.escape(picture, quote=True)
                cells.append(
                    f'<figure><img src="{link}" alt="{alt}" loading="lazy"><figcaption>{html.escape(name)}</figcaption></figure>'
                )
            rows.append(f"<h2>{html.escape(file.name)}: {html.escape(word)}</h2><div>{''.join(cells)}</div>")
        save_file({name: values.contiguous() for name, values in maps.items()}, folder / "maps.safetensors")
        scores = ""
        if table is not None:
            table.to_csv(folder / "scores.csv", index=False)
            scores = table.to_html(index=False, float_format="{:.3f}".format)
        (folder / "index.html").write_text(PAGE.format(scores=scores, rows="\n".join(rows)))
        if out.exists():
            out.rmdir()  # it is empty
        folder.rename(out)


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Saliency maps</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
div {{ display: flex; flex-wrap: wrap; gap: .5rem }} figure {{ margin: 0 }} img {{ width: 200px; max-width: 100% }}
figcaption {{ font-size: .85rem }} table {{ border-collapse: collapse }} td, th {{ padding: .2rem .6rem; text-align: left }}
</style></head><body><h1>Saliency maps</h1>
<p>Red is evidence for the predicted class and blue against it; maps without signs go from dark to light.</p>
{scores}
{rows}
</body></html>
"""

if __name__ == "__main__":
    sys.exit(main())
