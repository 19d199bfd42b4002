"""Imports go one way: each room of the package uses only rooms of the layers below its own."""

import ast
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the bottom up. A room is a module or a folder of flipfast/; those of one layer do not know
# each other. A new room needs a place here.
LAYERS = [
    {"_core", "_cpu", "errors"},
    {"checks", "env"},
    {"config", "sampling", "scores", "watching"},
    {
        "async_scoring",
        "background",
        "option_text",
        "prompts",
        "parsing",
        "metrics",
        "attention",
        "ops",
    },
    {"models"},
    {"engine", "watchers"},
    {"backends"},
    {"agreement", "copying", "device_scoring", "explain", "progress", "samples", "shaping"},
    {"assembly", "defences", "reading", "running"},
    {"batches", "best_of", "likelihood"},
    {"generation"},
    {"client", "reward"},
    {"ensemble", "profiling", "raters", "rows", "streaming", "training"},
    {"consistency", "evaluation"},
    {"attacks"},
    {"serving"},
    {"trainers"},
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
# The rooms that may call the C++ modules.
NATIVE_USERS = {"_core": {"engine", "metrics", "parsing", "watchers"}, "_cpu": {"attention", "ops"}}


def imported_modules(path: PurePosixPath, tree: ast.AST) -> set[str]:
    """Dotted names of all modules that a file imports, at any depth of its code."""
    package = path.parts[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str:
    """The room of a dotted name; a public name taken from the package itself is its top."""
    name = module.split(".")[1] if "." in module else "__init__"
    return name if name in LEVEL or module.count(".") > 1 else "__init__"


def reads_environment(tree: ast.AST) -> bool:
    names = {"environ", "environb", "getenv"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & names)
        for node in ast.walk(tree)
    )


def violations(path: PurePosixPath, source: str) -> list[str]:
    """What is wrong with one file, given its path below the folder that holds its package."""
    tree = ast.parse(source)
    ours = {
        name
        for name in imported_modules(path, tree)
        if name.split(".")[0] in ("flipfast", "flipfast_kernels")
    }
    if path.parts[0] == "flipfast_kernels":
        return [f"{path} imports {name}" for name in ours if name.split(".")[0] == "flipfast"]
    room = path.parts[1].removesuffix(".py")
    if room not in LEVEL:
        return [f"{path} is in no layer: give the room {room!r} a place in LAYERS"]
    found = []
    for name in sorted(ours):
        other = room_of(name) if name.split(".")[0] == "flipfast" else None
        if other is None or other == room:
            continue
        if other not in LEVEL or LEVEL[other] >= LEVEL[room]:
            found.append(f"{path} imports {name}, which is not below it")
        elif room not in NATIVE_USERS.get(other, {room}):
            found.append(f"{path} imports {name}, which only {sorted(NATIVE_USERS[other])} may")
    if room != "env" and reads_environment(tree):
        found.append(f"{path} reads the environment: that belongs in flipfast/env.py")
    return found


def python_files() -> list[tuple[Path, PurePosixPath]]:
    homes = [(ROOT, "flipfast"), (ROOT / "kernels", "flipfast_kernels")]
    return [
        (file, PurePosixPath(file.relative_to(home).as_posix()))
        for home, package in homes
        for file in sorted((home / package).rglob("*.py"))
    ]


def test_the_code_keeps_to_its_layers():
    files = python_files()
    assert len(files) > 5
    found = [line for file, path in files for line in violations(path, file.read_text("utf-8"))]
    assert found == []


def test_only_the_bindings_know_pybind11():
    sources = [*ROOT.glob("csrc/**/*.cc"), *ROOT.glob("csrc/**/*.h")]
    users = {file.name for file in sources if "pybind11/" in file.read_text("utf-8")}
    assert users == {"bindings.cc"}


def test_kernels_folder_is_no_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("flipfast/parsing/robust.py", "from flipfast.reward import FlipReward", "not below"),
        ("flipfast/parsing/robust.py", "from flipfast import FlipReward", "not below"),
        ("flipfast/parsing/robust.py", "import flipfast", "not below"),
        ("flipfast/parsing/robust.py", "def f():\n    import flipfast.metrics", "not below"),
        ("flipfast/prompts/chat.py", "from ..backends import base", "not below"),
        ("flipfast/metrics/bleu.py", "from flipfast.engine.scheduler import x", "not below"),
        ("flipfast/config.py", "from .reward import FlipReward", "not below"),
        ("flipfast/reward.py", "from flipfast import _core", "only"),
        ("flipfast/engine/x.py", "from flipfast import _cpu", "only"),
        ("flipfast/models/x.py", "from flipfast.engine.scheduler import x", "not below"),
        ("flipfast/reward.py", "import os\nos.environ.get('X')", "environment"),
        ("flipfast/reward.py", "from os import getenv", "environment"),
        ("flipfast/newroom/x.py", "", "no layer"),
        ("flipfast_kernels/norm.py", "from flipfast.errors import InputError", "imports flipfast"),
        ("flipfast/reward.py", "from flipfast.parsing import a\nfrom .errors import b", ""),
        ("flipfast/metrics/f1.py", "from flipfast import _core\nfrom .words import x", ""),
        ("flipfast/metrics/f1.py", "from flipfast_kernels.overlap_f1 import x\nimport os", ""),
        ("flipfast/env.py", "import os\nos.environ", ""),
        ("flipfast_kernels/norm.py", "from flipfast_kernels.jit import norm\nimport torch", ""),
    ],
)
def test_the_checker_sees_a_wrong_import(path, source, wrong):
    found = violations(PurePosixPath(path), source)
    assert len(found) == (1 if wrong else 0), found
    assert all(wrong in line for line in found)
