"""Render the pictures of one image's records: crops, augmented copies, or the image itself."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
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

OUTSIDE = "labelled keypoints outside of their image"
ONE_COLOUR = "instances not cropped: crop of one colour"

_NOISE = 1e-3
"""Pixels by which float32 numbers stray over an edge."""


@dataclass(frozen=True)
class _Upright:
    """A source image with its EXIF orientation applied.

    Attributes:
        sample: with instances in upright pixels.
        data, header: the file's bytes, and their header.
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
        """The record's View: ``affine`` maps upright pixels to record pixels."""
        transform = compose(affine, self.base)
        return View(transform, *self.source_size, copy, seed, instance)


@dataclass(frozen=True)
class _Frame:
    """The part of an upright image that a picture shows.

    Attributes:
        affine: (2, 3) upright pixels → picture pixels, before augmentation.
        width, height: of the picture in pixels.
        instances: those it shows, in upright pixels.
        index: of the instance that a crop is made for; WHOLE_IMAGE for an image without a crop.
    """

    affine: Affine
    width: int
    height: int
    instances: tuple[Instance, ...]
    index: int

    @cached_property
    def reduction(self) -> int:
        """How far to shrink the image while it is decoded, for the crop and all its copies.

        It depends on the frame alone, so that a copy's pixels do not depend on the other copies.
        """
        return shrink_for(self.affine)


class _Picture(NamedTuple):
    """All of a record but its pixels, which are rendered later.

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


class Rendered(NamedTuple):
    """The records of one image.

    Attributes:
        records: a sample for each; its pixels are rendered when the iterator reaches it.
        counts: what was changed or left out, by name; complete once all records are rendered.
    """

    records: Iterator[Sample]
    counts: Counter[str]


def render(sample: Sample, data: bytes, split: str, request: Request) -> Rendered:
    """Make all records of an image: the original, or its crops, and their augmented copies.

    The image is checked and decoded before this returns.

    Args:
        sample: with its labels, without its image's bytes.
        data: the image's encoded bytes.
        split: only ``train`` is augmented.
        request: what to do.

    Raises:
        ImageError: the image cannot be used. Iterating the records can raise it too: then throw
            away the records that came before.
    """
    renderer = _Renderer(request)
    records = renderer.records(sample, data, request.augment * (split == TRAIN))
    return Rendered(records, renderer.counts)


@dataclass(frozen=True)
class _Renderer:
    """Makes the records of one image, and counts what it changes."""

    request: Request
    counts: Counter[str] = field(default_factory=Counter)

    def records(self, sample: Sample, data: bytes, copies: int) -> Iterator[Sample]:
        """The records of :func:`render`, with so many copies of each original."""
        upright = self._upright(sample, data)
        if self.request.crop:
            return self._pictures(upright, list(self._crops(upright)), range(copies + 1))
        whole = self._whole_image(upright)
        return chain(
            [whole], self._pictures(upright, [_whole_frame(upright)], range(1, copies + 1))
        )

    def _upright(self, sample: Sample, data: bytes) -> _Upright:
        header = probe(data, self.request.max_pixels)
        if self.request.validate_images == "decode":
            codec.decode_upright(data, header)
        to_upright = codec.source_to_upright(header, self.request.exif)
        width, height = header.upright_size
        applied = self.request.exif == "applied"
        annotated_size = (width, height) if applied else (header.width, header.height)
        check_size(sample.image, header, annotated_size)
        if header.orientation != 1:
            self.counts["images turned upright"] += 1
            if not applied:
                sample = self._turned(sample, to_upright, width, height)
        self.counts[OUTSIDE] += _labelled_outside(sample.instances, width, height)
        base, source_size = to_upright, annotated_size
        if sample.view:
            base = compose(to_upright, sample.view.transform)
            source_size = (sample.view.source_width, sample.view.source_height)
        return _Upright(sample, data, header, width, height, base, source_size)

    def _turned(self, sample: Sample, affine: Affine, width: int, height: int) -> Sample:
        moved = [
            move_instance(instance, affine, width, height, self.request.skeleton.flip_index)
            for instance in sample.instances
        ]
        self.counts["keypoints outside the image, set to v = 0"] += sum(lost for _, lost in moved)
        return replace(sample, instances=tuple(instance for instance, _ in moved))

    def _crops(self, upright: _Upright) -> Iterator[_Frame]:
        side = self.request.crop
        assert side is not None
        for index, instance in enumerate(upright.sample.instances):
            if reason := self.request.why_not_cropped(instance):
                self.counts[reason] += 1
                continue
            rule = self.request.crop_rule
            affine = rule.square(instance, upright.width, upright.height, side)
            yield _Frame(as_stored(affine), side, side, (instance,), index)

    def _whole_image(self, upright: _Upright) -> Sample:
        header, data = upright.header, upright.data
        kind = "png" if header.format == "other" else header.format
        if not header.storable:
            self.counts["images re-encoded as upright RGB"] += 1
            pixels = codec.decode_upright(data, header)
            data = codec.encode(pixels, kind, self.request.jpeg_quality)
        image = ImageRef(
            upright.sample.image.name,
            width=upright.width,
            height=upright.height,
            data=data,
            format=kind,
        )
        view = View(upright.base, *upright.source_size)
        return replace(upright.sample, image=image, view=view)

    def _pictures(self, upright: _Upright, frames: list[_Frame], copies: range) -> Iterator[Sample]:
        pictures = [self._planned(upright, frame, copy) for frame in frames for copy in copies]
        decoded = {
            reduce: with_spare_channel(_decode(upright, reduce))
            for reduce in sorted({picture.frame.reduction for picture in pictures})
        }
        return self._drawn_all(upright.sample, decoded, pictures)

    def _drawn_all(
        self, sample: Sample, decoded: dict[int, Pixels], pictures: list[_Picture]
    ) -> Iterator[Sample]:
        """All pictures but crops of one colour, with their copies: they show nothing."""
        empty: set[int] = set()
        for picture in pictures:
            frame = picture.frame
            if frame.index in empty:
                continue
            pixels = warp(
                decoded[frame.reduction], picture.affine, frame.width, frame.height,
                shrink=frame.reduction,
            )  # fmt: skip
            if frame.index != WHOLE_IMAGE and not picture.view.copy and _is_of_one_colour(pixels):
                self.counts[ONE_COLOUR] += 1
                empty.add(frame.index)
                continue
            yield self._encoded(sample, picture, pixels)

    def _planned(self, upright: _Upright, frame: _Frame, copy: int) -> _Picture:
        params, affine = CopyParams(), frame.affine
        if copy:
            params, affine = self._sample_copy(upright, frame, copy)
        instances = self._instances_in(frame, affine, params, "copy" if copy else "crop")
        view = upright.view(affine, copy, self.request.seed if copy else 0, frame.index)
        return _Picture(frame, params, affine, instances, view)

    def _sample_copy(
        self, upright: _Upright, frame: _Frame, copy: int
    ) -> tuple[CopyParams, Affine]:
        entropy = [self.request.seed, stable_hash(upright.sample.key), frame.index + 1, copy]
        rng = np.random.default_rng(entropy)
        params = sample_params(self.request.augment_config, rng, frame.width, frame.height)
        moved = params_affine(params, frame.width, frame.height)
        return params, as_stored(compose(moved, frame.affine))

    def _instances_in(
        self, frame: _Frame, affine: Affine, params: CopyParams, where: str
    ) -> tuple[Instance, ...]:
        instances = []
        for instance in frame.instances:
            moved, lost = move_instance(
                instance, affine, frame.width, frame.height, self.request.skeleton.flip_index
            )
            self.counts[f"keypoints outside a {where}, set to v = 0"] += lost
            instances.append(occlude(moved, params.rectangles))
        return tuple(instances)

    def _encoded(self, sample: Sample, picture: _Picture, pixels: Pixels) -> Sample:
        frame, params, _, instances, view = picture
        if view.copy:
            data = codec.encode(paint(pixels, params), "jpeg", params.jpeg_quality)
        else:
            data = codec.encode(pixels, "jpeg", self.request.jpeg_quality)
        image = ImageRef(
            sample.image.name, width=frame.width, height=frame.height, data=data, format="jpeg"
        )
        return replace(sample, image=image, instances=instances, view=view)


def _labelled_outside(instances: tuple[Instance, ...], width: int, height: int) -> int:
    """How many labelled keypoints lie outside of their image."""
    if not instances:
        return 0
    keypoints = np.concatenate([instance.keypoints for instance in instances])  # (N * K, 3)
    x, y, visibility = keypoints.T
    outside = (x < -_NOISE) | (y < -_NOISE) | (x > width + _NOISE) | (y > height + _NOISE)
    return int((outside & (visibility > 0)).sum())


def _is_of_one_colour(pixels: Pixels) -> bool:
    first = pixels[0, 0]
    return bool((pixels[::16, ::16] == first).all() and (pixels == first).all())


def _whole_frame(upright: _Upright) -> _Frame:
    return _Frame(IDENTITY, upright.width, upright.height, upright.sample.instances, WHOLE_IMAGE)


def _decode(upright: _Upright, reduce: int) -> Pixels:
    if upright.header.storable:
        return codec.decode(upright.data, reduce)
    pixels = codec.decode_upright(upright.data, upright.header)
    return mean_of_blocks(pixels, reduce)
