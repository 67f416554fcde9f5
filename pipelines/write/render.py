"""One sample and its image's bytes → the samples of its records."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np

from kpdata.core.augment import CopyParams, occlude, params_affine, sample_params
from kpdata.core.sample import WHOLE_IMAGE, ImageRef, Instance, Pixels, Sample, View
from kpdata.core.splits import TRAIN, stable_hash
from kpdata.core.transform import IDENTITY, Affine, as_stored, compose, move_instance
from kpdata.images import codec
from kpdata.images.headers import Header, check_size, probe
from kpdata.images.photometric import paint
from kpdata.images.resample import mean_of_blocks, shrink_for, warp, with_spare_channel
from kpdata.pipelines.request import Request


@dataclass(frozen=True)
class Upright:
    """A source image on its feet.

    Attributes:
        sample: with instances in upright pixels.
        data, header: the file's bytes, and what they say.
        width, height: upright pixels.
        base: (2, 3) source pixels → upright pixels.
        source_size: width and height of the source.
    """

    sample: Sample
    data: bytes
    header: Header
    width: int
    height: int
    base: Affine
    source_size: tuple[int, int]

    def view(self, affine: Affine, copy: int, seed: int, instance: int) -> View:
        """The view behind ``affine``, which maps upright pixels to record pixels."""
        transform = compose(affine, self.base)
        return View(transform, *self.source_size, copy, seed, instance)


@dataclass(frozen=True)
class _Frame:
    """What a picture shows: where it comes from and whom."""

    affine: Affine
    width: int
    height: int
    instances: tuple[Instance, ...]
    index: int

    @cached_property
    def reduction(self) -> int:
        """How far to shrink while decoding, for the frame and its moderately larger copies.

        It rests on the frame alone, so that a picture does not depend on its siblings.
        """
        return shrink_for(self.affine)


class _Picture(NamedTuple):
    """A picture before it is drawn: all of its record but the pixels.

    Attributes:
        frame: what it shows.
        params: how this copy of it is changed.
        affine: upright pixels → picture pixels.
        instances, view: the record's.
    """

    frame: _Frame
    params: CopyParams
    affine: Affine
    instances: tuple[Instance, ...]
    view: View


def render(
    sample: Sample, data: bytes, split: str, request: Request, counts: Counter[str]
) -> Iterator[Sample]:
    """The samples of every record that an image gives: originals, crops, copies.

    The image is checked and decoded at once, and each picture drawn when its turn comes.

    Args:
        sample: the reference.
        data: its image's encoded bytes.
        split: only ``train`` is augmented.
        request: what to do.
        counts: named counters, added to.

    Raises:
        ImageError: the image cannot be used, which may be found while drawing: then what was
            yielded before must be thrown away.
    """
    upright = _stand_up(sample, data, request, counts)
    copies = request.augment if split == TRAIN else 0
    if request.crop:
        frames = list(_crops(upright, request, counts))
        return _pictures(upright, frames, range(copies + 1), request, counts)
    whole = _whole_image(upright, request, counts)
    frames = [_whole_frame(upright)]
    return chain([whole], _pictures(upright, frames, range(1, copies + 1), request, counts))


def _stand_up(sample: Sample, data: bytes, request: Request, counts: Counter[str]) -> Upright:
    header = probe(data, request.max_pixels)
    if request.validate_images == "decode":
        codec.decode_upright(data, header)
    to_upright = codec.source_to_upright(header, request.exif)
    width, height = header.upright_size
    seen = (width, height) if request.exif == "applied" else (header.width, header.height)
    check_size(sample.image, header, seen)
    if header.orientation != 1:
        counts["images turned upright"] += 1
        if request.exif == "ignored":
            sample = _moved(sample, to_upright, width, height, request, counts)
    base, source_size = to_upright, seen
    if sample.view:
        base = compose(to_upright, sample.view.transform)
        source_size = (sample.view.source_width, sample.view.source_height)
    return Upright(sample, data, header, width, height, base, source_size)


def _moved(
    sample: Sample, affine: Affine, width: int, height: int, request: Request, counts: Counter[str]
) -> Sample:
    moved = [
        move_instance(instance, affine, width, height, request.skeleton.flip_index)
        for instance in sample.instances
    ]
    counts["keypoints outside the image, set to v = 0"] += sum(lost for _, lost in moved)
    return replace(sample, instances=tuple(instance for instance, _ in moved))


def _whole_frame(upright: Upright) -> _Frame:
    return _Frame(IDENTITY, upright.width, upright.height, upright.sample.instances, WHOLE_IMAGE)


def _crops(upright: Upright, request: Request, counts: Counter[str]) -> Iterator[_Frame]:
    assert request.crop is not None
    for index, instance in enumerate(upright.sample.instances):
        reason = request.why_not_cropped(instance)
        if reason:
            counts[reason] += 1
            continue
        affine = request.crop_rule.square(instance, upright.width, upright.height, request.crop)
        yield _Frame(as_stored(affine), request.crop, request.crop, (instance,), index)


def _whole_image(upright: Upright, request: Request, counts: Counter[str]) -> Sample:
    header, data = upright.header, upright.data
    kind = "png" if header.format == "other" else header.format
    if not header.storable:
        counts["images re-encoded as upright RGB"] += 1
        data = codec.encode(codec.decode_upright(data, header), kind, request.jpeg_quality)
    image = ImageRef(
        upright.sample.image.name,
        width=upright.width,
        height=upright.height,
        data=data,
        format=kind,
    )
    view = View(upright.base, *upright.source_size)
    return replace(upright.sample, image=image, view=view)


def _pictures(
    upright: Upright, frames: list[_Frame], copies: range, request: Request, counts: Counter[str]
) -> Iterator[Sample]:
    pictures = [
        _described(upright, frame, copy, request, counts) for frame in frames for copy in copies
    ]
    decoded = {
        reduce: with_spare_channel(_decode(upright, reduce))
        for reduce in sorted({picture.frame.reduction for picture in pictures})
    }
    return (_drawn(upright.sample, decoded, picture, request) for picture in pictures)


def _described(
    upright: Upright, frame: _Frame, copy: int, request: Request, counts: Counter[str]
) -> _Picture:
    params, affine = (
        _sample_copy(upright, frame, copy, request) if copy else (CopyParams(), frame.affine)
    )
    instances = _instances_in(frame, affine, params, "copy" if copy else "crop", request, counts)
    view = upright.view(affine, copy, request.seed if copy else 0, frame.index)
    return _Picture(frame, params, affine, instances, view)


def _drawn(
    sample: Sample, decoded: dict[int, Pixels], picture: _Picture, request: Request
) -> Sample:
    frame, params, affine, instances, view = picture
    shrink = frame.reduction
    pixels = warp(decoded[shrink], affine, frame.width, frame.height, shrink=shrink)
    if view.copy:
        data = codec.encode(paint(pixels, params), "jpeg", params.jpeg_quality)
    else:
        data = codec.encode(pixels, "jpeg", request.jpeg_quality)
    image = ImageRef(
        sample.image.name, width=frame.width, height=frame.height, data=data, format="jpeg"
    )
    return replace(sample, image=image, instances=instances, view=view)


def _sample_copy(
    upright: Upright, frame: _Frame, copy: int, request: Request
) -> tuple[CopyParams, Affine]:
    entropy = [request.seed, stable_hash(upright.sample.key), frame.index + 1, copy]
    params = sample_params(
        request.augment_config, np.random.default_rng(entropy), frame.width, frame.height
    )
    moved = params_affine(params, frame.width, frame.height)
    return params, as_stored(compose(moved, frame.affine))


def _decode(upright: Upright, reduce: int) -> Pixels:
    if upright.header.storable:
        return codec.decode(upright.data, reduce)
    pixels = codec.decode_upright(upright.data, upright.header)
    return mean_of_blocks(pixels, reduce)


def _instances_in(
    frame: _Frame,
    affine: Affine,
    params: CopyParams,
    where: str,
    request: Request,
    counts: Counter[str],
) -> tuple[Instance, ...]:
    instances = []
    for instance in frame.instances:
        moved, lost = move_instance(
            instance, affine, frame.width, frame.height, request.skeleton.flip_index
        )
        counts[f"keypoints outside a {where}, set to v = 0"] += lost
        instances.append(occlude(moved, params.rectangles))
    return tuple(instances)
