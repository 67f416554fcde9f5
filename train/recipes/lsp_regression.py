"""Soft-argmax regression on the Leeds Sports Pose dataset, from scratch on its thousand images.

    kpdata convert lsp joints.mat --out lsp/ --split official --val 10
    kpdata train lsp/ --recipe lsp_regression --out runs/regression
    kpdata evaluate runs/regression lsp/ --split test

On the 1,000 test images, seen as in lsp_blazepose, in percent with 95 % intervals: PCK@0.2 torso
27.9 (26.5 … 29.2), PCKh@0.5 27.6 (26.2 … 29.1), pckh@0.707 (stretched) 28.8 (27.6 … 30.0). That is
above the mean pose (17.9) and far below BlazePose: without pretrained weights, this backbone learns
little from 902 pictures. These are the numbers of 80 epochs at half the rate and without the loss
on maps: 17 minutes on two CPU cores that had other work too, at commit 0193e98. All are in
benchmarks/results/lsp_regression.json.
"""

import msgspec

from kpdata.train.config import Phase
from kpdata.train.recipes.lsp_blazepose import CONFIG as BLAZEPOSE

CONFIG = msgspec.structs.replace(
    BLAZEPOSE,
    model="regression",
    backbone="mobilenet_v3_small",
    head="softargmax",
    phases=(Phase("all", 120, 128, 2e-3, final_rate=0.01, warmup=3),),
    heatmap_sigma=1.0,
)
