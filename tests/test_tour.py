"""docs/tour.ipynb runs from top to bottom, and shows pictures."""

import os
import sys
from pathlib import Path

import nbformat
from nbconvert.preprocessors import ExecutePreprocessor

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


def test_the_tour_runs_and_shows_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    tour = nbformat.read(TOUR, as_version=4)
    ExecutePreprocessor(timeout=300).preprocess(tour, {"metadata": {"path": str(tmp_path)}})
    outputs = [output for cell in tour.cells for output in cell.get("outputs", ())]
    shown = [set(output["data"]) for output in outputs if "data" in output]
    assert sum("image/png" in kinds for kinds in shown) >= 3
    assert sum("text/html" in kinds for kinds in shown) >= 3
    assert not [output for output in outputs if output.output_type == "error"]


def test_the_tour_is_kept_without_outputs():
    tour = nbformat.read(TOUR, as_version=4)
    assert not [cell for cell in tour.cells if cell.get("outputs")]
