"""A small BlazePose for ``kpdata demo``: about a minute on two CPU cores."""

from kpdata.augment import AugmentConfig
from kpdata.train.config import Phase, TrainConfig

CONFIG = TrainConfig(
    model="blazepose",
    size="lite",
    phases=(
        Phase("heatmap", 8, 128, 3e-3, warmup=0.5),
        Phase("regression", 3, 128, 2e-3, warmup=0.25),
    ),
    batch_size=16,
    ema=0.98,
    augment=AugmentConfig(blur=0.0),
)
