"""Splits: what is refused, and that a group's place depends on its name and the seed alone."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.errors import FormatError
from kpdata.core.groups import Groups
from kpdata.core.splits import Splits, group_finder, parse_splits, position, stable_hash

names = st.text(max_size=8)


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("80/10/10", {"train": 0.8, "val": 0.1, "test": 0.1}),
        ("90/10", {"train": 0.9, "val": 0.1}),
        ("100", {"train": 1.0}),
        ("90/0/10", {"train": 0.9, "test": 0.1}),
        ("33.4/33.3/33.3", {"train": 0.334, "val": 0.333, "test": 0.333}),
        ("train=90,test=10", {"train": 0.9, "test": 0.1}),
        ("fold_1=50, fold_2=50", {"fold_1": 0.5, "fold_2": 0.5}),
    ],
)
def test_split_texts_become_shares(text, shares):
    assert parse_splits(text).shares == pytest.approx(shares)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("80/10", "the parts must add up to 100, not 90"),
        ("80/10/20", "the parts must add up to 100, not 110"),
        ("110/-10", "a part is negative"),
        ("0/0/0", "the parts must add up to 100, not 0"),
        ("nan/50/50", "the parts must add up to 100, not nan"),
        ("inf/-inf", "a part is negative"),
        ("", "expected percentages such as 80/10/10"),
        ("80/10/5/5", "expected percentages such as 80/10/10"),
        ("eighty/10/10", "expected percentages such as 80/10/10"),
        ("80;20", "expected percentages such as 80/10/10"),
        ("train=90,test", "expected percentages such as"),
        ("train=90=10", "expected percentages such as"),
        ("train=90,train=10", "'train' is given twice"),
        ("Train=90,test=10", "'Train' is no split name"),
        ("=90,test=10", "'' is no split name"),
        ("../x=90,test=10", "'../x' is no split name"),
        ("a-b=90,test=10", "'a-b' is no split name"),
        (f"{'x' * 33}=90,test=10", "is no split name"),
    ],
)
def test_an_unusable_split_is_refused_with_its_text(text, message):
    with pytest.raises(FormatError, match=message) as caught:
        parse_splits(text)
    assert f"split is {text!r}" in str(caught.value)


@pytest.mark.parametrize("percent", [-1, 100, 250, float("nan")])
def test_val_is_a_percentage_below_100(percent):
    with pytest.raises(FormatError, match=r"val_from_train is .*: expected 0 to below 100"):
        parse_splits("official", percent)


def test_val_without_the_official_split_is_refused():
    with pytest.raises(FormatError, match="`val_from_train` goes with `split` official"):
        parse_splits("80/20", 10)


def test_the_hash_never_changes():
    """A dataset made today must be split the same way for ever: these values are literal."""
    assert stable_hash("im0001.jpg") == HASHES[0]
    assert stable_hash("im0001.jpg", seed=1) == HASHES[1]
    assert stable_hash("Köln/影.png") == HASHES[2]
    splits = parse_splits("80/10/10", seed=3)
    assigned = [splits.assign(f"im{number:04d}.jpg", None) for number in range(1, 21)]
    assert " ".join(assigned) == ASSIGNED


HASHES = (17324828864816532095, 5243531906506388170, 6263688046291268372)
ASSIGNED = (
    "train train train train train test train train train val val train train val train train t"
    "rain train val train"
)


@given(names, st.integers(0, 2**63 - 1))
def test_every_group_has_a_place_from_0_to_below_1(group, seed):
    assert 0 <= position(group, seed) < 1


@given(st.sets(names, min_size=1), st.sets(names), st.integers(0, 99))
def test_adding_groups_never_moves_others(groups, added, seed):
    splits = parse_splits("60/20/20", seed=seed)
    before = {group: splits.assign(group, None) for group in groups}
    after = {group: splits.assign(group, None) for group in sorted(groups | added)}
    assert before == {group: after[group] for group in groups}


@given(names, st.integers(0, 99))
def test_growing_trains_share_only_moves_groups_into_train(group, seed):
    small = parse_splits("train=60,test=40", seed=seed).assign(group, None)
    large = parse_splits("train=80,test=20", seed=seed).assign(group, None)
    assert small == large or (small, large) == ("test", "train")


def test_shares_are_reached_and_seeds_draw_apart():
    groups = [f"person {number}" for number in range(20_000)]
    first, second = (parse_splits("80/15/5", seed=seed) for seed in (0, 1))
    drawn = [(first.assign(g, None), second.assign(g, None)) for g in groups]
    for splits in zip(*drawn, strict=True):
        shares = {name: count / len(groups) for name, count in Counter(splits).items()}
        assert shares == pytest.approx({"train": 0.80, "val": 0.15, "test": 0.05}, abs=0.01)
    # two independent draws agree on 0.8² + 0.15² + 0.05² of the groups
    agreeing = sum(a == b for a, b in drawn) / len(groups)
    assert agreeing == pytest.approx(0.665, abs=0.02)


def test_a_place_in_the_rounding_gap_below_1_still_has_a_split(monkeypatch):
    monkeypatch.setattr("kpdata.core.splits.position", lambda group, seed: 1 - 2**-53)
    shares = {"train": 0.7, "val": 0.2, "test": 0.1}  # add up to 0.9999999999999999
    assert Splits(shares).assign("a", None) == "test"


def test_the_official_split_is_kept_and_only_train_gives_to_val():
    splits = parse_splits("official", val_percent=10)
    assert splits.official
    drawn = Counter(splits.assign(f"{number}", "train") for number in range(20_000))
    assert drawn["val"] / 20_000 == pytest.approx(0.10, abs=0.01)
    assert set(drawn) == {"train", "val"}
    assert {splits.assign(f"{number}", "test") for number in range(1000)} == {"test"}
    assert splits.assign("a", None) is None


def test_the_official_split_without_val_changes_nothing():
    splits = parse_splits("official")
    assert {splits.assign(f"{number}", "train") for number in range(1000)} == {"train"}


def test_a_groups_name_is_what_the_pattern_captures():
    find = group_finder(r"(.+)_\d+\.jpg")
    assert find("cam1/walk_0001.jpg") == find("cam1/walk_0002.jpg") == "cam1/walk"
    assert find("portrait.png") is None


def test_an_optional_group_that_captured_nothing_is_no_group():
    assert group_finder(r"(v\d)?_\d+")("_12") is None
    assert group_finder(r"(\d*)")("walk_12") is None


def test_of_alternatives_the_group_that_matched_counts():
    find = group_finder(r"(cam\d)_\d+|clip-(.+)-\d+")
    assert (find("cam1_12.jpg"), find("clip-walk-3.jpg"), find("x.jpg")) == ("cam1", "walk", None)


def test_an_unusable_pattern_is_refused_with_advice():
    with pytest.raises(FormatError, match=r"group is '\(', not a regular expression: "):
        group_finder("(")
    with pytest.raises(FormatError, match=r"group is 'walk', which captures nothing: put the part"):
        group_finder("walk")


pairs = st.lists(st.tuples(names, names), max_size=20)


@given(pairs, st.randoms())
def test_joined_names_share_the_smallest_one_in_any_order(pairs, random):
    shuffled = [tuple(random.sample(pair, 2)) for pair in random.sample(pairs, len(pairs))]
    parents: dict[str, str] = {}
    one, other = Groups(parents), Groups({})
    for groups, joins in ((one, pairs), (other, shuffled)):
        for first, second in joins:
            groups.join(first, second)
    members = sorted({name for pair in pairs for name in pair})
    assert [one.find(name) for name in members] == [other.find(name) for name in members]
    assert [one.find(name) for name in members] == [smallest(name, pairs) for name in members]
    assert set(parents) == {name for name in members if one.find(name) != name}


def smallest(name: str, pairs: list[tuple[str, str]]) -> str:
    """The smallest name that a walk along ``pairs`` reaches."""
    reached, grown = {name}, True
    while grown:
        more = {n for pair in pairs if reached & set(pair) for n in pair} - reached
        grown = bool(more)
        reached |= more
    return min(reached)


def test_a_long_chain_of_joins_stays_one_group():
    groups = Groups({})
    for number in range(2000, 0, -1):
        groups.join(f"{number:05d}", f"{number - 1:05d}")
    assert {groups.find(f"{number:05d}") for number in range(2001)} == {"00000"}
