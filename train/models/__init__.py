"""Keras models: pictures in [-1, 1] → a dict of ``xy_norm``, ``visibility`` and heatmaps.

Importing this package registers their layers, which ``keras.models.load_model`` needs.
"""

from kpdata.train.models import layers as layers
