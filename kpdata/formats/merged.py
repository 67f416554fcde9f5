"""Several sources as one: one or more files of annotations for each split."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from kpdata.core.errors import FormatError, ImageError
from kpdata.core.flip_pairs import Pair
from kpdata.core.mapping import map_by_name, map_sample
from kpdata.core.sample import Rejected, Sample
from kpdata.core.skeleton import Skeleton
from kpdata.formats.base import Source
from kpdata.storage.image_files import safe_path
from kpdata.storage.stores import Location, Url

REARRANGED = "instances whose keypoints were put into the order of all sources' together"


def merge(sources: Mapping[str, Source]) -> Source:
    """One source of several, each of which is of one official split.

    Args:
        sources: by split; ``train+2`` is the second source of split train.

    A source's name begins every key, so that numbers may start anew in every file. Where the images
    lie in several folders, an image's name begins with its own below their common parent, and so
    does a group that was read off it. Where skeletons differ, the keypoints are those of all, by
    name: what a source does not have is not labelled in its samples.

    Raises:
        FormatError: images lie on a store and here, or on two stores.
        SchemaError: the keypoints of all sources together make no skeleton.
    """
    skeleton = _union(source.skeleton for source in sources.values())
    root, prefixes = _common_root({name: source.images_root for name, source in sources.items()})
    counts: Counter[str] = Counter()

    def samples() -> Iterator[Sample | Rejected]:
        for name, source in sources.items():
            mapping = None
            if source.skeleton.keypoints != skeleton.keypoints:
                mapping = map_by_name(source.skeleton, skeleton, derive=False)
            for sample in source.samples:
                part = _as_part(sample, name, prefixes[name], source)
                if mapping is not None and isinstance(part, Sample):
                    counts[REARRANGED] += len(part.instances)
                    part = map_sample(part, mapping)
                yield part
            counts.update(source.counts)

    return Source(
        skeleton=skeleton,
        samples=samples(),
        images_root=root,
        annotation_files=tuple(path for s in sources.values() for path in s.annotation_files),
        counts=counts,
        has_boxes=any(source.has_boxes for source in sources.values()),
        groups_from_names=all(source.groups_from_names for source in sources.values()),
        hints=tuple(dict.fromkeys(hint for s in sources.values() for hint in s.hints)),
        convention="; ".join(dict.fromkeys(s.convention for s in sources.values() if s.convention)),
    )


def _union(skeletons: Iterable[Skeleton]) -> Skeleton:
    """All keypoints of all skeletons, in the order in which their names come first."""
    every: list[Skeleton] = []
    for skeleton in skeletons:
        if skeleton not in every:
            every.append(skeleton)
    first = every[0]
    if all(set(other.keypoints) <= set(first.keypoints) for other in every):
        return first

    def unique(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
        seen = {frozenset(pair): pair for pair in reversed(list(pairs))}
        return tuple(reversed(seen.values()))

    measured = all(skeleton.sigmas for skeleton in every)
    return Skeleton(
        name="+".join(dict.fromkeys(skeleton.name for skeleton in every)),
        keypoints=tuple(dict.fromkeys(name for one in every for name in one.keypoints)),
        edges=unique(pair for one in every for pair in one.edges),
        flip_pairs=unique(pair for one in every for pair in one.flip_pairs or ()),
        sigmas={n: s for one in reversed(every) for n, s in one.sigmas.items()} if measured else {},
        torso=next((one.torso for one in every if one.torso), None),
        head=next((one.head for one in every if one.head), None),
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
    on_store = [isinstance(root, Url) for root in roots.values()]
    apart = any(on_store) and not (all(on_store) and "/" in common.rstrip("/"))
    if len(folders) < len(roots) or apart:
        listed = ", ".join(f"{name}: {root or 'in the file'}" for name, root in roots.items())
        raise FormatError(f"the images have no folder in common ({listed}): put them below one")
    inner = {
        name: "" if folder == common else f"{os.path.relpath(folder, common)}/"
        for name, folder in folders.items()
    }
    return Url(common.replace(":/", "://", 1)) if any(on_store) else Path(common), inner


def _absolute(root: Location) -> str:
    return root if isinstance(root, Url) else str(root.absolute())


def _as_part(
    sample: Sample | Rejected, name: str, prefix: str, source: Source
) -> Sample | Rejected:
    key, split = f"{name}/{sample.key}", name.partition("+")[0]
    if isinstance(sample, Rejected):
        return sample._replace(key=key)
    image = replace(sample.image, name=prefix + sample.image.name)
    if prefix and isinstance(source.images_root, Path):
        try:
            safe_path(str(source.images_root), sample.image.name)  # the common parent is no excuse
        except ImageError as error:
            return Rejected(key, error.reason, str(error))
    apart = f"{name}/" if source.groups_are_numbers else ""
    group = sample.group and apart + (prefix if source.groups_from_names else "") + sample.group
    return replace(sample, key=key, image=image, split=split, group=group)
