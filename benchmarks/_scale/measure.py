"""Time and memory of the plan phase and of whole jobs, each in a process of its own."""

import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from _convert.contenders import convert_command
from _convert.dataset import Dataset
from _convert.memory import peak_memory
from _convert.race import cpu_of_children

from .plan_phase import PlanCost, plan


class JobCost(NamedTuple):
    """What a whole conversion took: seconds, seconds of CPU, MiB at the processes' peaks."""

    references: int
    seconds: float
    cpu: float
    driver: float
    worker: float
    shard_bytes: int


def plan_cost(dataset: Dataset, work: Path) -> PlanCost:
    """Plan a conversion of ``dataset`` in a fresh process."""
    with (
        tempfile.TemporaryDirectory(dir=work) as folder,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
    ):
        return process.submit(plan, dataset, Path(folder) / "plan").result()


def job_cost(dataset: Dataset, references: int, workers: int, work: Path) -> JobCost:
    """Run ``kpdata convert`` on ``dataset``, images untouched."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out = Path(folder) / "shards"
        cpu, started = cpu_of_children(), time.perf_counter()
        peaks = peak_memory(convert_command(dataset, out, workers))
        seconds, cpu = time.perf_counter() - started, cpu_of_children() - cpu
        size = sum(path.stat().st_size for path in out.glob("*.tfrecord"))
    return JobCost(references, seconds, cpu, *peaks, size)
