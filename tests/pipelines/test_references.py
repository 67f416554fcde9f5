"""References at rest: groups that are joined while they lie on disk."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.groups import Groups
from kpdata.core.sample import ImageRef, Sample, unpack_sample
from kpdata.core.splits import Splits
from kpdata.pipelines.plan.references import STAMP, References
from kpdata.storage.image_files import Stamp

numbers = st.integers(0, 40)


def name_of(group: int) -> str:
    return f"{group:06d}"


@given(st.lists(st.tuples(numbers, numbers), max_size=60))
def test_joined_groups_come_out_under_the_name_that_groups_in_memory_have(pairs):
    memory = Groups[str]({})
    with References() as references:
        for number in range(41):
            references.add(
                Sample(f"key{number}", ImageRef("a.jpg"), group=name_of(number)), Stamp(1, 2)
            )
        for first, second in pairs:
            joined = references.join(name_of(first), name_of(second))
            assert joined == memory.join(name_of(first), name_of(second))
        references.assign_splits(Splits({"train": 1.0}))
        packed = [sample[STAMP.size :] for sample in references.packed_samples("train")]
    samples = {sample.key: sample for sample in map(unpack_sample, packed)}
    assert len(samples) == 41
    for number in range(41):
        assert samples[f"key{number}"].group == memory.find(name_of(number))


def test_joined_groups_take_no_memory():
    with References() as references:
        tracemalloc.start()
        for number in range(20_000):
            references.join(name_of(number % 7), name_of(number))
        assert tracemalloc.get_traced_memory()[1] < 100_000
        tracemalloc.stop()
