import subprocess
import sys
import time

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from kpdata.images import codec
from kpdata.train.run.events import EventLog
from kpdata.train.run.folder import EpochRecord


def events(folder):
    """(step, tag) → value, of every file in a folder; numbers, or PNG bytes."""
    found = {}
    for path in sorted(folder.iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.HasField("tensor"):  # how the loader shows a scalar or a crop
                    tensor = value.tensor
                    content = tensor.float_val[0] if tensor.float_val else tensor.string_val[2]
                else:
                    content = value.simple_value or value.image.encoded_image_string
                found[event.step, value.tag] = content
    return found


def test_scalars_and_pictures_are_what_tensorboard_reads(tmp_path):
    row = EpochRecord(
        0, "heatmap", 64, 3, {"loss": 1.5, "heatmap": 1.25}, {"heatmap": 0.5}, 0.25, 99, 2
    )
    crop = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    log = EventLog(tmp_path / "logs")
    assert not any(tmp_path.iterdir())
    log.scalars(row)
    log.picture(10, "val", crop)
    found = events(tmp_path / "logs")
    assert found.pop((10, "val")) == codec.encode(crop, "png")
    assert found == {
        (3, "loss/loss"): 1.5,
        (3, "loss/heatmap"): 1.25,
        (3, "val_pck/heatmap"): 0.5,
        (3, "learning_rate"): 0.25,
        (3, "images_per_second"): 99,
    }


def test_every_event_has_its_time_and_the_first_says_the_version(tmp_path):
    before = time.time()
    EventLog(tmp_path).picture(1, "val", np.zeros((2, 2, 3), np.uint8))
    (path,) = tmp_path.iterdir()
    first, second = EventFileLoader(str(path)).Load()
    assert first.file_version == "brain.Event:2"
    assert before <= first.wall_time <= second.wall_time <= time.time()


def test_a_second_log_of_a_folder_adds_to_the_first(tmp_path):
    for epoch in (1, 2):
        log = EventLog(tmp_path)
        log.scalars(EpochRecord(0, "heatmap", 64, epoch, {"loss": 1.0 * epoch}, {}, 0.1, 1, 1))
    found = events(tmp_path)
    assert [found[epoch, "loss/loss"] for epoch in (1, 2)] == [1, 2]


def test_writing_needs_no_tensorflow(tmp_path):
    code = (
        "import sys, pathlib, numpy as np; from kpdata.train.run.events import EventLog\n"
        f"EventLog(pathlib.Path({str(tmp_path)!r}))"
        ".picture(1, 'val', np.zeros((2, 2, 3), np.uint8))\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(events(tmp_path)) == 1
