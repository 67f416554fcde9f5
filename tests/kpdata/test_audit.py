"""``audit`` finds what several splits share, and takes no two strangers for one picture."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpdata import __version__
from kpdata.checks import audit as audit_module
from kpdata.checks.audit import audit
from kpdata.checks.certificate import (
    GROUP,
    IDENTICAL,
    NEAR,
    SOURCE,
    Certificate,
    leak_sheet,
    write_certificate,
)
from kpdata.core import transform
from kpdata.core.errors import DatasetError, ImageError
from kpdata.core.progress import Progress
from kpdata.core.sample import WHOLE_IMAGE, ImageRef, Pixels, Sample, View
from kpdata.core.skeleton import Skeleton
from kpdata.images import codec
from kpdata.images.perceptual import (
    BITS,
    DEFAULT_DISTANCE,
    Hashes,
    bit_distances,
    fingerprint,
    near_pairs,
)
from kpdata.shards import records, tfrecord
from kpdata.shards.manifest import (
    MANIFEST,
    Manifest,
    ShardInfo,
    SourceInfo,
    SplitInfo,
    read_manifest,
    shard_name,
    write_manifest,
)

Pixels = Pixels

SKELETON = Skeleton("dot", ("dot",))


def photo(seed: int, width: int = 160, height: int = 120) -> Pixels:
    """A picture with detail on every scale, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((height, width, 3))
    for cells, strength in ((3, 60), (9, 40), (27, 25)):
        noise = rng.normal(0, strength, (cells, cells, 3))
        canvas += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(canvas + 110, 0, 255).astype(np.uint8)


def encoded(pixels: Pixels, quality: int = 95) -> bytes:
    return codec.encode(pixels, "jpeg", quality)


def sample(
    name: str,
    pixels: Pixels | bytes,
    group: str | None = None,
    copy: int = 0,
    instance: int = WHOLE_IMAGE,
    view: View | None = None,
) -> Sample:
    """An original record of ``pixels``, or of these very bytes."""
    data = pixels if isinstance(pixels, bytes) else encoded(pixels)
    height, width = codec.decode(data).shape[:2]
    image = ImageRef(name, width=width, height=height, data=data, format="jpeg")
    made = view or View(transform.IDENTITY, width, height, copy=copy, instance=instance)
    return Sample(name, image, group=group, view=made)


def write(folder: Path, splits: Mapping[str, Sequence[Sample]], annotations: str = "own") -> Path:
    """A sealed dataset of these records, one shard a split, made of ``annotations``."""
    folder.mkdir()
    infos = {}
    for split, samples in splits.items():
        name = shard_name(split, 0, 1)
        with tfrecord.Writer(folder / name) as writer:
            for one in samples:
                writer.write(records.encode(one))
        shard = ShardInfo(name, writer.records, writer.bytes, writer.blake3)
        copies = sum(bool(one.view and one.view.copy) for one in samples)
        count = len(samples)
        infos[split] = SplitInfo(count, count, copies, 0, ((0, 0, 0),), (shard,))
    source = SourceInfo("coco", "as is", {"annotations.json": annotations}, {})
    parts = (records.SCHEMA_VERSION, SKELETON, (), source, {}, infos, {}, {}, "", "", {}, {})
    write_manifest(folder, Manifest(*parts))
    return folder


def strangers(start: int, count: int) -> list[Sample]:
    return [sample(f"{seed}.jpg", photo(seed)) for seed in range(start, start + count)]


def found(certificate: Certificate) -> list[tuple[str, str, str]]:
    return [(leak.kind, leak.first.file, leak.second.file) for leak in certificate.leaks]


def resized(pixels: Pixels) -> Pixels:
    size = round(pixels.shape[1] * 0.6), round(pixels.shape[0] * 0.6)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def brightened(pixels: Pixels) -> Pixels:
    return np.clip(pixels * 1.25, 0, 255).astype(np.uint8)


def mixed(pixels: Pixels) -> bytes:
    return encoded(brightened(resized(pixels)), quality=40)


VARIANTS: dict[str, Callable[[Pixels], Pixels | bytes]] = {
    "resized": resized,
    "re-encoded": lambda pixels: encoded(pixels, quality=30),
    "brightened": brightened,
    "all of these": mixed,
}


# --- what is a leak -------------------------------------------------------------------------------


def test_distinct_pictures_are_no_leak(tmp_path: Path) -> None:
    splits = {"train": strangers(0, 60), "val": strangers(60, 20), "test": strangers(80, 20)}
    certificate = audit([write(tmp_path / "a", splits)])
    assert certificate.counts == {IDENTICAL: 0, SOURCE: 0, GROUP: 0, NEAR: 0}
    assert certificate.leaks == ()
    assert certificate.complete


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_changed_copy_in_another_split_is_a_near_duplicate(tmp_path: Path, variant: str) -> None:
    twin = sample("twin.jpg", VARIANTS[variant](photo(3)))
    splits = {"train": strangers(0, 10), "test": [*strangers(10, 5), twin]}
    certificate = audit([write(tmp_path / "a", splits)])
    assert found(certificate) == [(NEAR, "3.jpg", "twin.jpg")]
    (leak,) = certificate.leaks
    assert 0 <= leak.distance <= DEFAULT_DISTANCE
    assert (leak.first.split, leak.second.split) == ("train", "test")


def test_the_distance_decides_what_is_near(tmp_path: Path) -> None:
    twin = sample("twin.jpg", mixed(photo(3)))
    folder = write(tmp_path / "a", {"train": strangers(3, 1), "test": [twin]})
    (leak,) = audit([folder]).leaks
    assert leak.distance > 0
    assert len(audit([folder], distance=leak.distance).leaks) == 1
    assert audit([folder], distance=leak.distance - 1).leaks == ()


def test_the_same_bytes_under_another_name_are_identical(tmp_path: Path) -> None:
    twin = sample("twin.jpg", photo(3))
    certificate = audit([write(tmp_path / "a", {"val": [twin], "train": strangers(0, 9)})])
    assert found(certificate) == [(IDENTICAL, "3.jpg", "twin.jpg")]
    assert certificate.leaks[0].distance == 0


def test_crops_of_one_source_image_leak_only_across_splits(tmp_path: Path) -> None:
    crops = [sample("a.jpg", photo(seed), instance=seed) for seed in range(3)]
    assert audit([write(tmp_path / "a", {"train": crops, "test": strangers(9, 1)})]).leaks == ()
    certificate = audit([write(tmp_path / "b", {"train": crops[:2], "test": crops[2:]})])
    assert found(certificate) == [(SOURCE, "a.jpg", "a.jpg")]
    (leak,) = certificate.leaks
    assert (leak.first.instance, leak.second.instance) == (0, 2)


def test_a_group_in_two_splits_is_a_leak(tmp_path: Path) -> None:
    one, other = sample("a.jpg", photo(0), "video"), sample("b.jpg", photo(1), "video")
    certificate = audit([write(tmp_path / "a", {"train": [one], "test": [other]})])
    assert found(certificate) == [(GROUP, "a.jpg", "b.jpg")]
    assert certificate.leaks[0].first.group == "video"


def test_a_value_is_listed_once_for_each_further_split(tmp_path: Path) -> None:
    def frames(split: int) -> list[Sample]:
        return [sample(f"{n}.jpg", photo(n), "video") for n in range(4 * split, 4 * split + 4)]

    splits = {"test": frames(2), "train": frames(0), "val": frames(1)}
    leaks = audit([write(tmp_path / "a", splits)]).leaks
    pairs = [(leak.first.split, leak.second.split) for leak in leaks]
    assert sorted(pairs) == [("train", "test"), ("train", "val")]


def test_look_alikes_within_a_split_are_no_leak(tmp_path: Path) -> None:
    twins = [sample("a.jpg", photo(0)), sample("b.jpg", mixed(photo(0)))]
    assert audit([write(tmp_path / "a", {"train": twins, "test": strangers(5, 3)})]).leaks == ()


def test_augmented_copies_are_not_compared(tmp_path: Path) -> None:
    copy = sample("a.jpg", photo(7), copy=1)
    folder = write(tmp_path / "a", {"train": [sample("a.jpg", photo(0)), copy],
                                    "test": [sample("b.jpg", photo(7))]})  # fmt: skip
    certificate = audit([folder])
    assert certificate.leaks == ()
    assert certificate.datasets[0].pictures == {"train": 1, "test": 1}


def test_what_a_crop_was_filled_with_is_not_compared(tmp_path: Path) -> None:
    """Two strangers on the same wide black ground are no near duplicates; a copy is one still."""

    def padded(name: str, pixels: Pixels) -> Sample:
        wide = cv2.copyMakeBorder(pixels, 100, 100, 100, 100, cv2.BORDER_CONSTANT)
        height, width = pixels.shape[:2]
        shift = np.array([[1, 0, 100], [0, 1, 100]], np.float32)
        return sample(name, np.asarray(wide, np.uint8), view=View(shift, width, height, instance=0))

    train = [padded(f"{seed}.jpg", photo(seed, 60, 45)) for seed in range(30)]
    test = [padded(f"{seed}.jpg", photo(seed, 60, 45)) for seed in range(30, 50)]
    twin = sample("twin.jpg", photo(4, 60, 45))
    certificate = audit([write(tmp_path / "a", {"train": train, "test": [*test, twin]})])
    assert found(certificate) == [(NEAR, "4.jpg", "twin.jpg")]


# --- several datasets -----------------------------------------------------------------------------


def test_the_train_of_one_dataset_leaks_into_the_test_of_another(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"train": strangers(0, 8), "test": strangers(8, 3)})
    twins = [sample("twin.jpg", mixed(photo(2))), sample("same.jpg", photo(5))]
    b = write(tmp_path / "b", {"test": [*twins, *strangers(20, 3)]}, "other")
    assert audit([a]).leaks == audit([b]).leaks == ()
    certificate = audit([a, b])
    assert found(certificate) == [(IDENTICAL, "5.jpg", "same.jpg"), (NEAR, "2.jpg", "twin.jpg")]
    assert {leak.first.dataset for leak in certificate.leaks} == {str(a)}
    assert {leak.second.dataset for leak in certificate.leaks} == {str(b)}


def test_two_datasets_may_train_on_one_picture(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"train": strangers(0, 3)})
    b = write(tmp_path / "b", {"train": strangers(0, 2), "test": strangers(5, 1)}, "other")
    assert audit([a, b]).leaks == ()


def test_names_are_compared_between_datasets_of_the_same_annotations(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"train": [sample("0001.jpg", photo(0))]})
    b = write(tmp_path / "b", {"test": [sample("0001.jpg", photo(1))]}, "other")
    c = write(tmp_path / "c", {"test": [sample("0001.jpg", photo(2))]})
    assert audit([a, b]).leaks == ()
    assert found(audit([a, c])) == [(SOURCE, "0001.jpg", "0001.jpg")]
    assert found(audit([a, b], shared_ids=True)) == [(SOURCE, "0001.jpg", "0001.jpg")]


def test_shards_made_of_shards_share_their_names(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"train": [sample("0001.jpg", photo(0))]})
    made_of_a = read_manifest(a).root_hash
    b = write(tmp_path / "b", {"test": [sample("0001.jpg", photo(1))]}, made_of_a)
    certificate = audit([a, b])
    assert found(certificate) == [(SOURCE, "0001.jpg", "0001.jpg")]
    assert len({dataset.names for dataset in certificate.datasets}) == 1


def test_one_dataset_given_twice_is_refused(tmp_path: Path) -> None:
    splits = {"train": strangers(0, 1)}
    folders = [write(tmp_path / "a", splits), write(tmp_path / "b", splits)]
    with pytest.raises(DatasetError, match=r"b holds the same dataset as .*a: give each once"):
        audit(folders)


# --- the certificate ------------------------------------------------------------------------------


def test_the_certificate_says_what_was_checked_and_how(tmp_path: Path) -> None:
    twin = sample("twin.jpg", photo(1))
    folder = write(tmp_path / "a", {"train": strangers(0, 4), "test": [twin]})
    certificate = audit([folder], distance=33)
    path = tmp_path / "audit.json"
    write_certificate(path, certificate)
    assert msgspec.json.decode(path.read_bytes(), type=Certificate) == certificate
    (checked,) = certificate.datasets
    assert (checked.folder, checked.root_hash) == (str(folder), read_manifest(folder).root_hash)
    assert checked.pictures == {"train": 4, "test": 1}
    assert certificate.distance == 33
    assert certificate.method["name"] == "pHash, 256 bits"
    assert certificate.method["kpdata"] == __version__
    (leak,) = certificate.leaks
    assert leak.second.sha256 == hashlib.sha256(encoded(photo(1))).hexdigest()
    assert leak.first.sha256 == leak.second.sha256
    shard = folder / leak.second.shard
    ((_, payload),) = tfrecord.read(shard, leak.second.offset)
    assert records.decode(payload, 1).key == leak.second.key == "twin.jpg"


def test_a_flood_of_leaks_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "MAX_LEAKS", 3)
    splits = {"train": strangers(0, 5), "test": [sample(f"{n}b.jpg", photo(n)) for n in range(5)]}
    certificate = audit([write(tmp_path / "a", splits)])
    assert certificate.counts == {IDENTICAL: 3, SOURCE: 0, GROUP: 0, NEAR: 0}
    assert not certificate.complete


def test_the_sheet_shows_each_pair_side_by_side(tmp_path: Path) -> None:
    twin = sample("twin.jpg", photo(1))
    folder = write(tmp_path / "a", {"train": strangers(0, 4), "test": [twin]})
    sheet = leak_sheet(audit([folder]))
    tile = 256
    left, right = (sheet[60:180, x : x + 200].astype(int) for x in (30, 30 + tile + 4))
    assert np.abs(left - right).mean() < 1
    assert left.std() > 10


def test_progress_hears_of_every_original(tmp_path: Path) -> None:
    class Count(Progress):
        def __init__(self) -> None:
            self.phases: list[list[object]] = []

        def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
            self.phases.append([step, total, 0])

        def advance(self, count: int = 1) -> None:
            self.phases[-1][2] += count  # type: ignore[operator]

    count = Count()
    copy = sample("0.jpg", photo(0), copy=1)
    splits = {"train": [*strangers(0, 4), copy], "test": strangers(4, 2)}
    audit([write(tmp_path / "a", splits)], progress=count)
    assert count.phases == [["hashing", 6, 6], ["comparing", 4, 4]]


# --- untrusted shards -----------------------------------------------------------------------------


def test_a_changed_shard_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"train": strangers(0, 2)})
    path = folder / shard_name("train", 0, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=f"{path}: record 0 .*CRC does not match"):
        audit([folder])


def test_a_changed_manifest_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"train": strangers(0, 2)})
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"as is"', '"as was"'))
    with pytest.raises(DatasetError, match="the manifest was changed: see `kpdata verify"):
        audit([folder])


def test_a_picture_that_does_not_decode_names_its_record(tmp_path: Path) -> None:
    good = sample("a.jpg", photo(0))
    bad = replace(good, image=replace(good.image, data=b"\xff\xd8\xff" + bytes(50)))
    folder = write(tmp_path / "a", {"train": [bad]})
    with pytest.raises(ImageError, match=r"train-00000-of-00001\.tfrecord: record at byte 0: "):
        audit([folder])


def test_an_impossible_view_is_no_reason_to_fail(tmp_path: Path) -> None:
    far = View(np.array([[3e38, 0, 3e38], [0, 1e-30, -3e38]], np.float32), 2**62, 1, instance=0)
    one = sample("a.jpg", photo(0), view=far)
    certificate = audit([write(tmp_path / "a", {"train": [one], "test": strangers(0, 1)})])
    assert found(certificate) == [(IDENTICAL, "a.jpg", "0.jpg")]


def test_a_dataset_without_records_has_no_leaks(tmp_path: Path) -> None:
    certificate = audit([write(tmp_path / "a", {"train": []})])
    assert certificate.datasets[0].pictures == {"train": 0}
    assert certificate.leaks == ()


# --- the search -----------------------------------------------------------------------------------


def brute_force(first: Hashes, second: Hashes, distance: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i in range(len(first))
        for j in range(len(second))
        if int(bit_distances(first[i : i + 1], second[j : j + 1])[0]) <= distance
    }


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    flips=st.integers(0, 40),
    distance=st.integers(0, 60),
)
@settings(max_examples=40)
def test_every_near_pair_is_found_once(
    seed: int, sizes: tuple[int, int], flips: int, distance: int
) -> None:
    rng = np.random.default_rng(seed)
    centre = rng.integers(0, 256, 32, np.uint8)

    def some(count: int) -> Hashes:
        bits = np.tile(np.unpackbits(centre), (count, 1))
        for row in bits:
            row[rng.choice(BITS, rng.integers(0, flips + 1), replace=False)] ^= 1
        return np.packbits(bits, axis=1).reshape(count, 32)

    first, second = some(sizes[0]), some(sizes[1])
    blocks = list(near_pairs(first, second, distance))
    pairs = [(int(i), int(j)) for a, b in blocks for i, j in zip(a, b, strict=True)]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute_force(first, second, distance)
    own = [(int(i), int(j)) for a, b in near_pairs(first, None, distance)
           for i, j in zip(a, b, strict=True)]  # fmt: skip
    assert sorted(own) == sorted(p for p in brute_force(first, first, distance) if p[0] < p[1])


def test_pairs_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kpdata.images.perceptual._ROWS", 3)
    monkeypatch.setattr("kpdata.images.perceptual._COLUMNS", 5)
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (17, 32), np.uint8)
    hashes[16] = hashes[1]
    hashes[9] = hashes[8]
    done: list[int] = []
    pairs = [(int(i), int(j)) for a, b in near_pairs(hashes, None, 10, done.append)
             for i, j in zip(a, b, strict=True)]  # fmt: skip
    assert sorted(pairs) == [(1, 16), (8, 9)]
    assert sum(done) == 17


def test_a_shrunk_decode_hashes_like_the_whole(tmp_path: Path) -> None:
    """A large JPEG is decoded at a fraction of its size, a PNG is not."""
    pixels = photo(1, 1700, 1300)
    jpeg, png = (fingerprint(data).looks for data in (encoded(pixels), codec.encode(pixels, "png")))
    assert int(bit_distances(jpeg[None], png[None])[0]) <= 8


def ramp(angle: float) -> Pixels:
    """A picture of 90 × 120 pixels whose bits hang on no rounding."""
    y, x = np.mgrid[:90, :120]
    waves = np.sin(x / 7 + angle) * 40 + np.cos((x * y) / 900 + angle) * 60 + y / 2 + 90
    return np.repeat(np.clip(waves, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("angle", "bits"),
    [
        (0.0, "fc0045559aaab555aaaa52aaad5552aaad5152aaad7752aaad5552aead5752a5"),
        (1.0, "feaa6000caaa9555ad559aaaa5559aaaa5559aaaa5559aaba5559aaaa5559ab9"),
        (2.0, "96aa70006fef5aaab555aaaab545aaaab5258aaab5a98aa9b52b8aabb5318a78"),
    ],
)
def test_the_hash_of_a_picture_is_pinned(angle: float, bits: str) -> None:
    """What ``imagehash.phash(image, 16)`` of ImageHash 4.3.2 gives, so that certificates agree."""
    assert fingerprint(codec.encode(ramp(angle), "png")).looks.tobytes().hex() == bits
