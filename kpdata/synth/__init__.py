"""Simulated pictures with exact labels: articulated figures over varied backgrounds.

Each picture is a small 3D scene (:mod:`~kpdata.synth.scene`): one to three figures in a random
pose (:mod:`~kpdata.synth.poses`) with random proportions and clothes (:mod:`~kpdata.synth.body`),
seen by a perspective camera and drawn into a depth buffer (:mod:`~kpdata.synth.raster`) before a
background (:mod:`~kpdata.synth.backgrounds`) and behind occluders
(:mod:`~kpdata.synth.occluders`). The labels are the projected
keypoints themselves, and their visibility is read off the depth buffer.
"""

from kpdata.synth.scene import samples

__all__ = ["samples"]
