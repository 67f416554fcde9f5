"""Reading needs neither TensorFlow nor Beam: shown in processes of their own."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import kpdata
from kpdata import formats
from kpdata.core.progress import SILENT
from kpdata.pipelines.conversion import convert
from kpdata.pipelines.request import Request

HEAVY = ("tensorflow", "apache_beam", "keras", "jax", "torch", "tensorflow_datasets")


def run(code: str, *arguments: str) -> str:
    """Run ``code`` in a fresh interpreter; its output. Fails if it loaded a heavy package."""
    check = f"""
        import sys
        loaded = set({HEAVY}) & set(sys.modules)
        assert not loaded, f"loaded {{loaded}}"
    """
    program = textwrap.dedent(code) + textwrap.dedent(check)
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_opening_iterating_and_decoding_load_nothing_heavy(tiny_shards):
    output = run(
        """
        import sys, kpdata
        dataset = kpdata.open(sys.argv[1])
        print(dataset.skeleton.name, *dataset.splits)
        for split in dataset.splits:
            for sample in dataset[split]:
                shape = sample.pixels().shape
                print(split, sample.key, shape, sample.instances[0].keypoints.shape)
        """,
        str(tiny_shards),
    )
    lines = output.splitlines()
    assert lines[0] == "coco17 train val test"
    assert len(lines) == 1 + 12 + 2 + 4
    assert all(line.endswith("(48, 64, 3) (17, 3)") for line in lines[1:])


def test_opening_does_not_even_load_the_image_decoders(tiny_shards):
    output = run(
        """
        import sys, kpdata
        dataset = kpdata.open(sys.argv[1])
        print(len(list(dataset["train"])), "cv2" in sys.modules, "PIL" in sys.modules)
        """,
        str(tiny_shards),
    )
    assert output.split() == ["12", "False", "False"]


def test_verifying_loads_nothing_heavy(tiny_shards):
    output = run(
        """
        import sys
        from kpdata.checks.verify import verify
        print(verify(sys.argv[1])[1])
        """,
        str(tiny_shards),
    )
    assert output == "[]\n"


@pytest.mark.parametrize("name", ["coco", "shards"])
def test_reading_a_format_loads_nothing_heavy(tiny_coco, tiny_shards, name):
    path = {"coco": tiny_coco / "annotations.json", "shards": tiny_shards}[name]
    output = run(
        """
        import sys
        from pathlib import Path
        from kpdata import formats
        source = formats.read(sys.argv[1], Path(sys.argv[2]))
        print(sum(1 for sample in source.samples))
        """,
        name,
        str(path),
    )
    assert output == "12\n"


def test_importing_every_ground_floor_module_loads_nothing_heavy():
    output = run(
        """
        import importlib, pathlib, kpdata
        root = pathlib.Path(kpdata.__file__).parent
        for path in root.rglob("*.py"):
            parts = path.relative_to(root.parent).with_suffix("").parts
            if parts[1] not in ("cli", "pipelines", "train") and parts[-1] != "__init__":
                importlib.import_module(".".join(parts))
                print(".".join(parts))
        """
    ).splitlines()
    assert {"kpdata.shards.records", "kpdata.formats.coco.read", "kpdata.synth.scene"} <= set(
        output
    )


def test_the_readmes_loop_reads_pictures_of_nobody_too(make_coco, tmp_path, monkeypatch):
    annotations = make_coco(tmp_path)
    content = json.loads(annotations.read_text())
    content["annotations"] = content["annotations"][5:]
    annotations.write_text(json.dumps(content))
    source = formats.read("coco", annotations)
    request = Request.of(source, format="coco", split="100")
    convert(source, request, tmp_path / "shards", SILENT)
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    snippets = [part.partition("```")[0] for part in readme.split("```python\n")[1:]]
    (snippet,) = [snippet for snippet in snippets if "kp.open" in snippet]
    seen = {}
    exec(snippet, seen)
    assert seen["keypoints"].shape == (17, 3)
    assert any(not sample.instances for sample in kpdata.open("shards")["train"])
