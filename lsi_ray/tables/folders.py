"""What a folder holds: a dataset that `datasets` saved, one cloned from a hub, tables, or images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lsi_ray.errors import ConfigError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
# The first kind that a folder holds is what is read: the clone of a dataset often holds a CSV beside its data.
_TABLES = ((".parquet",), (".arrow", ".feather"), (".jsonl", ".ndjson"), (".csv", ".tsv"))


def tables_of(folder: Path, split: str | None) -> list[Path]:
    """The tables of a folder in order; none where it holds images only. Raises ConfigError about splits."""
    if (saved := folder / "dataset_dict.json").exists():
        names = _json(saved).get("splits", [])
        return tables_of(folder / _chosen(folder, names, split), None)
    if (state := folder / "state.json").exists():
        return [folder / entry["filename"] for entry in _json(state).get("_data_files", [])]
    for suffixes in _TABLES:
        found = [path for path in _files(folder) if path.suffix.lower() in suffixes]
        if found:
            return _of_split(folder, found, split)
    if split is not None:
        raise ConfigError(f"{folder} has no splits: it holds no table")
    return []


def images_of(folder: Path) -> Iterator[Path]:
    return (path for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES)


def _files(folder: Path) -> Iterator[Path]:
    """In the order of names, without hidden ones (a clone has .git)."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _of_split(folder: Path, found: list[Path], split: str | None) -> list[Path]:
    """Files of a hub's dataset are named by their split: `data/train-00000-of-00004.parquet`, or `train/0.parquet`."""
    names = {path: _split_name(folder, path) for path in found}
    several = sorted({name for name in names.values() if name is not None})
    if split is None and len(several) < 2:
        return found
    chosen = _chosen(folder, several, split)
    return [path for path in found if names[path] == chosen]


_SPLITS = ("train", "test", "validation", "val", "dev")


def _split_name(folder: Path, path: Path) -> str | None:
    *folders, file = path.relative_to(folder).parts
    first = file.split("-")[0].split(".")[0]
    sharded = "-of-" in file
    return next((name for name in (first, *folders) if name in _SPLITS or (sharded and name == first)), None)


def _chosen(folder: Path, names: list[str], split: str | None) -> str:
    if split is None and len(names) == 1:
        return names[0]
    if split is None or split not in names:
        asked = f"no split {split!r}" if split is not None else "several splits"
        raise ConfigError(f"{folder} has {asked}: choose with --split, of {', '.join(names) or 'none'}")
    return split


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is no JSON object")
    return data
