import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "research")]


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    """A script may quiet the package's warnings, which later tests wait for."""
    logger = logging.getLogger("sdcorrect")
    before = logger.level
    yield
    logger.setLevel(before)
