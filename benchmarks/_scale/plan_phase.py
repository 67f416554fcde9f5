"""Plan a conversion and no more, and say what it took."""

import os
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from _convert.dataset import Dataset
from _convert.memory import high_water

from kpdata import formats
from kpdata.core.progress import Progress
from kpdata.pipelines.plan.make import make_plan
from kpdata.pipelines.request import Request


class PlanCost(NamedTuple):
    """What planning took.

    Attributes:
        references: that were planned.
        index: seconds to read the annotation file and join it in a temporary database.
        receive: seconds to make references of it and to look at each image's file.
        arrange: seconds to find identical images, split, order and write the plan files.
        cpu: seconds of CPU time, on any number of threads.
        peak: MiB that the process held at most.
        plan_bytes: size of the plan files.
    """

    references: int
    index: float
    receive: float
    arrange: float
    cpu: float
    peak: float
    plan_bytes: int

    @property
    def seconds(self) -> float:
        """The whole plan phase."""
        return self.index + self.receive + self.arrange


def plan(dataset: Dataset, folder: Path) -> PlanCost:
    """Plan into ``folder``, in a process that has done nothing else: the peak is the process's."""
    clock, cpu = [time.perf_counter()], time.process_time()
    source = formats.read("coco", dataset.annotations, images=dataset.images)
    clock += [time.perf_counter()] * 2

    class Clock(Progress):
        """Notes when the last reference was read."""

        def advance(self, count: int = 1) -> None:
            clock[2] = time.perf_counter()

    made = make_plan(source, Request.of(source, format="coco"), folder, Clock())
    clock.append(time.perf_counter())
    cpu = time.process_time() - cpu
    index, receive, arrange = (end - start for start, end in pairwise(clock))
    size = sum(path.stat().st_size for path in folder.iterdir())
    peak = high_water(os.getpid())
    return PlanCost(made.samples, index, receive, arrange, cpu, peak, size)
