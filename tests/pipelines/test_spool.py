"""References at rest: groups that are joined while they lie on disk."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from kpdata.core.groups import Groups
from kpdata.core.sample import ImageRef, Sample, unpack_sample
from kpdata.core.splits import Splits
from kpdata.pipelines.plan.table import STAMP, Spool
from kpdata.storage.image_files import Stamp

numbers = st.integers(0, 40)


def name_of(group: int) -> str:
    return f"{group:06d}"


@given(st.lists(st.tuples(numbers, numbers), max_size=60))
def test_joined_groups_come_out_under_the_name_that_groups_in_memory_have(pairs):
    memory = Groups[str]({})
    with Spool() as spool:
        for number in range(41):
            spool.add(Sample(f"key{number}", ImageRef("a.jpg"), group=name_of(number)), Stamp(1, 2))
        for first, second in pairs:
            joined = spool.join(name_of(first), name_of(second))
            assert joined == memory.join(name_of(first), name_of(second))
        spool.place(Splits({"train": 1.0}))
        packed = [sample[STAMP.size :] for sample in spool.packed_samples("train")]
    samples = {sample.key: sample for sample in map(unpack_sample, packed)}
    assert len(samples) == 41
    for number in range(41):
        assert samples[f"key{number}"].group == memory.find(name_of(number))


def test_joined_groups_take_no_memory():
    with Spool() as spool:
        tracemalloc.start()
        for number in range(20_000):
            spool.join(name_of(number % 7), name_of(number))
        assert tracemalloc.get_traced_memory()[1] < 100_000
        tracemalloc.stop()
