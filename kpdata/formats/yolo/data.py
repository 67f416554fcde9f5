"""YOLO's data.yaml: which keypoints and classes a dataset has, and where its splits lie."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from kpdata.core.errors import FormatError, located
from kpdata.core.skeleton import MAX_KEYPOINTS, Skeleton
from kpdata.core.skeletons import COCO17, built_in_with
from kpdata.core.splits import DEFAULT_NAMES
from kpdata.formats._lib.listing import IMAGE_SUFFIXES, check_file, is_hidden, walk
from kpdata.formats._lib.yaml_file import read_yaml
from kpdata.formats.base import Unusable
from kpdata.storage.bounded import open_regular, read_bounded
from kpdata.storage.image_files import local_name

OWN_MARK = "# YOLO pose, written by kpdata"
"""How the file that kpdata writes begins."""

_MAX_CLASSES = 10_000
_PEOPLE = frozenset({"person", "people", "human", "man", "woman", "pedestrian", "player", "0"})
_SPLIT_KEYS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}

_MAX_LIST_BYTES = 256 << 20
"""Of a list of images: some four million."""


class Data(msgspec.Struct, frozen=True, dict=True):
    """What kpdata takes of a data.yaml; other keys are for training.

    Attributes:
        kpt_shape: the number of keypoints, and 2 or 3 numbers for each.
        names: the classes; without it, ``nc`` of them are called class_0 and so on.
        train, val, test: folders of images, text files that list images, or lists of these.
        path: the folder that they are relative to.
        flip_idx: the mirror image's keypoint, for each keypoint.
        kpt_names: class → its keypoints' names.
    """

    kpt_shape: tuple[int, int]
    names: dict[int, str] | list[str] | None = None
    nc: int | None = None
    train: str | list[str] | None = None
    val: str | list[str] | None = None
    test: str | list[str] | None = None
    path: str | None = None
    flip_idx: list[int] | None = None
    kpt_names: dict[int, Any] | list[Any] | None = None

    @property
    def num_keypoints(self) -> int:
        """K."""
        return self.kpt_shape[0]

    @cached_property
    def classes(self) -> dict[int, str]:
        """Class number → name."""
        if self.names is None:
            return {number: f"class_{number}" for number in range(min(self.nc or 0, _MAX_CLASSES))}
        return dict(enumerate(self.names)) if isinstance(self.names, list) else self.names

    def root(self, file: Path, images: Path | None) -> Path:
        """The dataset's folder: ``images``, or what ``path`` names below the file's own folder."""
        if images is not None:
            return images.absolute()
        beside = file.absolute().parent
        inside = Path(os.path.normpath(beside / (self.path or "")))
        return inside if inside.is_relative_to(beside) and os.path.isdir(inside) else beside

    def skeleton(self) -> Skeleton:
        """The keypoints, by the best names there are."""
        names = self._keypoint_names()
        if names is None and self._is_coco():
            return COCO17
        names = names or [f"keypoint_{number + 1}" for number in range(self.num_keypoints)]
        known = built_in_with(names)
        if known and self.flip_idx in (None, known.flip_index.tolist()):
            return known
        pairs = None
        if self.flip_idx is not None:
            pairs = tuple((names[a], names[b]) for a, b in enumerate(self.flip_idx) if a < b)
        return Skeleton(next(iter(self.classes.values())), tuple(names), flip_pairs=pairs)

    def _keypoint_names(self) -> list[str] | None:
        found: Any = self.kpt_names
        if isinstance(found, dict):
            found = next(iter(found.values()), None)
        if found is None:
            return None
        try:
            names = msgspec.convert(found, list[str])
        except msgspec.ValidationError as error:
            raise FormatError(f"kpt_names: {error}") from error
        if len(names) != self.num_keypoints:
            raise FormatError(
                f"kpt_names has {len(names)} names, kpt_shape says {self.num_keypoints} keypoints"
            )
        return names

    def _is_coco(self) -> bool:
        """Whether the keypoints are COCO's: its mirror images are copied for animals, too."""
        is_person = all(name.strip().lower() in _PEOPLE for name in self.classes.values())
        return is_person and self.flip_idx == COCO17.flip_index.tolist()


def load_data(path: Path) -> Data:
    """Read a data.yaml.

    Raises:
        FormatError: it is not YAML, or a key is missing or at fault.
    """
    with located(str(path)):
        try:
            content = read_yaml(path, "a YOLO pose data.yaml")
        except OSError as error:
            raise FormatError(f"cannot be read: {error.strerror}") from error
        try:
            data = msgspec.convert(_with_split_names(content), Data)
        except msgspec.ValidationError as error:
            raise FormatError(f"not a YOLO pose data.yaml: {error}") from error
        _check(data)
        return data


def is_own(path: Path) -> bool:
    """Whether kpdata wrote a data.yaml, as its first line says: its v are COCO's."""
    with open_regular(path) as file:
        return file.read(len(OWN_MARK)) == OWN_MARK.encode()


def _with_split_names(content: Any) -> Any:
    """What a data.yaml holds, with the splits under the keys that Ultralytics' own files have.

    Ultralytics also reads ``validation``; CVAT's exports have the user's own spelling.
    """
    if not isinstance(content, dict):
        return content
    known = {str(key): value for key, value in content.items() if isinstance(key, str)}
    for key, value in content.items():
        split = _SPLIT_KEYS.get(str(key).lower())
        if split and known.get(split) is None:
            known[split] = value
    return known


def _check(data: Data) -> None:
    count, dimensions = data.kpt_shape
    if not (1 <= count <= MAX_KEYPOINTS and dimensions in (2, 3)):
        raise FormatError(
            f"kpt_shape is {list(data.kpt_shape)}: expected 1 to {MAX_KEYPOINTS} keypoints, and 2 "
            "or 3 numbers for each"
        )
    if not data.classes:
        raise FormatError("names has no class: list the classes there, such as names: [boat]")
    flips = data.flip_idx
    if flips is None:
        return
    mutual = sorted(flips) == list(range(count)) and all(flips[b] == a for a, b in enumerate(flips))
    if not mutual:
        raise FormatError(
            f"flip_idx is {flips}: expected each of {count} keypoints' mirror image, counted from 0"
        )


def without_absent_test(root: Path, data: Data) -> Data:
    """``data`` without a test folder that is not there, as exports name one that have no test."""
    if not isinstance(data.test, str) or not (data.train or data.val):
        return data
    try:
        _inside(root, data.test)
    except FormatError:
        return msgspec.structs.replace(data, test=None)
    return data


def split_images(file: Path, root: Path, data: Data) -> Iterator[tuple[str, str]]:
    """(split, name) of every image; names are relative to ``root``, in order within a folder.

    Raises:
        FormatError: a folder or a list is missing, lies outside ``root``, or is named twice.
    """
    seen: dict[str, str] = {}
    for split in DEFAULT_NAMES:
        entries = getattr(data, split) or []
        for entry in [entries] if isinstance(entries, str) else entries:
            with located(f"{file}: {split}: {entry}"):
                inner = _inside(root, entry)
                if inner in seen:
                    raise FormatError(
                        f"is {seen[inner]} too: name it once, and let `split` divide it"
                    )
                seen[inner] = split
                names = _listed if inner.endswith(".txt") else _in_folder
                yield from ((split, name) for name in names(root, inner))
    if not seen:
        raise FormatError(f"{file}: names no images: expected train, val or test")


def _inside(root: Path, entry: str) -> str:
    """``entry`` relative to ``root``; exports that begin with ``../`` mean ``root`` itself."""
    path = os.path.relpath(root / entry, root)
    while path.startswith("../") and not os.path.exists(root / path):
        path = path.removeprefix("../")
    if path.startswith(".."):
        raise FormatError(f"lies outside {root}: move it there, or give `images`, its folder")
    if not (os.path.isfile if path.endswith(".txt") else os.path.isdir)(root / path):
        raise FormatError(f"not found below {root}: give `images`, the dataset's folder")
    return path


def _in_folder(root: Path, inner: str) -> Iterator[str]:
    prefix = "" if inner == "." else f"{inner}/"
    names = sorted(name for _, name in walk(root / inner, IMAGE_SUFFIXES) if not is_hidden(name))
    return (prefix + name for name in names)


def _listed(root: Path, inner: str) -> Iterator[str]:
    try:
        check_file(root / inner, root)
        names = read_bounded(root / inner, _MAX_LIST_BYTES).decode().splitlines()
    except (Unusable, OSError, UnicodeDecodeError) as error:
        raise FormatError(f"cannot be read: {error}") from error
    for name in filter(None, map(str.strip, names)):
        yield _without_export_folders(root, os.path.normpath(local_name(str(root), name)))


def _without_export_folders(root: Path, name: str) -> str:
    """``name`` without the folders that CVAT writes before it, where only so it is a file."""
    if os.path.isabs(name) or name.startswith("..") or os.path.lexists(root / name):
        return name
    parts = name.split("/")
    shorter = ("/".join(parts[start:]) for start in range(1, len(parts)))
    return next((one for one in shorter if os.path.lexists(root / one)), name)
