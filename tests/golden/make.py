"""Writes the golden files beside itself, from values given by hand.

They pin the wire to the byte. After a *deliberate* change of the wire, run

    python tests/golden/make.py

and commit the new files together with the change and a new ``records.SCHEMA_VERSION``.
"""

from pathlib import Path

from kpdata.core.sample import ImageRef, Instance, Sample, View
from kpdata.shards import records, tfrecord

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000004000000020802000000f0caea34000000194944415478da63f8cfc0"
    "c0f09f8181e1ffffffff99189000006bc805fddc488dba0000000049454e44ae426082"
)
"""A real picture, 4 × 2, of red, green, blue and white pixels."""

NUM_KEYPOINTS = 3


def samples() -> tuple[Sample, Sample]:
    """One record of two instances, and one without any."""
    boat = Instance(
        keypoints=[[1.5, 0.5, 2], [3.25, 1.75, 1], [0, 0, 0]],
        bbox_xyxy=[1, 0.5, 3.5, 2],
        area=3.75,
        category="boat",
        category_id=7,
        id=4_000_000_001,
        head_size=0.5,
    )
    crowd = Instance(keypoints=[[0, 0, 0]] * 3, is_crowd=True, category="Köln", category_id=1, id=2)
    full = Sample(
        key="sub/000001.jpg",
        image=ImageRef("sub/000001.png", width=4, height=2, data=PNG, format="png"),
        instances=(boat, crowd),
        group="video 1",
        view=View([[-0.5, 0, 4], [0, 0.5, -1]], 8, 6, copy=2, seed=2**62, instance=1),
    )
    empty = Sample(
        key="empty",
        image=ImageRef("empty.png", width=4, height=2, data=PNG, format="png"),
        view=View([[1, 0, 0], [0, 1, 0]], 4, 2),
    )
    return full, empty


def write(folder: Path) -> None:
    """Write ``record.bin`` and ``shard.tfrecord`` into ``folder``."""
    full, empty = map(records.encode, samples())
    (folder / "record.bin").write_bytes(full)
    with tfrecord.Writer(folder / "shard.tfrecord") as writer:
        writer.write(full)
        writer.write(empty)


if __name__ == "__main__":
    write(Path(__file__).parent)
