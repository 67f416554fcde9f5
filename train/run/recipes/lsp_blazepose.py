"""BlazePose on the Leeds Sports Pose dataset, from scratch on its thousand training images.

    kpdata convert lsp joints.mat --out lsp/ --split official --val-from-train 10
    kpdata train lsp/ --recipe lsp_blazepose --out runs/lsp
    kpdata evaluate runs/lsp lsp/ --split test

On the 1,000 test images, seen as whole images squared around their centres, with flip test, in
percent with 95 % intervals, for which the test instances were resampled, and not the training:

    head          PCK@0.2 torso         PCKh@0.5              pckh@0.707 (stretched)
    heatmap       72.7 (71.2 … 74.2)    72.4 (70.9 … 73.9)    74.1 (72.6 … 75.6)
    coordinates   66.0 (64.1 … 67.7)    64.9 (63.0 … 66.6)    67.8 (66.0 … 69.4)
    mean pose     17.9                  17.7                  20.9

902 of the training images were trained on and 98 chose the epochs. One run at commit 294bef0, in
132 minutes on two CPU cores that had much other work. All numbers and their definitions are in
benchmarks/results/lsp_blazepose.json.
"""

from kpdata.core.augment import AugmentConfig
from kpdata.train.models.base import Phase
from kpdata.train.run.config import TrainConfig

CONFIG = TrainConfig(
    model="blazepose",
    options={"size": "full"},
    phases=(
        Phase("heatmap", 260, 128, 3e-3, final_rate=0.2, warmup=3),
        Phase("heatmap", 80, 192, 1.5e-3, final_rate=0.01, warmup=1),
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
