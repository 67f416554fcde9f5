import numpy as np
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from kpdata import images
from kpdata.train.event_log import EventLog
from kpdata.train.run_folder import Row


def events(folder):
    """(step, tag) → value, of every file in a folder; numbers, or PNG bytes."""
    found = {}
    for path in sorted(folder.iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.HasField("tensor"):  # how the loader shows a scalar or a picture
                    tensor = value.tensor
                    content = tensor.float_val[0] if tensor.float_val else tensor.string_val[2]
                else:
                    content = value.simple_value or value.image.encoded_image_string
                found[event.step, value.tag] = content
    return found


def test_scalars_and_pictures_are_what_tensorboard_reads(tmp_path):
    row = Row(0, "heatmap", 64, 3, {"loss": 1.5, "heatmap": 1.25}, {"heatmap": 0.5}, 0.25, 99, 2)
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    with EventLog(tmp_path) as log:
        log.scalars(row)
        log.picture(10, "val", picture)
        before_closing = events(tmp_path)
    found = events(tmp_path)
    assert found == before_closing  # a killed run keeps what was logged
    assert found.pop((10, "val")) == images.encode(picture, "png")
    assert found == {
        (3, "loss/loss"): 1.5,
        (3, "loss/heatmap"): 1.25,
        (3, "val_pck/heatmap"): 0.5,
        (3, "learning_rate"): 0.25,
        (3, "images_per_second"): 99,
    }


def test_a_second_log_of_a_folder_adds_to_the_first(tmp_path):
    for epoch in (1, 2):
        with EventLog(tmp_path) as log:
            log.scalars(Row(0, "heatmap", 64, epoch, {"loss": 1.0 * epoch}, {}, 0.1, 1, 1))
    found = events(tmp_path)
    assert [found[epoch, "loss/loss"] for epoch in (1, 2)] == [1, 2]
