"""What is told in place of a library's own search is what it would have found."""

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import transformers
from transformers.utils.import_utils import define_import_structure

from sdcorrect.libraries import _Distributions, _structure

pytestmark = pytest.mark.slow


def test_the_models_of_transformers_are_those_that_its_own_search_finds() -> None:
    folder = Path(transformers.__path__[0], "models")
    for package in (folder, folder / "clip"):
        file = str(package / "__init__.py")
        found = {needed: of for needed, of in _structure(define_import_structure, file).items() if of}
        assert found == define_import_structure(file)


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
