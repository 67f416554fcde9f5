"""Leeds Sports Pose and LSP extended: a MATLAB file of 14 keypoints a person."""

from kpdata.formats.base import IMAGES, Format, imported
from kpdata.formats.detect import Seen


def _detect(seen: Seen, first: int, second: int) -> str | None:
    shape = seen.matlab_shapes.get("joints", ())
    return f"joints of shape {shape}" if shape[:2] == (first, second) else None


LSP = Format(
    name="lsp",
    summary="Leeds Sports Pose: joints.mat of shape (3, 14, N) and images/im0001.jpg ...",
    coordinates="1-based pixels",
    visibility="flag 1 = occluded, every keypoint labelled",
    read=imported("kpdata.formats.lsp.read:read"),
    detect=lambda seen: _detect(seen, 3, 14),
    aliases=("leeds",),
    options=(IMAGES,),
)

LSPET = Format(
    name="lspet",
    summary="LSP extended: joints.mat of shape (14, 3, N) and images/im00001.jpg ...",
    coordinates="1-based pixels",
    visibility="flag 1 = labelled and visible, 0 = missing",
    read=imported("kpdata.formats.lsp.read:read_lspet"),
    detect=lambda seen: _detect(seen, 14, 3),
    aliases=("lsp_extended", "hr_lspet"),
    options=(IMAGES,),
)
