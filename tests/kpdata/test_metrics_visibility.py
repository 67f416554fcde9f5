import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kpdata.core.errors import SchemaError
from kpdata.core.skeleton import Skeleton
from kpdata.metrics import Poses, visibility_accuracy, visibility_roc_auc

FACE = Skeleton(name="face", keypoints=("nose", "left_eye", "right_eye"))


def faces(visibility):
    visibility = np.asarray(visibility, float)
    keypoints = np.concatenate([np.zeros((*visibility.shape, 2)), visibility[..., None]], axis=2)
    return Poses(FACE, keypoints, keypoints)


def overall(measure):
    value = measure.estimate(np.ones((1, measure.units)))[0, 0]
    return None if np.isnan(value) else value


def test_accuracy_counts_labelled_keypoints_only():
    # Called visible from 0.5 on. Visible: 0.9 right, 0.5 right, 0.4 wrong. Occluded: 0.1 right,
    # 0.7 wrong. The unlabelled one does not count: 3 of 5.
    poses = faces([[2, 2, 2], [1, 1, 0]])
    measure = visibility_accuracy(poses, [[0.9, 0.5, 0.4], [0.1, 0.7, 0.0]])
    assert overall(measure) == 3 / 5
    assert measure.n == 5
    assert measure.left_out == {"keypoints not labelled": 1}
    score = measure.score(np.random.default_rng(0))
    assert score.parts == {"nose": 1, "left_eye": 0.5, "right_eye": 0}
    assert score.averaged == {"nose": 1, "eye": 0.25}


def test_roc_auc_counts_pairs_with_ties_as_half():
    # Visible 0.9, 0.5, 0.4 against occluded 0.1, 0.5: 0.9 wins 2, 0.5 wins 1½, 0.4 wins 1: 4½ / 6.
    poses = faces([[2, 2, 2], [1, 1, 0]])
    measure = visibility_roc_auc(poses, [[0.9, 0.5, 0.4], [0.1, 0.5, 1.0]])
    assert overall(measure) == 4.5 / 6
    parts = measure.score(np.random.default_rng(0)).parts
    assert parts == {"nose": 1, "left_eye": 0.5, "right_eye": None}  # no occluded right eye


def test_inverted_visibility_shows():
    poses = faces([[2, 1, 2], [1, 2, 1]])
    inverted = np.where(poses.truth[..., 2] == 2, 0.1, 0.9)
    assert overall(visibility_roc_auc(poses, inverted)) == 0
    assert overall(visibility_accuracy(poses, inverted)) == 0


@given(st.data())
def test_roc_auc_is_the_share_of_pairs_won(data):
    n = data.draw(st.integers(1, 6))
    grid = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    visibility = data.draw(arrays(float, (n, 3), elements=st.sampled_from([0.0, 1.0, 2.0])))
    probability = data.draw(arrays(float, (n, 3), elements=grid))
    good, bad = probability[visibility == 2], probability[visibility == 1]
    wins = [(a > b) + (a == b) / 2 for a in good for b in bad]
    expected = pytest.approx(np.mean(wins)) if wins else None
    assert overall(visibility_roc_auc(faces(visibility), probability)) == expected


def test_probabilities_are_checked():
    with pytest.raises(SchemaError, match=r"shape \(1, 2\): expected \(1, 3\)"):
        visibility_accuracy(faces([[2, 2, 2]]), np.ones((1, 2)))
    with pytest.raises(SchemaError, match=r"probability -3.0: expected 0 to 1 \(logits"):
        visibility_roc_auc(faces([[2, 2, 2]]), [[1, -3, 0.5]])
