"""Find a skeleton's flip pairs: keypoints whose names differ only in left and right."""

import re
from collections.abc import Iterator, Sequence

Pair = tuple[str, str]


def flip_pairs_by_name(names: Sequence[str]) -> tuple[Pair, ...]:
    """Pairs of names that differ only in their side, the left one first.

    The side is ``left`` or ``right``, else ``l`` or ``r``. A single l is a word (``l_eye``,
    ``LEye``, ``eyeL``, ``L1``), or the first or last letter of a word (``lf_paw``). A name that
    contains left or right is paired by that alone.

    >>> flip_pairs_by_name(["nose", "left_eye", "right_eye", "mouth_left", "mouth_right"])
    (('left_eye', 'right_eye'), ('mouth_left', 'mouth_right'))
    """
    by_folded = {name.lower(): name for name in names}
    plain = {name: spelt for name, spelt in by_folded.items() if not _SIDE.search(name)}
    pairs: list[Pair] = []
    paired: set[str] = set()
    for mirrored, among in ((_mirror_side, by_folded), (_mirror_l, plain), (_mirror_edge, plain)):
        for name in (name for name in names if name.lower() in among):
            found = next((among[other] for other in mirrored(name) if other in among), None)
            if found and paired.isdisjoint((name, found)):
                pairs.append((name, found))
                paired |= {name, found}
    indices = {name: index for index, name in enumerate(names)}
    return tuple(sorted(pairs, key=lambda pair: min(indices[name] for name in pair)))


_SIDE = re.compile("left|right")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""A word in snake_case or camelCase; digits separate words too."""


def _mirror_side(name: str) -> Iterator[str]:
    folded = name.lower()
    if folded.count("left") == 1:
        yield folded.replace("left", "right")


def _mirror_l(name: str) -> Iterator[str]:
    words = [word for word in _WORD.finditer(name) if word[0] in ("l", "L")]
    if len(words) == 1:
        yield _with_r(name, words[0].start())


def _mirror_edge(name: str) -> Iterator[str]:
    for word in _WORD.finditer(name):
        for index in (word.start(), word.end() - 1):
            if name[index] in ("l", "L"):
                yield _with_r(name, index)


def _with_r(name: str, index: int) -> str:
    return f"{name[:index]}r{name[index + 1 :]}".lower()
