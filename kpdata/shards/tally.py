"""Count the content of a split, or of one shard."""

import numpy as np

from kpdata.core.sample import NOT_LABELLED, OCCLUDED, VISIBLE, Sample

_VISIBILITIES = np.array([NOT_LABELLED, OCCLUDED, VISIBLE], np.float32)


class Tally:
    """Counters with the meaning of those in :class:`kpdata.shards.manifest.SplitInfo`.

    Attributes:
        samples: source images. The caller counts them: a record does not show whether its source
            was counted before.
        records: originals and copies.
        copies: augmented records among them.
        instances: objects in the originals.
        visibility: (K, 3) keypoints of the originals with v = 0, 1 and 2.
    """

    def __init__(self, num_keypoints: int) -> None:
        self.samples = self.records = self.copies = self.instances = 0
        self.visibility = np.zeros((num_keypoints, 3), np.int64)

    def add(self, sample: Sample) -> None:
        """Count a record."""
        self.records += 1
        if sample.view and sample.view.copy:
            self.copies += 1
            return
        self.instances += len(sample.instances)
        for instance in sample.instances:
            self.visibility += instance.visibility[:, None] == _VISIBILITIES
