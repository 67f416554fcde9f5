"""MPII Human Pose: a MATLAB file of people with 16 keypoints."""

from kpdata.formats.base import IMAGES, Format, imported

FORMAT = Format(
    name="mpii",
    summary="MPII Human Pose: its .mat of annotations and images/",
    coordinates="1-based pixels",
    visibility="is_visible 1/0, what is not listed is not labelled",
    read=imported("kpdata.formats.mpii.read:read"),
    detect=lambda seen: "its variable RELEASE" if "RELEASE" in seen.matlab_shapes else None,
    aliases=("mpii_human_pose",),
    options=(IMAGES,),
)
