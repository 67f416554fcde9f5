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
from kpdata.formats import FORMATS

ROOT = Path(__file__).parents[1]
ABOVE = {"pipelines", "train"}
HEAVY = ("apache_beam", "tensorflow", "tensorflow_datasets", "keras", "jax", "torch")


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


def room_of(module: str) -> str:
    """The room that a module lies in: a folder or a file of a floor; ``kpdata`` is the front door.

    >>> room_of("kpdata.formats.coco.read"), room_of("kpdata.train.loop.phase"), room_of("kpdata")
    ('formats', 'train/loop', 'kpdata')
    """
    parts = module.split(".")
    if len(parts) > 2 and parts[1] in ABOVE:
        return "/".join(parts[1:3])
    return parts[1] if len(parts) > 1 else parts[0]


def module_of(path: Path) -> str:
    """A file's dotted name, once installed."""
    name = package_of(path)
    return name if path.stem == "__init__" else f"{name}.{path.stem}"


def graph_of_rooms() -> dict[str, set[str]]:
    """Room → the other rooms that its files import, wherever in a file they do."""
    paths = [path for floor in ("kpdata", *ABOVE) for path in files(floor)]
    modules = {module_of(path) for path in paths}
    doors = {"kpdata", *(f"kpdata.{floor}" for floor in ABOVE)}
    graph: dict[str, set[str]] = {room_of(module): set() for module in modules}
    for path in paths:
        here = room_of(module_of(path))
        for _, name in imports(path, package_of(path)):
            if name in modules and name not in doors and room_of(name) != here:
                graph[here].add(room_of(name))
    return graph


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Rooms each of which leads to the next, the last to the first; empty where there is none."""
    done: set[str] = set()

    def walk(room: str, way: list[str]) -> list[str]:
        if room in way:
            return way[way.index(room) :]
        if room in done:
            return []
        for further in sorted(graph[room]):
            if circle := walk(further, [*way, room]):
                return circle
        done.add(room)
        return []

    return next((circle for room in sorted(graph) if (circle := walk(room, []))), [])


def test_the_checker_finds_a_circle():
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_rooms_form_a_circle():
    graph = graph_of_rooms()
    for room, others in sorted(graph.items()):
        print(f"{room} → {', '.join(sorted(others)) or '-'}")
    assert circle_in(graph) == []


@pytest.mark.parametrize("floor", ["kpdata", "pipelines", "train"])
def test_a_floor_has_at_most_eight_rooms(floor):
    rooms = {
        path.name
        for path in (ROOT / floor).iterdir()
        if path.is_dir() and not path.is_symlink() and path.name not in ("cli", "synth")
        if any(path.glob("*.py"))
    }
    print(floor, sorted(rooms))
    assert 4 <= len(rooms) <= 8


def is_ground(path: Path) -> bool:
    """Whether a file lies in a room of the ground floor: door and commands see everything."""
    inner = path.relative_to(ROOT / "kpdata").parts
    return len(inner) > 1 and inner[0] != "cli"


def test_the_ground_floor_knows_nothing_of_beam_tensorflow_or_the_floors_above():
    ground = [path for path in files("kpdata") if is_ground(path)]
    assert len(ground) > 20
    door = ("kpdata.door", "kpdata.labels", "kpdata.dataset")
    above = ("kpdata.pipelines", "kpdata.train", "kpdata.cli", *door)
    assert offences(ground, (*HEAVY, *above)) == []


def test_core_imports_nothing_of_ours():
    core = files("kpdata/core")
    others = tuple(f"kpdata.{room}" for room in graph_of_rooms() if room not in ("core", "kpdata"))
    assert offences(core, others) == []


def test_no_room_names_a_floor_above_in_a_string():
    """What cannot be imported must not be smuggled in by name."""
    above = re.compile(r"""["'](?:kpdata\.)?(?:pipelines|train|cli|door)(?:\.\w+)+[:"']""")
    ground = [path for path in files("kpdata") if is_ground(path)]
    floors = [path for floor in ABOVE for path in files(floor)]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in [*ground, *floors]
        for match in above.finditer(path.read_text())
        if path in ground
        or not match[0].strip("\"'").startswith(f"kpdata.{path.parts[len(ROOT.parts)]}.")
    ]
    assert found == []


def test_no_message_outside_the_command_line_speaks_of_flags():
    """Below, errors name parameters; the command line turns them into flags."""
    ours = {
        flag
        for name in COMMANDS
        for parameter in cli.get_command(click.Context(cli), name).params
        for flag in parameter.opts
        if flag.startswith("--")
    }
    below = [path for path in files("kpdata") if "cli" not in path.parts]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value[:60]}"
        for path in [*below, *files("pipelines"), *files("train")]
        for node in texts(ast.parse(path.read_text()))
        if ours & set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", node.value))
        if node.value != "images whose name --group does not match"  # root hashes rest on it
        if not node.value.endswith("=")  # an argument of Beam's
    ]
    assert found == []


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """All strings but docstrings."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            is_text = isinstance(child, ast.Constant) and isinstance(child.value, str)
            if is_text and not isinstance(node, ast.Expr):
                yield child


def test_a_format_is_named_by_its_own_room_alone():
    """Everything else asks the registry."""
    names = {f.name for f in FORMATS.values()} - {"json", "shards"}
    for path in [*files("kpdata"), *files("pipelines")]:
        inner = path.relative_to(ROOT).parts
        if inner[:2] == ("kpdata", "formats") or inner[1] == "synth":
            continue
        text = path.read_text()
        compared = re.findall(r"""(?:==|!=|in) \(?["'](\w+)["']""", text)
        assert not names & set(compared), path


def test_pipelines_and_train_never_meet():
    banned = ("kpdata.cli", "tensorflow", "tensorflow_datasets", "keras", "jax", "torch")
    assert files("pipelines")
    assert offences(files("pipelines"), ("kpdata.train", *banned)) == []
    assert offences(files("train"), ("kpdata.pipelines", "kpdata.cli", "apache_beam")) == []


def test_commands_import_the_heavy_parts_only_inside_a_function():
    banned = (*HEAVY, "kpdata.pipelines")
    assert offences(files("kpdata/cli"), banned, top_level=True) == []


@pytest.mark.parametrize("module", sorted(path.stem for path in files("kpdata/cli")))
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
