"""Sealed tables: a CSV file, and beside it a sealed JSON file with the CSV's SHA-256, what it was made from and how."""

import contextlib
import csv
import glob
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from saliency_lib import paths
from saliency_lib.core.files import explain_disk_errors, locked, replace_file
from saliency_lib.core.options import no_such
from saliency_lib.core.seals import sealed, unsealed


def keep(file: Path, frame: pd.DataFrame, origin: Mapping[str, Any], float_format: str = "%.6f") -> None:
    """Write a table and the JSON file beside it, both or neither. A second process that writes the same table waits.

    Args:
        file: the CSV file.
        frame: the table.
        origin: what the JSON file says; `command` is the shell command that makes the table again.
        float_format: how numbers with a fraction are written.
    """
    content = frame.to_csv(index=False, float_format=float_format)
    origin = {"command": origin["command"], "sha256": hashlib.sha256(content.encode()).hexdigest()} | {
        name: value for name, value in origin.items() if name not in ("command", "sha256", "seal")
    }
    text = json.dumps(sealed(origin), indent=1) + "\n"

    def write(draft: Path) -> None:
        draft.write_text(text)  # first, so that no error can come between the two renamings
        replace_file(file, lambda draft: draft.write_text(content))

    lock = paths.OUTPUTS / ".locks" / f"table-{file.parent.name}-{file.stem}"
    with explain_disk_errors(file.parent), locked(lock, file.name):
        paths.made(file.parent)
        replace_file(file.with_suffix(".json"), write)


def _unseal(file: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a table and what its JSON file says.

    Between the renaming of the two files, also if a process was killed there, the draft of the JSON file tells what the table is.
    """
    seal, content = file.with_suffix(".json"), file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    for place in (*seal.parent.glob(f"{glob.escape(seal.name)}.*"), seal):  # in this order, since a draft becomes the seal
        with contextlib.suppress(ValueError, OSError):
            origin = unsealed(place.read_text())
            if origin.get("sha256") == digest and "command" in origin:
                return content.decode(), origin
    if file.read_bytes() != content:
        return _unseal(file)  # it has just been written again
    try:
        command = unsealed(seal.read_text())["command"]
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{paths.relative(seal)} was changed after it was made ({error}); put it back, for instance with git, or run again "
            f"what kept {file.name}"
        ) from None
    raise ValueError(
        f"{paths.relative(file)} was changed after it was made: its SHA-256 is not the one in {seal.name}; "
        f"run `{command}` to make it again"
    )


def read(file: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return a sealed table and the content of the JSON file beside it.

    Raises:
        ValueError: the table was changed; the message names the command that makes it again.
        FileNotFoundError: one of the two files is missing.
    """
    content, origin = _unseal(file)
    return pd.read_csv(io.StringIO(content)), origin


def read_rows(file: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Return the rows of a sealed table as text, exactly as they were written, and the content of the JSON file beside it.

    Raises:
        ValueError: the table was changed; the message names the command that makes it again.
        FileNotFoundError: one of the two files is missing.
    """
    content, origin = _unseal(file)
    return list(csv.DictReader(io.StringIO(content, newline=""))), origin


def measured(name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return a table of data/measured/ and the content of the JSON file beside it.

    Raises:
        ValueError: the table was changed; the message names the command that makes it again.
        FileNotFoundError: there is no such table.
    """
    return read(paths.ROOT / "data" / "measured" / f"{name}.csv")


def gathered(names: Iterable[str], table: str, others: Mapping[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """Return the rows of the tables `<name>_<table>` of data/measured/, one table below the other.

    Args:
        names: what plans call their tables, for instance that of a network.
        others: further tables of the same kind, by name, which come first.

    Returns:
        the tables with a first column `measured`, the name; a name whose table is not measured yet has one row with nothing else.

    Raises:
        ValueError: a table was changed, or none of them is measured.
    """
    found, folder = dict(others or {}), paths.ROOT / "data" / "measured"
    for name in names:
        there = (folder / f"{name}_{table}.csv").is_file()
        found[name] = measured(f"{name}_{table}")[0] if there else pd.DataFrame(index=[0])
    if all(rows.empty for rows in found.values()):
        raise ValueError(f"data/measured/ has no table <name>_{table}.csv, where <name> is one of: {', '.join(found)}")
    return pd.concat([rows.assign(measured=name)[["measured", *rows.columns]] for name, rows in found.items()], ignore_index=True)


def claimed(paper: str) -> pd.DataFrame:
    """Return the claims of a paper, one row per claim; `released_code` gives the claims that test defects of released code.

    Raises:
        ValueError: no such paper.
    """
    claims = pd.read_csv(paths.ROOT / "data" / "reported" / "claims.csv")
    if paper not in set(claims["paper"]):
        raise no_such("paper", paper, set(claims["paper"]))
    return claims[claims["paper"] == paper].reset_index(drop=True)


def reported(paper: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the claims of a paper, as `claimed` does, and every number that it reports, from data/reported/.

    Raises:
        ValueError: no such paper.
    """
    return claimed(paper), pd.read_csv(paths.ROOT / "data" / "reported" / f"{paper}.csv")
