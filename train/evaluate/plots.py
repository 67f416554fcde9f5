"""Plots of a run: training curves, curves and bars of scores, sheets of examples.

Matplotlib draws without a display, and is imported only when something is drawn.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kpdata.core import transform
from kpdata.core.errors import TrainingError
from kpdata.core.sample import VISIBLE, FloatArray, Instance, Pixels
from kpdata.metrics import Score
from kpdata.storage.atomic import write_atomically
from kpdata.train.data.crops import LabelledCrops
from kpdata.train.evaluate.report import MEAN_POSE
from kpdata.train.evaluate.scores import CURVE_THRESHOLDS
from kpdata.view import draw
from kpdata.view.sheet import contact_sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXAMPLES = 12
"""Instances on a sheet."""

Indices = npt.NDArray[np.intp]

_TILE = 480
_COLUMNS = 3
_DPI = 120
_BASELINE_STYLE: dict[str, Any] = {"color": "0.6", "linestyle": "--"}
_PANELS = {"loss": "loss", "val_pck": "validation PCK", "learning_rate": "learning rate"}
_FEW_EPOCHS = 40
"""That are drawn as dots, too."""


def curves(history_csv: Path, out_png: Path) -> None:
    """Draw losses, validation PCK and learning rate over the epochs of a run, its phases marked.

    Args:
        history_csv: a row per epoch. All columns whose names begin with ``loss`` and with
            ``val_pck`` are drawn, and ``learning_rate``; ``phase`` is a number, ``trains`` and
            ``input_size`` say what it is. An empty cell is a value that was not measured.
        out_png: appears whole or not at all.

    Raises:
        TrainingError: the file holds no epoch, or something other than numbers.
    """
    with open(history_csv, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise TrainingError(f"{history_csv}: no epoch is in it")
    epochs = np.arange(1, len(rows) + 1)
    figure = _figure(7.5, 8.0)
    panels = figure.subplots(len(_PANELS), 1, sharex=True)
    for axes, (prefix, label) in zip(panels, _PANELS.items(), strict=True):
        for name in (name for name in rows[0] if name.startswith(prefix)):
            values = _column(history_csv, rows, name)
            known = np.isfinite(values)
            marker = "." if known.sum() <= _FEW_EPOCHS else ""
            axes.plot(epochs[known], values[known], marker=marker, label=name)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend(fontsize=8)
    drawn = [value for line in panels[0].lines for value in line.get_ydata()]
    if min(drawn, default=0) > 0:
        panels[0].set_yscale("log")
    _mark_phases(panels, rows)
    panels[-1].set_xlabel("epoch")
    _save(figure, out_png)


def pck_curves(named: Mapping[str, FloatArray], reference: str, out_png: Path) -> None:
    """Draw PCK over its threshold.

    Args:
        named: head, or ``mean pose`` → (51,) PCK at each of ``CURVE_THRESHOLDS``.
        reference: what the thresholds are fractions of.
        out_png: appears whole or not at all.
    """
    figure = _figure(6.5, 4.5)
    axes = figure.subplots()
    for name, values in named.items():
        style = _BASELINE_STYLE if name == MEAN_POSE else {}
        axes.plot(CURVE_THRESHOLDS, 100 * values, label=name, **style)
    axes.set(xlim=(0, CURVE_THRESHOLDS[-1]), ylim=(0, 100))
    axes.set(xlabel=f"threshold, in lengths of the {reference}", ylabel="PCK, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    _save(figure, out_png)


def keypoint_bars(scores: Mapping[str, Score], out_png: Path) -> None:
    """Draw a bar of one metric for each keypoint, with a mark for the baseline.

    Args:
        scores: head, or ``mean pose`` → the same metric; left and right are averaged.
        out_png: appears whole or not at all.
    """
    heads = {name: score for name, score in scores.items() if name != MEAN_POSE}
    metric = next(iter(heads.values()))
    names = list(metric.averaged)
    height = 1.2 + 0.32 * len(names)
    figure = _figure(6.5, height)
    axes = figure.subplots()
    places, thickness = np.arange(len(names)), 0.8 / len(heads)
    for number, (head, score) in enumerate(heads.items()):
        offset = (number - (len(heads) - 1) / 2) * thickness
        axes.barh(places + offset, _shown(score), 0.92 * thickness, label=head)
    if MEAN_POSE in scores:
        axes.plot(_shown(scores[MEAN_POSE]), places, "k|", markersize=14, label=MEAN_POSE)
    axes.set_yticks(places, [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric.name}, {'%' if metric.unit == 'fraction' else metric.unit}")
    if metric.unit == "fraction":
        axes.set_xlim(0, 100)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(scores))
    _save(figure, out_png)


def mean_errors(crops: LabelledCrops, keypoints: FloatArray) -> FloatArray:
    """(N,) each instance's mean error over its labelled keypoints, in sides of its crop.

    Args:
        crops: of N instances.
        keypoints: (N, K, 3) predictions in source pixels.
    """
    scale = np.array([transform.scale_of(affine) for affine in crops.to_source])
    offset = keypoints[..., :2] - crops.truth[..., :2]
    labelled = crops.truth[..., 2] > 0
    total = np.where(labelled, np.hypot(offset[..., 0], offset[..., 1]), 0).sum(axis=1)
    return total / np.maximum(labelled.sum(axis=1), 1) / (scale * crops.side)


def choose(errors: FloatArray, which: str) -> Indices:
    """Up to ``EXAMPLES`` instances with the ``best``, ``median`` or ``worst`` errors (N,).

    The best and the median begin with the smallest error, the worst with the largest.
    """
    order = np.argsort(errors, kind="stable")
    if which == "worst":
        return order[::-1][:EXAMPLES]
    start = 0 if which == "best" else max(0, (len(order) - EXAMPLES) // 2)
    return order[start : start + EXAMPLES]


def sheet(crops: LabelledCrops, keypoints: FloatArray, rows: Indices) -> Pixels:
    """(H, W, 3) a contact sheet: each instance with its truth on the left, predicted on the right.

    Args:
        crops: of N instances.
        keypoints: (N, K, 3) predictions in source pixels.
        rows: which instances, in the order of the sheet.
    """
    errors = mean_errors(crops, keypoints)
    tiles = []
    for row, rgb in zip(rows.tolist(), crops.images[rows], strict=True):
        to_crop = transform.invert(crops.to_source[row])
        xy = transform.apply_affine(to_crop, keypoints[row, :, :2])
        predicted = np.column_stack([xy, np.full(len(xy), VISIBLE)])
        drawn = [
            draw.draw_instance(rgb, Instance(each), crops.skeleton)
            for each in (crops.keypoints[row], predicted)
        ]
        caption = f"truth | predicted, off {100 * errors[row]:.1f} %: {crops.keys[row]}"
        tiles.append((np.hstack(drawn), caption))
    return contact_sheet(tiles, columns=_COLUMNS, tile=_TILE, skeleton=crops.skeleton)


def _column(path: Path, rows: Sequence[Mapping[str, str]], name: str) -> FloatArray:
    """(epochs,) a column of numbers; NaN where a cell is empty."""
    try:
        return np.array([float(row.get(name) or "nan") for row in rows])
    except ValueError as error:
        raise TrainingError(f"{path}: column {name}: {error}") from error


def _mark_phases(panels: Sequence["Axes"], rows: Sequence[Mapping[str, str]]) -> None:
    """A line where a phase begins, and what it is above the first panel."""
    phases = [row.get("phase") for row in rows]
    starts = [0, *(i for i, (a, b) in enumerate(pairwise(phases), 1) if a != b)]
    above = panels[0].get_xaxis_transform()
    for start in starts:
        for axes in panels:
            axes.axvline(start + 0.5, color="0.5", linewidth=0.8, linestyle=":")
        row = rows[start]
        label = f"{row.get('trains') or ''}\n{row.get('input_size') or '?'} px"
        panels[0].text(start + 0.5, 1.02, label, transform=above, fontsize=8)


def _shown(score: Score) -> FloatArray:
    """The averaged parts, in percent if they are fractions; NaN where there is none."""
    factor = 100 if score.unit == "fraction" else 1
    return factor * np.array(list(score.averaged.values()), np.float64)


def _figure(width: float, height: float) -> "Figure":
    """A figure of so many inches that needs no display and no global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TrainingError("pictures need matplotlib: pip install 'kpdata[train]'") from error
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")  # Agg, whatever backend is configured
    write_atomically(path, buffer.getvalue(), durable=False)
