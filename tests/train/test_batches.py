import gc
import hashlib
import itertools
import random
import subprocess
import sys
import threading
import time
from collections import Counter

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpdata.core.augment import AugmentConfig
from kpdata.core.skeletons import LSP14
from kpdata.train.data.batches import Batches
from kpdata.train.data.crops import LabelledCrops

AUGMENT = AugmentConfig(rectangles=1, cutout=0.0)
SIDE, K = 16, len(LSP14)
few_examples = settings(max_examples=25)


def crops(count, store=None):
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    keypoints = rng.uniform(1, SIDE, (count, K, 3)).astype(np.float32)
    keypoints[..., 2] = rng.integers(0, 3, (count, K))
    nothing = np.full(count, np.nan)
    return LabelledCrops(
        side=SIDE,
        to_source=np.tile(np.eye(2, 3), (count, 1, 1)),
        images=images if store is None else store(images),
        skeleton=LSP14,
        crop="whole",
        keys=tuple(f"im{n}.jpg" for n in range(count)),
        instance=np.zeros(count, np.int64),
        keypoints=keypoints,
        truth=keypoints.astype(np.float64),
        source_size=np.full((count, 2), SIDE),
        area=nothing,
        bbox_xyxy=np.full((count, 4), np.nan),
        head_size=nothing,
        is_copy=np.zeros(count, bool),
        counts={},
    )


class Slow:
    """Crops that arrive after a random while, so that threads overtake each other."""

    def __init__(self, images):
        self.images, self.threads = images, set()

    def __getitem__(self, indices):
        time.sleep(random.random() / 200)
        self.threads.add(threading.current_thread().name)
        return self.images[indices]


def make(count=10, batch_size=4, seed=0, store=None):
    return Batches(crops(count, store), AUGMENT, batch_size, seed)


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 2**63 - 1), st.integers(0, 999))
def test_an_epoch_shows_every_picture_once_and_fills_its_last_batch(count, size, seed, epoch):
    batches = Batches(_PICTURES[count], AUGMENT, size, seed)
    shown = [batches.indices(epoch, step) for step in range(batches.steps)]
    assert all(len(indices) == size for indices in shown)
    flat = np.concatenate(shown)
    assert sorted(flat[:count]) == list(range(count))
    assert set(flat[count:]) <= set(range(count))
    assert len(flat) - count < size
    assert batches.keys(epoch, 0) == [f"im{n}.jpg" for n in shown[0]]


_PICTURES = {count: crops(count) for count in range(1, 51)}


def test_the_order_and_the_draws_differ_from_epoch_to_epoch_and_seed_to_seed():
    batches, other = make(40, 40), make(40, 40, seed=1)
    for change in (batches.batch(1, 0), other.batch(0, 0)):
        first = batches.batch(0, 0)
        assert np.any(first["image"] != change["image"])
        assert np.any(np.sort(first["affine"].ravel()) != np.sort(change["affine"].ravel()))


def test_labels_and_keys_belong_to_their_picture():
    batches = make()
    batch, keys = batches.batch(2, 1), batches.keys(2, 1)
    for image, keypoints, key in zip(batch["image"], batch["keypoints"], keys, strict=True):
        place = batches.crops.keys.index(key)
        np.testing.assert_array_equal(image, batches.crops.images[place])
        np.testing.assert_array_equal(keypoints, batches.crops.keypoints[place])


def test_a_picture_is_changed_in_the_same_way_whatever_batch_it_is_in():
    small, large = make(12, 2), make(12, 12)
    affines = {}
    for batches in (small, large):
        for step in range(batches.steps):
            batch = batches.batch(5, step)
            for key, affine in zip(batches.keys(5, step), batch["affine"], strict=True):
                affines.setdefault(key, []).append(affine)
    assert all(len(both) == 2 for both in affines.values())
    for first, second in affines.values():
        np.testing.assert_array_equal(first, second)


def test_what_the_device_gets_is_small_but_for_bytes():
    batch = make().batch(0, 0)
    assert batch.pop("image").dtype == np.uint8
    assert {array.dtype for array in batch.values()} == {np.dtype("float32")}
    assert sum(array.size for array in batch.values()) < 4 * 100


@few_examples
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3), st.integers(0, 99))
def test_forever_from_an_epoch_on_is_batch_by_batch(count, size, first_epoch, seed):
    batches = Batches(_PICTURES[count], AUGMENT, size, seed)
    places = [(epoch, step) for epoch in range(first_epoch, first_epoch + 2)
              for step in range(batches.steps)]  # fmt: skip
    with_ahead = batches.forever(first_epoch)
    for place, (batch,) in zip(places, with_ahead, strict=False):
        assert_same(batch, batches.batch(*place))
    with_ahead.close()


def test_threads_that_overtake_each_other_change_no_order():
    batches, slow = make(30, 3), make(30, 3, store=Slow)
    for (seen,), (expected,) in zip(
        slow.forever(), itertools.islice(batches.forever(), 25), strict=False
    ):
        assert_same(seen, expected)
    threads = slow.crops.images.threads
    assert len(threads) > 1
    assert "MainThread" not in threads


def test_a_picture_that_cannot_be_read_stops_the_batches_where_it_is():
    class Broken(Slow):
        def __getitem__(self, indices):
            if 7 in indices:
                raise OSError("disk gone")
            return self.images[indices]

    batches = make(12, 1, store=Broken)
    bad = next(step for step in range(12) if 7 in batches.indices(0, step))
    seen = batches.forever()
    assert len(list(itertools.islice(seen, bad))) == bad
    with pytest.raises(OSError, match="disk gone"):
        next(seen)


def test_closing_the_batches_ends_their_threads():
    gc.collect()  # streams of other tests end now, and not in between
    before = Counter(t.name for t in threading.enumerate())
    stream = make().forever()
    next(stream)
    stream.close()
    del stream
    assert Counter(t.name for t in threading.enumerate()) == before


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow")
def test_the_dataset_of_tensorflow_is_forever():
    batches = make()
    for (seen,), (expected,) in zip(
        batches.dataset(3).as_numpy_iterator(),
        itertools.islice(batches.forever(3), 7),
        strict=False,
    ):
        assert_same(seen, expected)


def digest():
    batch = make().batch(3, 1)
    return hashlib.sha256(b"".join(batch[name].tobytes() for name in sorted(batch))).hexdigest()


def test_a_batch_is_the_same_in_another_process():
    script = "import sys, runpy; print(runpy.run_path(sys.argv[1])['digest']())"
    command = [sys.executable, "-c", script, __file__]
    other = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert other.stdout.split() == [digest()]
