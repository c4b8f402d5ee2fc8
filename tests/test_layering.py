"""Imports point down, and what answers at once imports no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sdcorrect"
#: From the bottom up: a module imports from its own layer and those below.
LAYERS = [
    {"errors", "libraries", "pages", "paths", "reading"},
    {"core", "plainyaml"},
    {"recipes", "settings"},
    {"sweep"},
    {"config", "models", "origins"},
    {"masking", "matching"},
    {"inputs", "reference", "translate"},
    {"output", "costs", "doctor", "tasks"},
    {"batch", "dissect", "report"},
    {"api", "evaluate"},
    {"cli"},
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def imported(file: Path) -> set[str]:
    """The parts of sdcorrect that `file` imports, wherever in it the import stands."""
    parts = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdcorrect."):
            parts.add(node.module.split(".")[1])
    return parts


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.relative_to(PACKAGE).as_posix()
)
def test_imports_point_down(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own in {"__init__", "__main__"}:
        return
    for part in imported(file):
        assert HEIGHT[part] <= HEIGHT[own], f"{own} imports {part}, which is above it"
        assert part == own or HEIGHT[part] < HEIGHT[own], f"{own} and {part} are of one layer"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["translate", "--help"],
        ["evaluate", "--help"],
        ["schema", "evaluation"],
        ["dissect", "--help"],
        ["validate", "configs/quickstart.yaml"],
        ["recipes"],
    ],
)
def test_what_answers_at_once_imports_no_torch(arguments: list[str]) -> None:
    run_without({"torch"}, arguments)


def test_a_job_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    icon = "sdcorrect/assets/pictures/church.png"
    quick = ["-p", "icon", "--steps", "1", "--strength", "1.0", "--set", "size=32", "--device", "cpu"]
    unneeded = {"torch._dynamo", "scipy", "sympy", "peft", "compel", "cv2"}
    run_without(unneeded, ["translate", icon, "-o", str(tmp_path), *quick])


def run_without(modules: set[str], arguments: list[str]) -> None:
    """Run a command in a process of its own, which must end well without having imported `modules`."""
    script = (
        "import sys\n"
        "from sdcorrect.cli import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"assert not (imported := {modules!r} & sys.modules.keys()), imported\n"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
