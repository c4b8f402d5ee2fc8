"""What the project keeps beside the code: workflows, forms and the versions that they name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sdcorrect import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "mkdocs.yml"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_of_other_programs_are_yaml_and_name_scripts_that_there_are(file: Path) -> None:
    assert yaml.safe_load(file.read_text())
    for script in re.findall(r"\bscripts/[\w/.-]+\w", file.read_text()):
        assert (ROOT / script).exists(), script


def test_python_is_tested_from_the_first_to_the_last_that_is_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = {line.rpartition(" ")[2] for line in project["classifiers"] if ":: Python :: 3" in line}
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    assert told == set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"])
    assert project["requires-python"] == f">={min(told, key=lambda version: int(version[2:]))}"


def test_a_tag_that_is_not_the_version_is_no_release() -> None:
    command = ["bash", str(ROOT / "scripts" / "check_wheel.sh"), "v0.0.0"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert f"the tag is v0.0.0, and sdcorrect/__init__.py has {__version__}" in result.stderr
