import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "train_mini"))


@pytest.fixture(autouse=True)
def _training() -> Iterator[None]:
    with torch.inference_mode(False):
        yield
