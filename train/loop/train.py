"""A training run: phase after phase of ``model.fit``, resumable after any epoch."""

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import keras

import kpdata
from kpdata.core.crop import crop_rule_of
from kpdata.core.errors import TrainingError
from kpdata.core.progress import SILENT, Progress
from kpdata.core.splits import TRAIN, VAL
from kpdata.metrics import mean_pose
from kpdata.shards.dataset import Dataset
from kpdata.shards.remote import RemoteDataset
from kpdata.train.data.crops import LabelledCrops, load
from kpdata.train.evaluate.evaluate import placed_baseline
from kpdata.train.loop.checks import (
    check_config,
    check_needs_validation,
    check_reference,
    crop_rule_for,
    has_val,
    warn_if_worse_than_start,
    warn_of_baseline,
    warn_of_close_keypoints,
    warn_of_shared_crops,
    warn_of_unused_crop_rule,
    with_reference,
)
from kpdata.train.loop.phase import PhaseRun
from kpdata.train.loop.preflight import check_labels, check_learning, raise_failed
from kpdata.train.ops.augment import reach
from kpdata.train.run.config import TrainConfig
from kpdata.train.run.events import EventLog
from kpdata.train.run.folder import RunFolder, RunInfo, State

_WIDEST_BORDER = 0.25
"""In sides of the crop: the pixels take (1 + 2 · 0.25)² = 2.25 times the memory. By the usual
changes a sixth of what a model sees would be black without a border, and 0.6 % is with this one."""


def train(
    folder: RunFolder,
    dataset: Dataset,
    config: TrainConfig,
    progress: Progress = SILENT,
    check_first: bool = True,
    devices: int = 1,
) -> State:
    """Train all phases that are not done yet. A folder that holds a run is resumed.

    Args:
        folder: the run's; locked while this runs.
        dataset: shards with a split ``train``, and ``val`` to select by.
        config: the folder's, if it holds a run.
        progress: hears of it.
        check_first: refuse data and models that fail the gates, before a new run.
        devices: how many share each batch, with a copy of the model each.

    Raises:
        TrainingError: a gate failed, there is nothing to train on, or a loss is not a number.
    """
    distribution = spread_over(devices, config.batch_size)
    keras.utils.set_random_seed(config.seed % 2**32)
    validates = has_val(dataset, config)
    if not validates:
        progress.warn(
            "the shards have no split 'val' with labels: the last epoch is kept, not the best"
        )
    if not folder.state().epochs:  # before there is a folder, and what takes longest comes last
        check_config(config, dataset.skeleton)
        if not validates:
            check_needs_validation(config, dataset)
        config.build(len(dataset.skeleton), config.phases[0].input_size)
        config = _look_at_labels(dataset, config, validates, check_first, progress)
    log = EventLog(folder.logs)
    with folder.locked(), computing_in(config.precision):
        state = folder.state()
        crops = val = None
        for number in range(state.done, len(config.phases)):
            side = config.phases[number].input_size
            if crops is None or crops.side != side:
                crops = load_crops(dataset, config, TRAIN, side, progress)
                val = load_crops(dataset, config, VAL, side, progress) if validates else None
            if not state.epochs:
                if check_first:
                    progress.begin("checking the model")
                    raise_failed(check_learning(config, crops), progress)
                folder.begin(config, run_info(dataset, config, crops, val))
            keras.utils.set_random_seed((config.seed + number) % 2**32)  # whatever came before
            with distribution.scope() if distribution else nullcontext():
                phase = PhaseRun(folder, config, number, crops, val, state, progress, log)
                state = phase.run()
        warn_if_worse_than_start(state, progress)
        if val:
            warn_of_baseline(
                config, state, placed_baseline(folder.info().mean_pose, val), val, progress
            )
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
    """The strategy for data-parallel training on the first ``devices`` devices; None for one.

    Raises:
        TrainingError: there are fewer, the batch does not divide, or the backend cannot.
    """
    if devices == 1:
        return None
    if keras.backend.backend() != "jax":
        raise TrainingError(
            f"devices is {devices}: more than one needs the JAX backend: set KERAS_BACKEND=jax"
        )
    found = keras.distribution.list_devices()
    if len(found) < devices:
        raise TrainingError(f"devices is {devices}: this machine has {', '.join(found)}")
    if batch_size % devices:
        raise TrainingError(
            f"batch_size is {batch_size}: it does not divide among {devices} devices"
        )
    return keras.distribution.DataParallel(devices=found[:devices], auto_shard_dataset=False)


def _look_at_labels(
    dataset: Dataset, config: TrainConfig, validates: bool, judge: bool, progress: Progress
) -> TrainConfig:
    """Check the labels before an image is decoded, and warn of what they do not allow.

    Returns:
        ``config``, with a reference where it has none and there is no usual one.

    Raises:
        TrainingError: they fail a gate, which is looked at if ``judge``.
    """
    progress.begin("checking labels")
    rule, side = crop_rule_for(dataset, config), config.phases[0].input_size
    train = load(dataset, TRAIN, rule, side, memory=0)
    val = load(dataset, VAL, rule, side, memory=0) if validates else None
    if judge:
        raise_failed(check_labels(train), progress)
    progress.tell(f"crops: {train.crop}")
    warn_of_unused_crop_rule(config, dataset, progress)
    warn_of_shared_crops(train, val, progress)
    config = with_reference(config, train, progress)
    warn_of_close_keypoints(config, train, progress)
    if val:
        check_reference(config, val, progress)
    return config


def load_crops(
    dataset: Dataset, config: TrainConfig, split: str, side: int, progress: Progress = SILENT
) -> LabelledCrops:
    """The crops of a split, ``side`` pixels wide.

    Those of ``train`` come with augmented copies, and with a border where whole images hold one.
    """
    rule = crop_rule_for(dataset, config)
    trains, whole = split == TRAIN, crop_rule_of(dataset.manifest.options) is None
    border = math.ceil(side * min(reach(config.augment), _WIDEST_BORDER)) if trains and whole else 0
    crops = load(dataset, split, rule, side, copies=trains, progress=progress, border=border)
    for what, count in crops.counts.items():
        progress.warn(f"{split}: {count:,} {what}")
    return crops


def run_info(
    dataset: Dataset, config: TrainConfig, train: LabelledCrops, val: LabelledCrops | None
) -> RunInfo:
    """What the folder says of the data; the mean pose is that of originals, as the baseline is."""
    originals = train.keypoints[~train.is_copy]  # (N, K, 3)
    pose = mean_pose(originals[..., :2] / train.side, originals[..., 2])
    backend = keras.backend.backend()
    return RunInfo(
        shards=str(dataset.url if isinstance(dataset, RemoteDataset) else dataset.folder.resolve()),
        root_hash=dataset.manifest.root_hash,
        skeleton=dataset.skeleton,
        crop=train.crop,
        mean_pose=tuple((float(x), float(y)) for x, y in pose),
        crops={TRAIN: len(train), VAL: len(val) if val else 0},
        software={
            "kpdata": kpdata.__version__,
            "keras": keras.__version__,
            backend: importlib.import_module(backend).__version__,
        },
        crop_rule=crop_rule_for(dataset, config),
    )
