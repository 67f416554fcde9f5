"""The floors of the house: who may import whom, and when."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kpdata.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
ABOVE = {"pipelines", "train"}
HEAVY = ("apache_beam", "tensorflow", "tensorflow_datasets", "keras", "jax", "torch")
WATCHERS = ("training_watcher",)


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path, module: str, top_level: bool = False) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all that a file imports; ``from a import b`` gives ``a.b`` too.

    Args:
        path: the file.
        module: its package, to resolve relative imports.
        top_level: leave out what functions import, and what is imported for type checkers alone.
    """
    for node in nodes(ast.parse(path.read_text()), top_level):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def nodes(tree: ast.AST, top_level: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if top_level and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from nodes(node, top_level)


def package_of(path: Path) -> str:
    """The package that a file of the checkout lies in, once installed."""
    parts = path.relative_to(ROOT).parent.parts
    return ".".join(["kpdata", *parts] if ABOVE & set(parts[:1]) else parts)


def offences(paths: list[Path], banned: tuple[str, ...], top_level: bool = False) -> list[str]:
    """``file:line imports name`` for every import of a banned module, or of a part of one."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for line, name in imports(path, package_of(path), top_level)
        if any(name == module or name.startswith(f"{module}.") for module in banned)
    ]


def test_the_checker_sees_every_kind_of_import(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "import one\n"
        "from two import three\n"
        "from . import four\n"
        "from ..five import six\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import seven\n"
        "def f():\n    import eight\n"
    )
    found = {name for _, name in imports(path, "kpdata.cli")}
    assert found >= {"one", "two.three", "kpdata.cli.four", "kpdata.five.six", "seven", "eight"}
    assert not {name for _, name in imports(path, "kpdata.cli", True)} & {"seven", "eight"}


def test_the_ground_floor_knows_nothing_of_beam_tensorflow_or_the_floors_above():
    above = ROOT / "kpdata" / "cli", ROOT / "kpdata" / "__main__.py"
    ground = [path for path in files("kpdata") if path not in above and path.parent not in above]
    assert len(ground) > 20
    assert offences(ground, (*HEAVY, "kpdata.pipelines", "kpdata.train", "kpdata.cli")) == []


def test_pipelines_and_train_never_meet():
    banned = ("kpdata.cli", "tensorflow", "tensorflow_datasets", "keras", "jax", "torch")
    assert files("pipelines")
    assert offences(files("pipelines"), ("kpdata.train", *banned)) == []
    assert offences(files("train"), ("kpdata.pipelines", "kpdata.cli", "apache_beam")) == []


def test_beam_is_known_to_the_job_and_to_its_stores_alone():
    others = [path for path in files("pipelines") if not path.name.startswith("beam_")]
    assert offences(others, ("apache_beam",)) == []


def test_nobody_imports_the_folders_by_their_bare_names():
    folders = ("kpdata", "pipelines", "train", "tests", "benchmarks")
    everything = [path for folder in folders for path in files(folder)] + [ROOT / "setup.py"]
    assert offences(everything, tuple(ABOVE)) == []


def test_commands_import_the_heavy_parts_only_inside_a_function():
    light = [path for path in files("kpdata/cli") if path.stem not in WATCHERS]
    watchers = (f"kpdata.cli.{name}" for name in WATCHERS)
    banned = (*HEAVY, "kpdata.pipelines", "kpdata.train", *watchers)
    assert offences(light, banned, top_level=True) == []


@pytest.mark.parametrize(
    "module", sorted(path.stem for path in files("kpdata/cli") if path.stem not in WATCHERS)
)
def test_importing_a_command_leaves_beam_and_tensorflow_out(module):
    name = "kpdata.cli" if module == "__init__" else f"kpdata.cli.{module}"
    assert loaded_by(f"import {name}", HEAVY) == set()


def test_help_imports_nothing_but_click():
    code = "from kpdata.cli.main import cli; cli.main(['--help'], standalone_mode=False)"
    assert loaded_by(code, (*HEAVY, "numpy", "cv2", "PIL", "scipy", "msgspec", "rich")) == set()


def loaded_by(code: str, names: tuple[str, ...]) -> set[str]:
    """Which of ``names`` a fresh interpreter has loaded after ``code``."""
    program = f"import sys\n{code}\nprint('loaded', *set({names}) & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_every_command_has_a_module_and_every_command_module_is_listed():
    modules = {path.stem for path in files("kpdata/cli")} - {"__init__"}
    with_command = {
        stem.replace("_", "-")
        for stem in modules
        if "\ndef command(" in (ROOT / "kpdata" / "cli" / f"{stem}.py").read_text()
    }
    assert with_command == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_help_is_the_one_in_the_list(name):
    command = importlib.import_module(f"kpdata.cli.{name.replace('-', '_')}").command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.short_help == COMMANDS[name]
    assert cli.get_command(click.Context(cli), name) is command


def test_nothing_is_printed_but_through_what_makes_it_printable():
    bare = re.compile(
        r"^(?!\s*(?:\.\.\.|>>>)).*(?:\bclick\.s?echo\(|(?<!def )(?<![.\w])print\()", re.M
    )
    found = [path for folder in ("kpdata", "pipelines", "train") for path in files(folder)]
    assert [path.name for path in found if bare.search(path.read_text())] == ["printing.py"]
