"""Try every method on networks of many families, and keep the outcomes: `python -m docs.architectures [NAME ...]`.

The networks have random weights, so nothing is downloaded. Networks that the table has already are not tried again, unless they
are named; each is kept as soon as it is done, so that an interrupted run goes on.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd
import torch

import saliency_lib as sl
from saliency_lib import paths
from saliency_lib.artefacts import store, tables
from saliency_lib.attribution.trials import tried
from saliency_lib.core.options import no_such

CSV = paths.ROOT / "data" / "measured" / "architectures.csv"
COLUMNS = ["architecture", "method", "outcome", "reason"]
SIDE = 64  # pixels; a network for larger pictures resizes them itself
FAMILIES = (
    *("alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "densenet121", "googlenet", "inception_v3", "squeezenet1_1"),
    *("mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "swin_t"),
    *(
        "timm:vit_tiny_patch16_224",
        "timm:mixer_s16_224",
        "timm:poolformer_s12",
        "timm:xcit_nano_12_p16_224",
        "timm:mobilevit_xxs",
    ),
)


def kept() -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Return the rows of the table, and its origin: `tried` has the commit and the versions of each architecture.

    Raises:
        ValueError: the table was changed.
    """
    return tables.read_rows(CSV) if CSV.is_file() else ([], {"tried": {}})


def outcomes(name: str) -> pd.DataFrame:
    """Return one row per method: what became of it on a network with random weights."""
    torch.manual_seed(0)
    model = sl.MODELS[name](10, 3).eval()
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return pd.DataFrame([(name, one.method, one.outcome, one.reason) for one in tried(model, image)], columns=COLUMNS)


def measure(chosen: Sequence[str] = ()) -> pd.DataFrame:
    """Try the networks that are chosen, or all that the table lacks, keep each in the table, and return the table.

    Raises:
        ValueError: a name is not one of FAMILIES.
    """
    for name in chosen:
        if name not in FAMILIES:
            raise no_such("architecture", name, FAMILIES)
    rows, origin = kept()
    table, origins = pd.DataFrame(rows, columns=COLUMNS), origin["tried"]
    for name in chosen or [name for name in FAMILIES if name not in origins]:
        found = outcomes(name)
        table = pd.concat([table[table["architecture"] != name], found], ignore_index=True)
        table = table.sort_values("architecture", key=lambda names: names.map(FAMILIES.index), kind="stable", ignore_index=True)
        timm = {"timm": version("timm")} if name.startswith("timm:") else {}
        now = store.surroundings()
        origins = origins | {name: {"side": SIDE, **timm, **now}}
        tables.keep(CSV, table, {"command": "python -m docs.architectures", **now, "tried": origins})
        print(f"{name}: {found['outcome'].value_counts().to_dict()}", file=sys.stderr, flush=True)
    return table


if __name__ == "__main__":
    try:
        print(measure(sys.argv[1:]).groupby(["architecture", "outcome"], sort=False).size().unstack(fill_value=0).to_string())
    except ValueError as error:
        sys.exit(f"docs.architectures: {error}")
