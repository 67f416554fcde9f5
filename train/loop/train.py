"""A training run: phase after phase of ``model.fit``, resumable after any epoch."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import keras

import kpdata
from kpdata.core.errors import TrainingError
from kpdata.core.splits import TRAIN, VAL
from kpdata.metrics import mean_pose
from kpdata.shards.dataset import Dataset
from kpdata.train.data.pictures import Pictures, load
from kpdata.train.loop.early import (
    check_reference,
    crop_rule_for,
    has_val,
    refuse_followers,
    refuse_what_is_not_there,
    warn_of_idle_framing,
    warn_of_shared_squares,
)
from kpdata.train.loop.phase import PhaseRun, TrainVal, Watcher
from kpdata.train.loop.preflight import check, refuse_failed
from kpdata.train.models import build
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.events import EventLog
from kpdata.train.run.folder import RunFolder, RunInfo, State


def train(
    folder: RunFolder,
    dataset: Dataset,
    config: TrainConfig,
    watcher: Watcher,
    check_first: bool = True,
    devices: int = 1,
) -> State:
    """Train all phases that are not done yet; a folder that holds a run is gone on with.

    Args:
        folder: the run's; locked while this runs.
        dataset: shards with a split ``train``, and ``val`` to select by.
        config: the folder's, if it holds a run.
        watcher: hears of it.
        check_first: refuse data and models that fail the gates, before a new run.
        devices: how many share each batch, with a copy of the model each.

    Raises:
        TrainingError: a gate failed, there is nothing to train on, or a loss is not a number.
    """
    distribution = spread_over(devices, config.batch_size)
    keras.utils.set_random_seed(config.seed % 2**32)
    validated = has_val(dataset, config)
    if not validated:
        watcher.warn(
            "the shards have no split 'val' with labels: the last epoch is kept, not the best"
        )
    if not folder.state().rows:  # before there is a folder, and before pictures are read
        refuse_what_is_not_there(config, dataset.skeleton)
        if not validated:
            refuse_followers(config, dataset)
        build(config, len(dataset.skeleton), config.phases[0].input_size)
    log = EventLog(folder.logs)
    with folder.locked(), computing_in(config.precision):
        state = folder.state()
        splits = None
        for number in range(state.done, len(config.phases)):
            side = config.phases[number].input_size
            if splits is None or splits.train.side != side:
                splits = load_splits(dataset, config, side, watcher)
            if not state.rows:
                watcher.cropped(splits.train.crop)
                warn_of_idle_framing(config, dataset, watcher)
                warn_of_shared_squares(splits, watcher)
                if splits.val:
                    check_reference(config, splits.val, watcher)
                if check_first:
                    _run_gates(config, splits.train, watcher)
                folder.begin(config, run_info(dataset, config, splits))
            keras.utils.set_random_seed((config.seed + number) % 2**32)  # whatever came before
            with distribution.scope() if distribution else nullcontext():
                state = PhaseRun(folder, config, number, splits, state, watcher, log).run()
    return state


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Build models with this dtype policy, and afterwards with the one that was there before."""
    own = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(own)


def spread_over(devices: int, batch_size: int) -> keras.distribution.DataParallel | None:
    """What lets models train data-parallel on the first ``devices`` devices; None for one.

    Raises:
        TrainingError: there are fewer, the batch does not divide, or the backend cannot.
    """
    if devices == 1:
        return None
    if keras.backend.backend() != "jax":
        raise TrainingError("more than one device needs the JAX backend: set KERAS_BACKEND=jax")
    found = keras.distribution.list_devices()
    if len(found) < devices:
        raise TrainingError(f"--devices {devices}: this machine has {', '.join(found)}")
    if batch_size % devices:
        raise TrainingError(f"a batch of {batch_size} does not divide among {devices} devices")
    return keras.distribution.DataParallel(devices=found[:devices], auto_shard_dataset=False)


def _run_gates(config: TrainConfig, pictures: Pictures, watcher: Watcher) -> None:
    watcher.checking()
    verdicts = []
    for verdict in check(config, pictures):
        watcher.checked(verdict)
        verdicts.append(verdict)
    refuse_failed(verdicts)


def load_splits(dataset: Dataset, config: TrainConfig, side: int, watcher: Watcher) -> TrainVal:
    """The pictures of ``train``, copies included, and of ``val``."""
    crop_rule = crop_rule_for(dataset, config)

    def loaded(split: str) -> Pictures:
        copies = split == TRAIN
        pictures = load(
            dataset, split, crop_rule, side, copies, on_read=lambda n: watcher.reading(split, n)
        )
        for what, count in pictures.counts.items():
            watcher.warn(f"{split}: {count:,} {what}")
        return pictures

    return TrainVal(loaded(TRAIN), loaded(VAL) if has_val(dataset, config) else None)


def run_info(dataset: Dataset, config: TrainConfig, splits: TrainVal) -> RunInfo:
    """What the folder says of the data; the mean pose is that of originals, as the floor's is."""
    train = splits.train
    originals = train.keypoints[~train.is_copy]  # (N, K, 3)
    pose = mean_pose(originals[..., :2] / train.side, originals[..., 2])
    backend = keras.backend.backend()
    return RunInfo(
        shards=str(dataset.folder.resolve()),
        root_hash=dataset.manifest.root_hash,
        skeleton=dataset.skeleton,
        crop=train.crop,
        mean_pose=tuple((float(x), float(y)) for x, y in pose),
        pictures={TRAIN: len(train), VAL: len(splits.val) if splits.val else 0},
        software={
            "kpdata": kpdata.__version__,
            "keras": keras.__version__,
            backend: importlib.import_module(backend).__version__,
        },
        crop_rule=crop_rule_for(dataset, config),
    )
