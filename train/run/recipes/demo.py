"""A small BlazePose for ``kpdata demo``: about two minutes on two CPU cores, start to end.

The shards hold augmented copies, and two minutes are too short to overfit them, so little is
augmented anew.
"""

from kpdata.core.augment import AugmentConfig
from kpdata.train.models.base import Phase
from kpdata.train.run.config import TrainConfig

CONFIG = TrainConfig(
    model="blazepose",
    options={"size": "lite"},
    phases=(
        Phase("heatmap", 3, 128, 4e-3, warmup=0.3),
        Phase("regression", 2, 128, 3e-3, warmup=0.2),
    ),
    batch_size=16,
    ema=0.98,
    augment=AugmentConfig(
        rotate=(-10, 10),
        scale=(0.9, 1.1),
        shift=0.05,
        blur=0.0,
        rectangles=0,
        cutout=0.0,
    ),
)
