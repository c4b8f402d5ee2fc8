import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    """A script may quiet the package's warnings, which later tests wait for."""
    logger = logging.getLogger("sdcorrect")
    before = logger.level
    yield
    logger.setLevel(before)
