"""How diffusers and transformers are imported, beside whatever else is installed."""

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import transformers
from transformers.utils.import_utils import define_import_structure

from sdcorrect.libraries import UNNEEDED, _Distributions, _structure

pytestmark = pytest.mark.slow

CHURCH = Path(__file__).parents[1] / "sdcorrect" / "assets" / "pictures" / "church.png"


def test_the_models_of_transformers_are_those_that_its_own_search_finds() -> None:
    folder = Path(transformers.__path__[0], "models")
    for package in (folder, folder / "clip"):
        file = str(package / "__init__.py")
        found = {needed: of for needed, of in _structure(define_import_structure, file).items() if of}
        assert found == define_import_structure(file)


def install(folder: Path, package: str, code: str) -> None:
    """A package as an installer leaves it, in `folder`."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(code)
    described = folder / f"{package}-99.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 99.0\n")
    (described / "top_level.txt").write_text(f"{package}\n")


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Python with the packages of `folder`."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_packages_that_few_jobs_need_are_not_imported(tmp_path: Path) -> None:
    for package in UNNEEDED:
        install(tmp_path, package, f"raise SystemExit('{package} is imported')")
    out = tmp_path / "out"
    job = ["translate", str(CHURCH), "-p", "in 3d render style", "-o", str(out), "--steps", "2"]
    found = run(tmp_path, f"from sdcorrect.cli import app; app({job})")
    assert found.returncode == 0, found.stderr
    assert (out / "correct" / "church.png").exists()


@pytest.mark.parametrize("command", [["doctor"], ["evaluate", "out"]])
def test_a_package_that_cannot_be_imported_is_named(command: list[str], tmp_path: Path) -> None:
    install(tmp_path, "accelerate", "import nothing_of_this_name")
    found = run(tmp_path, f"from sdcorrect.cli import app; app({command})")
    assert found.returncode == 1
    assert found.stderr == (
        "error: the package accelerate cannot be imported; repair or uninstall it: "
        "ModuleNotFoundError: No module named 'nothing_of_this_name' (--debug shows where)\n"
    )


def test_a_package_may_import_a_part_of_torchs_compiler(tmp_path: Path) -> None:
    install(tmp_path, "asking", "from torch._dynamo.utils import counters")
    found = run(
        tmp_path,
        """
import sys
from sdcorrect.libraries import lean_imports
with lean_imports():
    stand_in = sys.modules["torch._dynamo"]
    import asking, torch
    from diffusers import UNet2DConditionModel
assert torch._dynamo is not stand_in
assert torch._dynamo.utils.counters is asking.counters
assert "_dynamo" in torch._dynamo.utils.__spec__.origin
""",
    )
    assert (found.returncode, found.stderr) == (0, "")


def test_the_package_is_imported_quietly() -> None:
    """Where transformers is asked for its usual warnings, of which diffusers' imports cause some."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_VERBOSITY")}
    for first in ("import sdcorrect; sdcorrect.load", "from sdcorrect.cli import app; app(['doctor'])"):
        command = [sys.executable, "-c", first]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")


def test_distributions_are_told_when_they_are_asked_for() -> None:
    assert dict(_Distributions()) == packages_distributions()
    assert "torch" in _Distributions() and "no such package" not in _Distributions()
