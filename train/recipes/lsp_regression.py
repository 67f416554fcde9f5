"""Soft-argmax regression on the Leeds Sports Pose dataset, from scratch on its thousand images."""

import msgspec

from kpdata.train.config import Phase
from kpdata.train.recipes.lsp_blazepose import CONFIG as BLAZEPOSE

CONFIG = msgspec.structs.replace(
    BLAZEPOSE,
    model="regression",
    backbone="mobilenet_v3_small",
    head="softargmax",
    phases=(Phase("all", 80, 128, 1e-3, final_rate=0.01, warmup=3),),
)
