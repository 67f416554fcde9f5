"""Several sources as one: a file of annotations for each split."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from kpdata.core.errors import FormatError, ImageError
from kpdata.core.sample import Rejected, Sample
from kpdata.formats.base import Source
from kpdata.storage.image_files import safe_path
from kpdata.storage.stores import Location, Url


def merge(sources: Mapping[str, Source]) -> Source:
    """One source of several, each of which is the official split that it is named after.

    The split's name begins every key, so that numbers may start anew in every file. Where the
    images lie in several folders, an image's name begins with its own below their common parent,
    and so does a group that was read off it.

    Raises:
        FormatError: the keypoints differ, or the images' folders have no parent in common.
    """
    (name, first), *others = sources.items()
    for other, source in others:
        if source.skeleton.keypoints != first.skeleton.keypoints:
            raise FormatError(
                f"{name} and {other} have different keypoints "
                f"({', '.join(first.skeleton.keypoints)}; {', '.join(source.skeleton.keypoints)}): "
                "convert each into shards of its own"
            )
    root, prefixes = _common_root({name: source.images_root for name, source in sources.items()})
    counts: Counter[str] = Counter()

    def samples() -> Iterator[Sample | Rejected]:
        for split, source in sources.items():
            for sample in source.samples:
                yield _as_part(sample, split, prefixes[split], source)
            counts.update(source.counts)

    return Source(
        skeleton=first.skeleton,
        samples=samples(),
        images_root=root,
        annotation_files=tuple(path for s in sources.values() for path in s.annotation_files),
        counts=counts,
        has_boxes=any(source.has_boxes for source in sources.values()),
        groups_from_names=all(source.groups_from_names for source in sources.values()),
        convention="; ".join(dict.fromkeys(s.convention for s in sources.values() if s.convention)),
    )


def _common_root(roots: Mapping[str, Location | None]) -> tuple[Location | None, dict[str, str]]:
    """The folder that all images lie below, and what leads from there to each source's own."""
    if not any(roots.values()):
        return None, dict.fromkeys(roots, "")
    folders = {name: os.path.normpath(_absolute(root)) for name, root in roots.items() if root}
    try:
        common = os.path.commonpath(folders.values())
    except ValueError:  # some are on a store, and some are not
        common = ""
    if len(folders) < len(roots) or "/" not in common.rstrip("/"):
        listed = ", ".join(f"{name}: {root or 'in the file'}" for name, root in roots.items())
        raise FormatError(f"the images have no folder in common ({listed}): put them below one")
    inner = {
        name: "" if folder == common else f"{os.path.relpath(folder, common)}/"
        for name, folder in folders.items()
    }
    on_store = any(isinstance(root, Url) for root in roots.values())
    return Url(common.replace(":/", "://", 1)) if on_store else Path(common), inner


def _absolute(root: Location) -> str:
    return root if isinstance(root, Url) else str(root.absolute())


def _as_part(
    sample: Sample | Rejected, split: str, prefix: str, source: Source
) -> Sample | Rejected:
    key = f"{split}/{sample.key}"
    if isinstance(sample, Rejected):
        return sample._replace(key=key)
    image = replace(sample.image, name=prefix + sample.image.name)
    if prefix and isinstance(source.images_root, Path):
        try:
            safe_path(str(source.images_root), sample.image.name)  # the common parent is no excuse
        except ImageError as error:
            return Rejected(key, error.reason, str(error))
    apart = f"{split}/" if source.groups_are_numbers else ""
    group = sample.group and apart + (prefix if source.groups_from_names else "") + sample.group
    return replace(sample, key=key, image=image, split=split, group=group)
