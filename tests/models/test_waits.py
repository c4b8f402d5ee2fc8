"""A device computes while the host runs ahead: nothing is read back from it but the pictures."""

from collections.abc import Iterator

import pytest
import torch
from accelerator import ACCELERATOR, accelerator, traffic
from PIL import Image

from sdcorrect.core.plan import SchedulerName
from sdcorrect.models import Model, load
from sdcorrect.models.machine import place_on_device
from sdcorrect.recipes import BUILT_IN
from sdcorrect.settings import ModelSettings
from sdcorrect.translate import Request, Translator


@pytest.fixture(scope="module")
def there() -> Iterator[Model]:
    """The embedded model on a device of its own."""
    with torch.inference_mode():
        model = load(ModelSettings(device="cpu"))
    with torch.inference_mode(), accelerator():
        place_on_device(model.pipe, None, ModelSettings(), ACCELERATOR)
        model.device = ACCELERATOR
        yield model


def translate(
    model: Model, image: Image.Image, name: str, scheduler: SchedulerName = "ddim", steps: int = 3
) -> bytes:
    own = {"steps": None, "inversion_steps": None, "scheduler": None, "solver_steps": None}
    recipe = BUILT_IN[name].model_copy(update=own)
    translator = Translator(
        model, [recipe], steps=steps, strength=1, guidance_scale=5, scheduler=scheduler
    )
    asked = Request(image, 1, "an icon in 3d", "blurry", "an icon in 2d")
    result = translator([asked], variants=[name])
    [picture] = result[name].pictures
    assert picture is not None
    return picture.tobytes()


SLOW = [
    ("correct", "ddim"),
    ("correct", "dpm++"),
    ("pnp-50", "ddim"),
    ("p2p", "ddim"),
    ("masactrl", "ddim"),
]


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [("correct", "unipc"), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)],
)
def test_the_host_waits_once_a_batch_and_sends_no_more_for_more_steps(
    there: Model, model: Model, icon: Image.Image, name: str, scheduler: SchedulerName
) -> None:
    small, sent = icon.resize((32, 32)), []
    translate(there, small, name, scheduler, 3)  # prompts are kept from the first time on
    for steps in (3, 5):
        with traffic() as seen:
            ours = translate(there, small, name, scheduler, steps)
        assert sum(seen.waits.values()) == 1, seen.waits
        sent.append(seen.sent)
    assert sent[0] == sent[1]
    assert ours == translate(model, small, name, scheduler, 5)
    # which recipe came before does not move the schedule, so it cannot round otherwise after it
    assert there.scheduler.alphas_cumprod.device.type == "cpu"
