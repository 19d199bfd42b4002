"""Imports go one way: each room of the package uses only rooms of the layers below its own."""

import ast
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the bottom up. A room is a module or a folder of flipfast/; those of one layer do not know
# each other. A new room needs a place here.
LAYERS = [
    {"_core", "_cpu", "errors"},
    {"checks", "env", "progress"},
    {"config", "metrics", "parsing", "prompts", "scores"},
    {"watchers"},
    {"engine"},
    {"backends"},
    {"scoring"},
    {"reward"},
    {"rows"},
    {"client", "profiling", "quality", "training"},
    {"serving"},
    {"trainers"},
    {"cli"},
    {"__init__", "__main__"},
]
# The same inside the large ones.
WINGS = {
    "engine": [
        {"attention", "counters", "fair_lock", "kv_cache", "ops", "options", "sampling"},
        {"models", "sequence", "step_costs"},
        {"prefix_cache", "step_plan"},
        {"transfer", "scheduler", "warm_up"},
        {"batch"},
        {"step_shapes"},
        {"cuda_graphs", "drafting", "keep", "sampler"},
        {"model_runner"},
        {"step_loop"},
        {"engine"},
        {"lifecycle"},
        {"loading"},
    ],
    "scoring": [
        {"async_scoring", "background", "copying", "device_scoring", "ensemble", "samples"},
        {"assembly", "defences", "reading", "running", "shaping"},
        {"batches", "best_of", "likelihood"},
        {"generation"},
        {"streaming"},
    ],
    "quality": [
        {"agreement", "explain", "option_text"},
        {"raters"},
        {"attacks", "consistency", "evaluation"},
    ],
}
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
LEVEL_INSIDE = {
    wing: {room: level for level, rooms in enumerate(layers) for room in rooms}
    for wing, layers in WINGS.items()
}
# Imports against the layers: inside a function, with the reason in a comment there.
LAZY = {("flipfast/scoring/ensemble.py", "flipfast.reward.FlipReward")}
# The rooms that may call the C++ modules.
NATIVE_USERS = {"_core": {"engine", "metrics", "parsing", "watchers"}, "_cpu": {"engine"}}


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
        if other is None or (path.as_posix(), name) in LAZY:
            continue
        if other == room:
            found += violations_inside(room, path, name)
        elif other not in LEVEL or LEVEL[other] >= LEVEL[room]:
            found.append(f"{path} imports {name}, which is not below it")
        elif room not in NATIVE_USERS.get(other, {room}):
            found.append(f"{path} imports {name}, which only {sorted(NATIVE_USERS[other])} may")
    if room != "env" and reads_environment(tree):
        found.append(f"{path} reads the environment: that belongs in flipfast/env.py")
    return found


def violations_inside(wing: str, path: PurePosixPath, name: str) -> list[str]:
    """What is wrong with an import of a wing's file from the same wing."""
    level = LEVEL_INSIDE.get(wing)
    room = path.parts[2].removesuffix(".py") if len(path.parts) > 2 else "__init__"
    other = name.split(".")[2] if name.count(".") > 1 else "__init__"
    if level is None or room == other or room == "__init__":
        return []
    if room not in level:
        return [f"{path} is in no layer: give the room {room!r} a place in WINGS"]
    if other not in level or level[other] >= level[room]:
        return [f"{path} imports {name}, which is not below it"]
    return []


def python_files() -> list[tuple[Path, PurePosixPath]]:
    homes = [(ROOT, "flipfast"), (ROOT / "kernels", "flipfast_kernels")]
    return [
        (file, PurePosixPath(file.relative_to(home).as_posix()))
        for home, package in homes
        for file in sorted((home / package).rglob("*.py"))
    ]


@pytest.mark.slow
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
        ("flipfast/reward.py", "import flipfast._core as _core", "only"),
        ("flipfast/metrics/x.py", "from flipfast._cpu import threads", "only"),
        ("flipfast/engine/models/x.py", "from flipfast.engine.scheduler import x", "not below"),
        ("flipfast/engine/newroom.py", "from flipfast.engine.options import x", "no layer"),
        ("flipfast/scoring/samples.py", "from flipfast.scoring.reading import x", "not below"),
        ("flipfast/scoring/samples.py", "from flipfast.reward import FlipReward", "not below"),
        ("flipfast/quality/attacks/x.py", "import flipfast.quality.evaluation.run", "not below"),
        ("flipfast/reward.py", "import os\nos.environ.get('X')", "environment"),
        ("flipfast/reward.py", "from os import getenv", "environment"),
        ("flipfast/newroom/x.py", "", "no layer"),
        ("flipfast_kernels/norm.py", "from flipfast.errors import InputError", "imports flipfast"),
        ("flipfast/reward.py", "from flipfast.parsing import a\nfrom .errors import b", ""),
        ("flipfast/metrics/f1.py", "import flipfast._core as c\nfrom .words import x", ""),
        ("flipfast/scoring/reading.py", "from flipfast.scoring.samples import Sample", ""),
        ("flipfast/metrics/f1.py", "from flipfast_kernels.overlap_f1 import x\nimport os", ""),
        ("flipfast/env.py", "import os\nos.environ", ""),
        ("flipfast_kernels/norm.py", "from flipfast_kernels.jit import norm\nimport torch", ""),
    ],
)
def test_the_checker_sees_a_wrong_import(path, source, wrong):
    found = violations(PurePosixPath(path), source)
    assert len(found) == (1 if wrong else 0), found
    assert all(wrong in line for line in found)
