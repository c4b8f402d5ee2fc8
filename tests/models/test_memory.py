"""The size of SD 1.5 at 512 px fits a small machine."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ONE_CORRECTED_STEP = """
import resource
from PIL import Image
from random_networks import sd15_sized
from sdcorrect.recipes import BUILT_IN
from sdcorrect.translate import Request, Translator

model = sd15_sized()
translator = Translator(model, [BUILT_IN["correct"]], steps=1, strength=1, guidance_scale=7.5)
request = Request(Image.new("RGB", (512, 512), "red"), 0, "a cat")
result = translator([request], variants=["correct"])["correct"]
assert result.evaluations == 3
assert result.pictures[0].size == (512, 512)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_one_corrected_step_at_the_size_of_sd15_takes_less_than_10_gb() -> None:
    run = subprocess.run(
        [sys.executable, "-c", ONE_CORRECTED_STEP],
        env={"PYTHONPATH": str(ROOT / "scripts"), "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert run.returncode == 0, run.stderr
    assert 4e9 < int(run.stdout) < 10e9
