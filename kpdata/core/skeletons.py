"""The skeletons that kpdata knows by name, as their datasets define them.

A skeleton has sigmas where the dataset's authors published them; without sigmas there is no OKS.
Names are spelled out, ``left_shoulder`` for ``LShoulder``, so that one skeleton maps to another by
name.
"""

from collections.abc import Sequence
from itertools import pairwise

from kpdata.core.errors import either
from kpdata.core.flip_pairs import Pair, flip_pairs_by_name
from kpdata.core.skeleton import Skeleton


def _edges(chains: str) -> tuple[Pair, ...]:
    """Pairs of neighbours in chains of names.

    >>> _edges("hip knee ankle, neck nose")
    (('hip', 'knee'), ('knee', 'ankle'), ('neck', 'nose'))
    """
    split = [chain.split() for chain in chains.split(",")]
    return tuple(pair for names in split for pair in pairwise(names))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _sigmas(names: Sequence[str], values: str) -> dict[str, float]:
    return dict(zip(names, map(float, values.split()), strict=True))


LSP14 = Skeleton(
    name="lsp14",
    keypoints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle",
        "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist", "neck", "head_top",
    ),
    edges=(
        ("right_ankle", "right_knee"), ("right_knee", "right_hip"), ("right_hip", "left_hip"),
        ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("right_wrist", "right_elbow"),
        ("right_elbow", "right_shoulder"), ("right_shoulder", "neck"), ("neck", "left_shoulder"),
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"), ("neck", "head_top"),
        ("right_shoulder", "right_hip"), ("left_shoulder", "left_hip"),
    ),
    torso=("left_shoulder", "right_hip"),
    head=("neck", "head_top"),
)  # fmt: skip

MPII16 = Skeleton(
    name="mpii16",
    keypoints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis",
        "thorax", "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder",
        "left_shoulder", "left_elbow", "left_wrist",
    ),
    edges=(
        ("right_ankle", "right_knee"), ("right_knee", "right_hip"), ("right_hip", "pelvis"),
        ("pelvis", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
        ("pelvis", "thorax"), ("thorax", "upper_neck"), ("upper_neck", "head_top"),
        ("right_wrist", "right_elbow"), ("right_elbow", "right_shoulder"),
        ("right_shoulder", "thorax"), ("thorax", "left_shoulder"),
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ),
    torso=("left_shoulder", "right_hip"),
    head=("upper_neck", "head_top"),
)  # fmt: skip

COCO17 = Skeleton(
    name="coco17",
    keypoints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder",
        "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    edges=(
        ("left_ankle", "left_knee"), ("left_knee", "left_hip"), ("right_ankle", "right_knee"),
        ("right_knee", "right_hip"), ("left_hip", "right_hip"), ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"), ("left_shoulder", "right_shoulder"),
        ("left_shoulder", "left_elbow"), ("right_shoulder", "right_elbow"),
        ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist"), ("left_eye", "right_eye"),
        ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"),
        ("right_eye", "right_ear"), ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder"),
    ),
    sigmas={
        "nose": 0.026, "left_eye": 0.025, "right_eye": 0.025, "left_ear": 0.035,
        "right_ear": 0.035, "left_shoulder": 0.079, "right_shoulder": 0.079, "left_elbow": 0.072,
        "right_elbow": 0.072, "left_wrist": 0.062, "right_wrist": 0.062, "left_hip": 0.107,
        "right_hip": 0.107, "left_knee": 0.087, "right_knee": 0.087, "left_ankle": 0.089,
        "right_ankle": 0.089,
    },
    torso=("left_shoulder", "right_hip"),
)  # fmt: skip

BLAZEPOSE33 = Skeleton(
    name="blazepose33",
    keypoints=(
        "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye",
        "right_eye_outer", "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder",
        "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_pinky",
        "right_pinky", "left_index", "right_index", "left_thumb", "right_thumb", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel",
        "right_heel", "left_foot_index", "right_foot_index",
    ),
    edges=(
        ("nose", "left_eye_inner"), ("left_eye_inner", "left_eye"), ("left_eye", "left_eye_outer"),
        ("left_eye_outer", "left_ear"), ("nose", "right_eye_inner"),
        ("right_eye_inner", "right_eye"), ("right_eye", "right_eye_outer"),
        ("right_eye_outer", "right_ear"), ("mouth_left", "mouth_right"),
        ("left_shoulder", "right_shoulder"), ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"), ("left_wrist", "left_pinky"), ("left_wrist", "left_index"),
        ("left_wrist", "left_thumb"), ("left_pinky", "left_index"),
        ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
        ("right_wrist", "right_pinky"), ("right_wrist", "right_index"),
        ("right_wrist", "right_thumb"), ("right_pinky", "right_index"),
        ("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"), ("left_hip", "right_hip"),
        ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("left_ankle", "left_heel"),
        ("left_heel", "left_foot_index"), ("left_ankle", "left_foot_index"),
        ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
        ("right_ankle", "right_heel"), ("right_heel", "right_foot_index"),
        ("right_ankle", "right_foot_index"),
    ),
    torso=("left_shoulder", "right_hip"),
)  # fmt: skip

_COCO_LIMBS = """
    left_ankle left_knee left_hip right_hip right_knee right_ankle, left_hip left_shoulder
    right_shoulder right_hip, left_shoulder left_elbow left_wrist, right_shoulder right_elbow
    right_wrist"""

_HEAD_AND_TRUNK = """
    head neck hip, left_hip hip right_hip, left_ankle left_knee left_hip, right_ankle right_knee
    right_hip, neck left_shoulder left_elbow left_wrist, neck right_shoulder right_elbow
    right_wrist, left_eye right_eye nose left_eye left_ear left_shoulder, right_eye right_ear
    right_shoulder"""

_HEAD_LINE = """
    head_top nose head_bottom left_shoulder, head_bottom right_shoulder"""

_FEET = """
    left_ankle left_big_toe, left_ankle left_small_toe, left_ankle left_heel, right_ankle
    right_big_toe, right_ankle right_small_toe, right_ankle right_heel"""

_FINGERS = tuple(
    f"{finger}{number}"
    for finger in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
    for number in range(1, 5)
)
"""From the palm to the tip."""

_HAND_SIGMAS = """
    0.029 0.022 0.035 0.037 0.047 0.026 0.025 0.024 0.035 0.018 0.024 0.022 0.026 0.017 0.021 0.021
    0.032 0.02 0.019 0.022 0.031"""

_FACE = tuple(f"face-{number}" for number in range(68))

_FACE_FLIPS = """
    0 16 1 15 2 14 3 13 4 12 5 11 6 10 7 9 17 26 18 25 19 24 20 23 21 22 31 35 32 34 36 45 37 44 38
    43 39 42 40 47 41 46 48 54 49 53 50 52 55 59 56 58 60 64 61 63 65 67"""


def _numbered_pairs(names: Sequence[str], numbers: str) -> tuple[Pair, ...]:
    """Pairs of names, of numbers in a row from 0."""
    ends = [names[int(number)] for number in numbers.split()]
    return tuple(zip(ends[::2], ends[1::2], strict=True))


def _fingers_of(root: str, side: str = "") -> str:
    """The edges of a hand from ``root`` to the tips."""
    starts = range(0, len(_FINGERS), 4)
    chains = (" ".join(side + name for name in _FINGERS[start : start + 4]) for start in starts)
    return ", ".join(f"{root} {chain}" for chain in chains)


_HANDS = tuple(f"{side}_{name}" for side in ("left", "right") for name in ("hand_root", *_FINGERS))

_HANDS_EDGES = _edges(_fingers_of("left_hand_root", "left_")) + _edges(
    _fingers_of("right_hand_root", "right_")
)


def _with_face_flips(names: tuple[str, ...]) -> tuple[Pair, ...]:
    return flip_pairs_by_name(names) + _numbered_pairs(_FACE, _FACE_FLIPS)


_WHOLEBODY_NAMES = (
    *COCO17.keypoints,
    *_names("left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel"),
    *_FACE,
    *_HANDS,
)

COCO_WHOLEBODY133 = Skeleton(
    name="coco_wholebody133",
    keypoints=_WHOLEBODY_NAMES,
    edges=COCO17.edges + _edges(_FEET) + _HANDS_EDGES,
    flip_pairs=_with_face_flips(_WHOLEBODY_NAMES),
    sigmas=COCO17.sigmas
    | _sigmas(
        _WHOLEBODY_NAMES[17:],
        f"""
        0.068 0.066 0.066 0.092 0.094 0.094 0.042 0.043 0.044 0.043 0.04 0.035 0.031 0.025 0.02
        0.023 0.029 0.032 0.037 0.038 0.043 0.041 0.045 0.013 0.012 0.011 0.011 0.012 0.012 0.011
        0.011 0.013 0.015 0.009 0.007 0.007 0.007 0.012 0.009 0.008 0.016 0.01 0.017 0.011 0.009
        0.011 0.009 0.007 0.013 0.008 0.011 0.012 0.01 0.034 0.008 0.008 0.009 0.008 0.008 0.007
        0.01 0.008 0.009 0.009 0.009 0.007 0.007 0.008 0.011 0.008 0.008 0.008 0.01 0.008
        {_HAND_SIGMAS} {_HAND_SIGMAS}""",
    ),
    torso=("left_shoulder", "right_hip"),
)
"""COCO-WholeBody: COCO's body, six of the feet, 68 of the face, 21 of each hand."""

HALPE26 = Skeleton(
    name="halpe26",
    keypoints=(
        *COCO17.keypoints,
        *_names(
            """head neck hip left_big_toe right_big_toe left_small_toe right_small_toe left_heel
            right_heel"""
        ),
    ),
    edges=_edges(_HEAD_AND_TRUNK) + _edges(_FEET),
    torso=("left_shoulder", "right_hip"),
)

_HALPE_NAMES = (*HALPE26.keypoints, *_FACE, *_HANDS)

HALPE136 = Skeleton(
    name="halpe136",
    keypoints=_HALPE_NAMES,
    edges=HALPE26.edges + _HANDS_EDGES,
    flip_pairs=_with_face_flips(_HALPE_NAMES),
    torso=("left_shoulder", "right_hip"),
)

_CROWDPOSE_NAMES = _names(
    """left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip
    left_knee right_knee left_ankle right_ankle head neck"""
)

CROWDPOSE14 = Skeleton(
    name="crowdpose14",
    keypoints=_CROWDPOSE_NAMES,
    edges=_edges(f"{_COCO_LIMBS}, head neck left_shoulder, neck right_shoulder"),
    sigmas=_sigmas(
        _CROWDPOSE_NAMES,
        ".079 .079 .072 .072 .062 .062 .107 .107 .087 .087 .089 .089 .079 .079",
    ),
    torso=("left_shoulder", "right_hip"),
    head=("head", "neck"),
)

_AIC_NAMES = _names(
    """right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip
    right_knee right_ankle left_hip left_knee left_ankle head_top neck"""
)

AIC14 = Skeleton(
    name="aic14",
    keypoints=_AIC_NAMES,
    edges=_edges(f"{_COCO_LIMBS}, head_top neck left_shoulder, neck right_shoulder"),
    sigmas=_sigmas(
        _AIC_NAMES,
        """0.01388152 0.01515228 0.01057665 0.01417709 0.01497891 0.01402144 0.03909642 0.03686941
        0.01981803 0.03843971 0.03412318 0.02415081 0.01291456 0.01236173""",
    ),
    torso=("left_shoulder", "right_hip"),
    head=("head_top", "neck"),
)
"""AI Challenger."""

JHMDB15 = Skeleton(
    name="jhmdb15",
    keypoints=_names(
        """neck belly head right_shoulder left_shoulder right_hip left_hip right_elbow left_elbow
        right_knee left_knee right_wrist left_wrist right_ankle left_ankle"""
    ),
    edges=_edges(
        """head neck belly, belly left_hip left_knee left_ankle, belly right_hip right_knee
        right_ankle, neck left_shoulder left_elbow left_wrist, neck right_shoulder right_elbow
        right_wrist"""
    ),
    torso=("left_shoulder", "right_hip"),
    head=("head", "neck"),
)

POSETRACK17 = Skeleton(
    name="posetrack17",
    keypoints=_names(
        """right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist right_elbow
        right_shoulder left_shoulder left_elbow left_wrist head_bottom nose head_top"""
    ),
    edges=_edges(f"{_COCO_LIMBS}, {_HEAD_LINE}"),
    torso=("left_shoulder", "right_hip"),
    head=("head_top", "head_bottom"),
)
"""PoseTrack of 2017, which has 15 keypoints."""

POSETRACK18 = Skeleton(
    name="posetrack18",
    keypoints=("nose", "head_bottom", "head_top", *COCO17.keypoints[3:]),
    edges=_edges(f"{_COCO_LIMBS}, {_HEAD_LINE}"),
    torso=("left_shoulder", "right_hip"),
    head=("head_top", "head_bottom"),
)
"""PoseTrack of 2018 and 2021, which have COCO's 17 keypoints, with the head's ends for the eyes."""

AP10K17 = Skeleton(
    name="ap10k17",
    keypoints=_names(
        """left_eye right_eye nose neck root_of_tail left_shoulder left_elbow left_front_paw
        right_shoulder right_elbow right_front_paw left_hip left_knee left_back_paw right_hip
        right_knee right_back_paw"""
    ),
    edges=_edges(
        """left_eye right_eye nose left_eye, nose neck root_of_tail, neck left_shoulder left_elbow
        left_front_paw, neck right_shoulder right_elbow right_front_paw, root_of_tail left_hip
        left_knee left_back_paw, root_of_tail right_hip right_knee right_back_paw"""
    ),
)

ANIMALPOSE20 = Skeleton(
    name="animalpose20",
    keypoints=_names(
        """left_eye right_eye left_earbase right_earbase nose throat tailbase withers
        left_front_elbow right_front_elbow left_back_elbow right_back_elbow left_front_knee
        right_front_knee left_back_knee right_back_knee left_front_paw right_front_paw
        left_back_paw right_back_paw"""
    ),
    edges=_edges(
        """left_earbase left_eye right_eye right_earbase, left_eye nose right_eye, nose throat
        withers tailbase, throat left_front_elbow left_front_knee left_front_paw, throat
        right_front_elbow right_front_knee right_front_paw, tailbase left_back_elbow left_back_knee
        left_back_paw, tailbase right_back_elbow right_back_knee right_back_paw"""
    ),
)

HAND21 = Skeleton(
    name="hand21",
    keypoints=("wrist", *_FINGERS),
    edges=_edges(_fingers_of("wrist")),
    flip_pairs=(),
    sigmas=_sigmas(("wrist", *_FINGERS), _HAND_SIGMAS),
)
"""One hand, from the wrist to each tip: FreiHAND, OneHand10K, COCO-WholeBody's hands."""

FACE68 = Skeleton(name="face68", keypoints=_FACE, flip_pairs=_numbered_pairs(_FACE, _FACE_FLIPS))
"""A face as in 300W (iBUG's 68 points)."""

_WFLW_NAMES = tuple(f"face-{number}" for number in range(98))

WFLW98 = Skeleton(
    name="wflw98",
    keypoints=_WFLW_NAMES,
    flip_pairs=_numbered_pairs(
        _WFLW_NAMES,
        """0 32 1 31 2 30 3 29 4 28 5 27 6 26 7 25 8 24 9 23 10 22 11 21 12 20 13 19 14 18 15 17 33
        46 34 45 35 44 36 43 37 42 38 50 39 49 40 48 41 47 55 59 56 58 60 72 61 71 62 70 63 69 64
        68 65 75 66 74 67 73 76 82 77 81 78 80 83 87 84 86 88 92 89 91 93 95 96 97""",
    ),
)

_COFW_NAMES = tuple(f"face-{number}" for number in range(29))

COFW29 = Skeleton(
    name="cofw29",
    keypoints=_COFW_NAMES,
    flip_pairs=_numbered_pairs(
        _COFW_NAMES, "0 1 2 3 4 6 5 7 8 9 10 11 12 14 13 15 16 17 18 19 22 23"
    ),
)

HUMANART21 = Skeleton(
    name="humanart21",
    keypoints=(*COCO17.keypoints, "left_finger", "right_finger", "left_toe", "right_toe"),
    edges=COCO17.edges
    + _edges(
        """left_ankle left_toe, right_ankle right_toe, left_wrist left_finger, right_wrist
        right_finger"""
    ),
    torso=("left_shoulder", "right_hip"),
)
"""Human-Art; its files of 17 keypoints have COCO's."""

H36M17 = Skeleton(
    name="h36m17",
    keypoints=_names(
        """root right_hip right_knee right_foot left_hip left_knee left_foot spine thorax neck_base
        head left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist"""
    ),
    edges=_edges(
        """root spine thorax neck_base head, root left_hip left_knee left_foot, root right_hip
        right_knee right_foot, thorax left_shoulder left_elbow left_wrist, thorax right_shoulder
        right_elbow right_wrist"""
    ),
    torso=("left_shoulder", "right_hip"),
)
"""Human3.6M."""

BODY25 = Skeleton(
    name="body25",
    keypoints=_names(
        """nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist
        mid_hip right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye
        right_ear left_ear left_big_toe left_small_toe left_heel right_big_toe right_small_toe
        right_heel"""
    ),
    edges=_edges(
        """neck mid_hip, neck right_shoulder right_elbow right_wrist, neck left_shoulder left_elbow
        left_wrist, mid_hip right_hip right_knee right_ankle, mid_hip left_hip left_knee left_ankle,
        neck nose right_eye right_ear, nose left_eye left_ear, left_ankle left_big_toe
        left_small_toe, left_ankle left_heel, right_ankle right_big_toe right_small_toe,
        right_ankle right_heel"""
    ),
    torso=("left_shoulder", "right_hip"),
)
"""OpenPose's."""

BUILT_IN = {
    skeleton.name: skeleton
    for skeleton in (
        LSP14, MPII16, COCO17, BLAZEPOSE33, COCO_WHOLEBODY133, HALPE26, HALPE136, CROWDPOSE14,
        AIC14, JHMDB15, POSETRACK17, POSETRACK18, AP10K17, ANIMALPOSE20, HAND21, FACE68, WFLW98,
        COFW29, HUMANART21, H36M17, BODY25,
    )
}  # fmt: skip


def built_in_with(keypoints: Sequence[str]) -> Skeleton | None:
    """The built-in skeleton of exactly these keypoints, which brings edges and sigmas along."""
    found = (known for known in BUILT_IN.values() if known.keypoints == tuple(keypoints))
    return next(found, None)


def skeletons_of(count: int) -> str:
    """What to give as a skeleton of ``count`` keypoints, for a message.

    >>> skeletons_of(21)
    'a JSON file with the 21 names, hand21 or humanart21'
    """
    fitting = [skeleton.name for skeleton in BUILT_IN.values() if len(skeleton) == count]
    return either([f"a JSON file with the {count} names", *fitting])
