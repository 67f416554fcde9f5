"""A DeepLabCut project's folder: which files hold its labels, and what its config.yaml adds."""

import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from kpdata.core.errors import FormatError, located
from kpdata.core.flip_pairs import Pair
from kpdata.formats._lib.listing import check_file, is_hidden
from kpdata.formats._lib.yaml_file import read_yaml
from kpdata.formats.base import Unusable, require_file

LABELED = "labeled-data"

NO_LABELS = f"folders of {LABELED} without labels"
OTHER_SCORERS = "CollectedData files that are not of config.yaml's scorer, left out"
FAULTY_EDGES = "edges of config.yaml's skeleton that join no two keypoints, left out"

_CONFIG = "config.yaml"
_LIGHTNING = "CollectedData.csv"
"""The one file of labels of a Lightning Pose project, beside the folder of its images."""
_LARGEST = 1e9
"""No number that names something is; Python spells none of thousands of digits."""


class Config(NamedTuple):
    """What kpdata takes of a config.yaml: the project's name, whose labels count, what to draw."""

    task: str = ""
    scorer: str = ""
    skeleton: Any = None

    def edges(self, keypoints: tuple[str, ...]) -> tuple[tuple[Pair, ...], int]:
        """The skeleton's pairs of these keypoints, and how many other entries it has."""
        drawn = self.skeleton if isinstance(self.skeleton, list) else []
        known = frozenset(keypoints)
        sound = [pair for entry in drawn if (pair := _pair(entry, known))]
        return tuple(dict.fromkeys(sound)), len(drawn) - len(sound)


class Project(NamedTuple):
    """Where a project's files are.

    Attributes:
        root: the folder at which images' names begin.
        tables: its CollectedData files, in the order of their folders' names.
        config_file: its config.yaml; None where there is none.
        config: what that says.
        counts: files and folders that were left out, by reason.
    """

    root: Path
    tables: tuple[Path, ...]
    config_file: Path | None
    config: Config
    counts: Counter[str]


def open_project(annotations: Path) -> Project:
    """Find the labels of a project, of its folder labeled-data, or one file of them.

    Raises:
        FormatError: it is none of these, or holds no labels, or not as CSV; config.yaml is at
            fault.
    """
    folder = annotations.absolute()
    if not folder.is_dir():
        return _project_around(annotations)
    if (folder / LABELED).is_dir():
        labeled, root = annotations / LABELED, folder
    elif folder.name == LABELED:
        labeled, root = annotations, folder.parent
    else:
        raise FormatError(
            f"{annotations}: holds no {LABELED}: give the project's folder, its {LABELED}, or one "
            "CollectedData_SCORER.csv"
        )
    path, config = _config(root)
    tables, counts = _tables(labeled, config.scorer)
    if not tables:
        tables = tuple(path for path in (root / _LIGHTNING,) if path.is_file())
    if not tables:
        raise FormatError(f"{labeled}: holds no VIDEO/CollectedData_SCORER.csv: label images first")
    return Project(root, tables, path, config, counts)


def _project_around(table: Path) -> Project:
    """The project of one file; where there is none, its root is two above the file's folder."""
    require_file(table)
    if table.suffix.lower() == ".h5":
        raise FormatError(_only_h5(table))
    if table.suffix.lower() != ".csv":
        raise FormatError(f"{table}: expected the project's folder, or a CollectedData_SCORER.csv")
    above = table.absolute().parents
    root = next((folder for folder in above if (folder / LABELED).is_dir()), None)
    if root is None:
        return Project(above[min(2, len(above) - 1)], (table,), None, Config(), Counter())
    path, config = _config(root)
    return Project(root, (table,), path, config, Counter())


def _only_h5(path: Path) -> str:
    return (
        f"{path}: HDF5 is not read: copy the CSV of the same name too, which DeepLabCut writes "
        "beside it, or save this folder's labels once more in DeepLabCut"
    )


def _tables(labeled: Path, scorer: str) -> tuple[tuple[Path, ...], Counter[str]]:
    """The labels of each video's folder, and what was left out."""
    try:
        with os.scandir(labeled) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        videos = [labeled / name for name in sorted(names) if not is_hidden(name)]
        found = [_table(video, scorer) for video in videos]
    except OSError as error:
        raise FormatError(f"{error.filename}: cannot list it: {error.strerror}") from error
    tables = tuple(path for path, _ in found if path)
    others = sum(count for _, count in found)
    return tables, Counter({NO_LABELS: len(found) - len(tables), OTHER_SCORERS: others})


def _table(video: Path, scorer: str) -> tuple[Path | None, int]:
    """A folder's labels, and how many files of other scorers lie beside them.

    They are those of ``scorer``, else the only ones; None where there are none.
    """
    names = sorted(name for name in os.listdir(video) if name.startswith("CollectedData_"))
    tables = [name for name in names if name.endswith(".csv")]
    own = f"CollectedData_{scorer}.csv"
    if own in tables:
        return video / own, len(tables) - 1
    if len(tables) > 1:
        raise FormatError(
            f"{video}: holds {' and '.join(tables)}: keep one, or name its scorer in {_CONFIG}"
        )
    if not tables:
        for name in names:
            if name.endswith(".h5"):
                raise FormatError(_only_h5(video / name))
        return None, 0
    return video / tables[0], 0


def _config(root: Path) -> tuple[Path | None, Config]:
    path = root / _CONFIG
    if not os.path.lexists(path):
        return None, Config()
    with located(str(path)):
        try:
            check_file(path, root)
            value = read_yaml(path, "YAML")
        except (Unusable, OSError) as error:
            raise FormatError(f"cannot be read: {error}") from error
        if not isinstance(value, dict):
            raise FormatError("expected the keys of a DeepLabCut project, such as scorer")
        task, scorer = _text(value.get("Task")), _text(value.get("scorer"))
        return path, Config(task, scorer, value.get("skeleton"))


def _pair(entry: Any, known: frozenset[str]) -> Pair | None:
    if not isinstance(entry, list) or len(entry) != 2:
        return None
    first, second = map(_text, entry)
    return (first, second) if first != second and {first, second} <= known else None


def _text(value: Any) -> str:
    """A YAML scalar as the text that a CSV holds; "" for anything else."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return str(value) if isinstance(value, (int, float)) and abs(value) < _LARGEST else ""
