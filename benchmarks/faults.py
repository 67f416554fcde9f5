"""Fault trials in number, as a table: what was done to a job, when, and what came of it.

Runs the tests that record fault trials so many times of each kind, and reports every one.

\b
    python benchmarks/faults.py --trials 10 --out benchmarks/faults.md
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
from _shared.machine import facts
from _shared.report import Section, write

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/pipelines/test_faults.py", "tests/pipelines/test_fault_trials.py")
SOURCES = ("kpdata", "pipelines", "tests")
PACKAGES = ("kpdata", "apache-beam")
FAULTS = ("lost", "duplicated", "wrong")

EXPLANATION = """\
Each trial disturbs a conversion at a random moment, drawn from a seed, and then runs the same
command again. Its records are compared with those of an undisturbed run: **lost** ones are not
there, **duplicated** ones are there twice, **wrong** ones differ in a byte. `kpdata verify` must
find the result sound. After a kill, a full disk or a second job the root hash must be that of the
undisturbed run. Where images changed, a sample may be missing from the dataset if, and only if, its
image was one of them and it is listed in the quarantine; with the images put back, the root hash
must be that of the undisturbed run again. A trial that fails any of this fails the program."""

Trial = dict[str, Any]


def run_trials(tests: Sequence[str], trials: int, seed: int) -> list[Trial]:
    """Run the tests; what they recorded.

    Raises:
        ClickException: one failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-k", "trial", f"--junitxml={report}"]
        command += ["-o", "junit_family=xunit1"]  # the one that keeps what a test records
        numbers = {"KPDATA_FAULT_TRIALS": str(trials), "KPDATA_FAULT_SEED": str(seed)}
        done = subprocess.run([*command, *tests], cwd=ROOT, env=os.environ | numbers)
        if done.returncode:
            raise click.ClickException("a trial failed: nothing is written")
        found = ElementTree.parse(report).iterfind(".//property[@name='fault trial']")
        return [json.loads(entry.attrib["value"]) for entry in found]


def summary(trials: Sequence[Trial]) -> Section:
    """Trials and faults by kind."""
    kinds = dict.fromkeys(trial["kind"] for trial in trials)
    rows = [_sums(kind, [trial for trial in trials if trial["kind"] == kind]) for kind in kinds]
    rows.append(_sums("in all", trials))
    columns = ("disturbance", "trials", "records", *FAULTS)
    return Section("By kind", "", columns, rows, [], {"trials": list(trials)})


def _sums(name: str, trials: Sequence[Trial]) -> tuple[str, ...]:
    sums = (f"{sum(trial[key] for trial in trials):,}" for key in ("records", *FAULTS))
    return (name, str(len(trials)), *sums)


def details(trials: Sequence[Trial]) -> Section:
    """Every trial with its moment."""
    rows = [
        (f"{trial['kind']}; {trial['moment']}", *(f"{trial[k]:,}" for k in ("records", *FAULTS)))
        for trial in trials
    ]
    return Section("Every trial", "", ("disturbance; moment", "records", *FAULTS), rows, [])


@click.command(help=__doc__)
@click.option("--trials", default=10, show_default=True, help="Of each kind.")
@click.option("--seed", default=0, show_default=True, help="Of the first.")
@click.option("--tests", multiple=True, default=TESTS, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Markdown; and .json.")
def main(trials: int, seed: int, tests: Sequence[str], out: Path) -> None:
    """Run the trials, and write the report."""
    ran_on = facts(PACKAGES, SOURCES)
    done = run_trials(tests, trials, seed)
    click.echo(write(out, "Fault trials", EXPLANATION, [summary(done), details(done)], ran_on))


if __name__ == "__main__":
    main()
