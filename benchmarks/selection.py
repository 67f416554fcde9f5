"""Whether training keeps the epoch that is best, where PCK is 1 for most of them.

Boats of two keypoints are drawn, which any model learns. Each model is trained on them as ``kpdata
train`` does, and after each epoch the validation's EPE is measured beside the score that the run
selects by. The kept epoch's EPE, over the lowest of all epochs, is the price of the selection.

    python benchmarks/selection.py --out benchmarks/results/selection.md
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from _shared.machine import facts
from _shared.report import Ratio, Section, write

import kpdata as kp
from kpdata.metrics import epe
from kpdata.train.run.backend import prepare_backend

SOURCES = ("kpdata", "train")
PACKAGES = ("kpdata", "keras", "tensorflow-cpu", "numpy")
MOST = 1.05
SIDE = (240, 180)
MODELS: dict[str, dict[str, Any]] = {
    "blazepose lite, heatmap": {"model": "blazepose", "size": "lite", "stage": "heatmap"},
    "regression, softargmax": {"model": "regression", "head": "softargmax"},
}
EXPLANATION = """\
**kept** is the epoch that the run keeps, **lowest EPE** the one that it would keep if it selected
by the error; both errors are mean distances in pixels of the source, on the validation split.
**train** is the kept weights' EPE on the training split: a model whose batch statistics lag behind
would be far better there. **PCK 1 from** is the first epoch from which on validation PCK@0.2 stays
at 1."""


@dataclass
class Epochs:
    """What is measured of a run after each epoch: EPE and PCK on ``val``."""

    epe: list[float]
    pck: list[float]


def draw(folder: Path, count: int, seed: int) -> None:
    """Boats on water, in a per-image JSON file each: bow and stern are where the hull ends."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    width, height = SIDE
    for number in range(count):
        water = rng.normal((150, 110, 60), 14, (height, width, 3))
        water += 25 * np.sin(np.arange(height) / rng.uniform(3, 9))[:, None, None]
        length, turn = rng.uniform(50, 120), rng.uniform(0, 2 * np.pi)
        along = np.array([np.cos(turn), np.sin(turn)])
        middle = rng.uniform((70, 60), (width - 70, height - 60))
        bow, stern = middle + along * length / 2, middle - along * length / 2
        across = np.array([-along[1], along[0]]) * length / 7
        hull = [bow, middle + along * length / 5 + across, stern + across * 0.8,
                stern - across * 0.8, middle + along * length / 5 - across]  # fmt: skip
        picture = np.clip(water, 0, 255).astype(np.uint8)
        colour = rng.uniform(60, 255, 3).tolist()
        cv2.fillPoly(picture, [np.round(hull).astype(np.int32)], colour, cv2.LINE_AA)
        name = f"boat{number:04}"
        cv2.imwrite(str(folder / "images" / f"{name}.jpg"), picture)
        low, high = np.min(hull, axis=0), np.max(hull, axis=0)
        label = {
            "box": [*low.tolist(), *high.tolist()],
            "keypoints": [[*bow.tolist(), 2], [*stern.tolist(), 2]],
            "label": "boat",
        }
        (folder / "labels" / f"{name}.json").write_text(json.dumps([label]))
    skeleton = {"name": "boat", "keypoints": ["bow", "stern"], "edges": [["bow", "stern"]],
                "flip_pairs": [], "torso": ["bow", "stern"]}  # fmt: skip
    (folder / "boat.json").write_text(json.dumps(skeleton))


def trained(shards: Path, out: Path, options: dict[str, Any], epochs: int) -> tuple[kp.Run, Epochs]:
    """Train a model; return the run and what each of its epochs scored."""
    from kpdata.train.infer.predictions import Truth
    from kpdata.train.loop.phase import PhaseRun

    found, scored = Epochs([], []), PhaseRun._scores

    def also_epe(phase: PhaseRun, val: Any, predicted: Any) -> Any:
        scores = scored(phase, val, predicted)
        heads = predicted.keypoints.values()
        errors = [epe(Truth.of(val).poses(val.skeleton, each)).value for each in heads]
        found.epe.append(float(np.mean(errors)))
        found.pck.append(float(np.mean([*scores[0].values()])))
        return scores

    PhaseRun._scores = also_epe  # type: ignore[method-assign]
    try:
        settings = {
            "input_size": 96,
            "epochs": epochs,
            "batch_size": 16,
            "settings": ["augment.flip=0"],
        }
        run = kp.train(shards, out, **options, **settings)
    finally:
        PhaseRun._scores = scored  # type: ignore[method-assign]
    del found.epe[epochs:], found.pck[epochs:]  # what is measured once more at a phase's end
    return run, found


@click.command(help=__doc__)
@click.option("--count", default=240, show_default=True, help="Boats.")
@click.option("--epochs", default=80, show_default=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Markdown; and .json.")
def main(count: int, epochs: int, out: Path) -> None:
    """Draw, train, and write the report."""
    prepare_backend()
    rows, ratios, raw = [], [], {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw(folder, count, seed=0)
        labels = kp.read(
            folder / "labels", format="json", images=folder / "images",
            skeleton=folder / "boat.json",
        )  # fmt: skip
        ds = kp.convert(labels, folder / "shards", split="80/20/0", progress=False)
        for name, options in MODELS.items():
            run, found = trained(folder / "shards", folder / name, options, epochs)
            best = run.state.best
            assert best is not None
            kept, lowest = found.epe[best.epoch - 1], min(found.epe)
            on_train = run.evaluate(ds, split="train", flip=False)["epe"].value
            saturated = next((n for n in range(epochs) if min(found.pck[n:]) == 1), None)
            rows.append((
                name, f"{best.epoch}", f"{kept:.2f}", f"{on_train:.2f}",
                f"{found.epe.index(lowest) + 1}", f"{lowest:.2f}",
                "never" if saturated is None else f"{saturated + 1}",
            ))  # fmt: skip
            ratios.append(Ratio(f"{name}: kept / lowest EPE", [kept / lowest], MOST, False))
            raw[name] = {"kept": best.epoch, "epe": found.epe, "pck": found.pck}
    columns = ("", "kept", "its EPE, px", "train, px", "lowest EPE", "px", "PCK 1 from")
    title = f"{count} boats, {epochs} epochs"
    section = Section(title, "", columns, rows, ratios, raw)
    ran_on = facts(PACKAGES, SOURCES)
    click.echo(write(out, "kpdata train: which epoch is kept", EXPLANATION, [section], ran_on))


if __name__ == "__main__":
    main()
