"""Soft-argmax regression on the Leeds Sports Pose dataset, from scratch on its thousand images.

    kpdata convert lsp joints.mat --out lsp/ --split official --val-from-train 10
    kpdata train lsp/ --recipe lsp_regression --out runs/regression
    kpdata evaluate runs/regression lsp/ --split test

On the 1,000 test images, seen as in lsp_blazepose, in percent with 95 % intervals of the same kind
(test instances resampled): PCK@0.2 torso 40.9 (39.3 … 42.6), PCKh@0.5 40.3 (38.6 … 41.9),
pckh@0.707 (stretched) 42.5 (40.8 … 44.1).

The mean pose has 17.9, BlazePose 72.7: without pretrained weights this backbone learns slowly from
902 pictures, and its validation score was still rising at the end. One run of 30 minutes on two CPU
cores that had other work too, at commit 0be70cd. All is in benchmarks/results/lsp_regression.json.
"""

import msgspec

from kpdata.train.models.base import Phase
from kpdata.train.run.recipes.lsp_blazepose import CONFIG as BLAZEPOSE

CONFIG = msgspec.structs.replace(
    BLAZEPOSE,
    model="regression",
    options={"backbone": "mobilenet_v3_small", "head": "softargmax"},
    losses={},
    phases=(Phase("all", 120, 128, 2e-3, final_rate=0.01, warmup=3),),
    heatmap_sigma=1.0,
)
