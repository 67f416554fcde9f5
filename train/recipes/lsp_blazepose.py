"""BlazePose on the Leeds Sports Pose dataset, from scratch on its thousand training images."""

from kpdata.augment import AugmentConfig
from kpdata.train.config import Phase, TrainConfig

CONFIG = TrainConfig(
    model="blazepose",
    size="full",
    phases=(
        Phase("heatmap", 200, 128, 3e-3, final_rate=0.2, warmup=3),
        Phase("heatmap", 60, 192, 1.5e-3, final_rate=0.01, warmup=1),
        Phase("regression", 40, 192, 2e-3, final_rate=0.01, warmup=1),
    ),
    crop_from="image",
    margin=1.0,
    augment=AugmentConfig(
        rotate=(-50, 50),
        scale=(0.7, 1.4),
        shift=0.1,
        brightness=(-0.25, 0.25),
        contrast=(0.6, 1.5),
        saturation=(0.4, 1.6),
        hue=(-20, 20),
        grey=0.1,
        blur=0.0,
        rectangles=2,
        rectangle_size=(0.05, 0.3),
        cutout=0.3,
        cutout_size=(0.1, 0.3),
    ),
)
