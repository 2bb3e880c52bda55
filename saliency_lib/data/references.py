"""Pictures by reference: `folder:<folder>`, `files:<list>` and `hf:<folder>`. Importing this lets DATASETS take references.

A reference may stand wherever a name in DATASETS may. It names a place as those of networks do: a path is one in data/, or else
one below the working folder, and may lead out of neither; an absolute path, or one that begins with `~`, is taken as it is,
since it names the place in full. `?classes=imagenet` makes the labels indices into ImageNet's 1,000 classes, whose WordNet ids or
readable names the given classes have to be. Pictures whose classes are not known have labels of -1 and, without classes.txt,
ImageNet's classes: a network may predict them, but nothing says which are right. Nothing is downloaded, and no pickle is read.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saliency_lib import paths
from saliency_lib.core.references import Parsers, place_and_options, scheme_of, values
from saliency_lib.data.albums import CLASSES, Album
from saliency_lib.data.folders import SUFFIXES, check_link, class_album, class_folders
from saliency_lib.data.lists import listed_album, read_list, read_metadata
from saliency_lib.data.shards import shards
from saliency_lib.data.table import DATASETS, Dataset

PARTS = {"train": "train", "test": "test", "val": "val", "validation": "val"}  # names of folders and files, and their splits
METADATA = ("metadata.csv", "metadata.jsonl")
FORMS = {
    "folder": "folder:<folder of pictures>",
    "files": "files:<list.csv or list.txt>",
    "hf": "hf:<folder of a data set of Hugging Face>",
}


def _imagenet(text: str) -> bool:
    if text != "imagenet":
        raise ValueError
    return True


COMMON: Parsers = {"classes": (_imagenet, f"imagenet; list other classes in {CLASSES} beside the pictures")}
COLUMN: Parsers = {"label": (str, "the name of a column")}


def place_of(reference: str, name: str) -> Path:
    """Return the file or folder that a reference names, see the module.

    Raises:
        ValueError: the path leads out of data/ and the working folder, or there is one in both.
        FileNotFoundError: there is none.
    """
    given = Path(name).expanduser()
    if given.is_absolute():
        check_link(given)
        if not given.exists():
            raise FileNotFoundError(f"{reference!r}: there is no {given}")
        return given
    try:
        found = [paths.inside(folder, name) for folder in (paths.DATA, Path.cwd())]
    except ValueError as error:
        raise ValueError(f"{reference!r}: {error}; or name the place by its absolute path") from None
    there = [place for place in dict.fromkeys(found) if place.exists()]
    if not there:
        raise FileNotFoundError(
            f"{reference!r}: there is no {name} in {paths.relative(paths.DATA)}/ and none in the working folder, {Path.cwd()}"
        )
    if len(there) > 1:
        raise ValueError(f"{reference!r} could be {there[0]} or {there[1]}; name one by its absolute path")
    return there[0]


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of the splits, or the folder itself as the split `test`."""
    found: dict[str, Path] = {}
    for name, split in PARTS.items():
        if (root / name).is_dir():
            if split in found:
                raise ValueError(f"{paths.relative(root)}/ has {found[split].name}/ and {name}/; keep one of them")
            found[split] = root / name
    return found or {"test": root}


def _tested(parts: dict[str, Any]) -> dict[str, Any]:
    """Return parts of a data set of which the validation part is the test split if there is no other."""
    return {"test" if split == "val" and "test" not in parts else split: part for split, part in parts.items()}


def _folder_album(reference: str, root: Path, *, imagenet: bool) -> Album:
    if not root.is_dir():
        raise ValueError(f"{reference!r}: {paths.relative(root)} is no folder; a list of pictures is {FORMS['files']}")
    folders = _tested(_split_folders(root))
    flat = sorted(file for file in root.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    album = class_album(root, folders, imagenet=imagenet)
    if flat and album:
        raise ValueError(
            f"{paths.relative(root)}/ has pictures, for instance {flat[0].name}, beside folders of pictures; put all into class "
            "folders, or none"
        )
    if flat:
        return Album(root, {"test": flat}, {}, (), imagenet=imagenet or not (root / CLASSES).is_file())
    if album:
        return album
    raise ValueError(
        f"{reference!r}: there are no pictures in {paths.relative(root)}/; put them at *.jpg, <class>/*.jpg or "
        "{train,test}/<class>/*.jpg (or .png, ...)"
    )


def _folder(reference: str, place: str, options: Mapping[str, str]) -> Dataset:
    wanted = values(reference, options, COMMON)
    album = _folder_album(reference, place_of(reference, place), imagenet="classes" in wanted)
    return album.entry(reference, f"Load the pictures of the folder {place}.")


def _files(reference: str, place: str, options: Mapping[str, str]) -> Dataset:
    wanted, file = values(reference, options, COMMON), place_of(reference, place)
    if file.suffix.lower() not in (".csv", ".txt") or not file.is_file():
        raise ValueError(f"{reference!r} must name a list that ends with .csv or .txt; a folder of pictures is {FORMS['folder']}")
    album = listed_album(file.parent, {"test": read_list(file)}, [file], whole=False, imagenet="classes" in wanted)
    return album.entry(reference, f"Load the pictures that {place} lists.")


def _hugging_face(reference: str, place: str, options: Mapping[str, str]) -> Dataset:
    root, about = place_of(reference, place), f"Load the data set of Hugging Face in {place}."
    inside = sorted(file for file in root.rglob("*") if not any(part.startswith(".") for part in file.relative_to(root).parts))
    if parquet := [file for file in inside if file.suffix == ".parquet"]:
        wanted = values(reference, options, COMMON | COLUMN | {"image": COLUMN["label"]})
        columns = wanted.get("image", "image"), wanted.get("label")
        return shards(reference, about, root, _parquet_parts(reference, root, parquet), *columns, imagenet="classes" in wanted)
    if any(file.suffix == ".arrow" for file in inside):
        raise ValueError(
            f"{reference!r}: {paths.relative(root)}/ has Arrow files, as `save_to_disk` writes them; write Parquet in their "
            'place, for each split: `dataset["test"].to_parquet("test.parquet")`'
        )
    folders = _split_folders(root)
    metadata = {split: [folder / name for name in METADATA if (folder / name).is_file()] for split, folder in folders.items()}
    if not any(metadata.values()):
        album = _folder_album(reference, root, imagenet="classes" in values(reference, options, COMMON))
        return album.entry(reference, about)
    if odd := [f"{len(files)} in {paths.relative(folders[split])}/" for split, files in metadata.items() if len(files) != 1]:
        raise ValueError(f"{reference!r} needs one of {' and '.join(METADATA)} in the folder of each split, got {', '.join(odd)}")
    wanted = values(reference, options, COMMON | COLUMN)
    parts = _tested({split: read_metadata(file, wanted.get("label")) for split, (file,) in metadata.items()})
    sources = [file for (file,) in metadata.values()]
    return listed_album(root, parts, sources, imagenet="classes" in wanted).entry(reference, about)


def _parquet_parts(reference: str, root: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Return the files of each split, which is a word of their path; the split `test` if no path has such a word."""
    parts: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", str(file.relative_to(root)).lower())
        found = {PARTS[word] for word in words if word in PARTS}
        if len(found) > 1:
            raise ValueError(f"{reference!r}: {paths.relative(file)} names the splits {' and '.join(sorted(found))}; rename it")
        parts.setdefault(found.pop() if found else "", []).append(file)
    if "" in parts and len(parts) > 1:
        raise ValueError(
            f"{reference!r}: {paths.relative(parts[''][0])} is of no split, and other files are; put train, test or validation "
            "into its name"
        )
    return _tested({split or "test": own for split, own in parts.items()})


SCHEMES: dict[str, Callable[[str, str, Mapping[str, str]], Dataset]] = {
    "folder": _folder,
    "files": _files,
    "hf": _hugging_face,
}


@DATASETS.fallback
def by_reference(name: str) -> Dataset | None:
    """Return the data set that a reference names, or else that of a folder in data/; None if there is none.

    Raises:
        ValueError: the reference or the layout of the pictures is wrong. FileNotFoundError: a place is missing.
        ModuleNotFoundError: a package is missing.
    """
    is_reference = name.startswith(tuple(f"{scheme}:" for scheme in SCHEMES))
    if not is_reference and (found := class_folders(name)):
        return found
    reference = scheme_of(name, SCHEMES, "data set")
    if not reference:
        return None
    scheme, rest = reference
    place, options = place_and_options(rest)
    if not place:
        raise ValueError(f"{name!r} must be {FORMS[scheme]}")
    return SCHEMES[scheme](name, place, options)
