"""The kinds of values that the keys of a recipe take."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from sdcorrect.core.plan import Window

LONGEST_NAME = 200
#: Other files and folders in an output folder; no recipe may have their names.
OTHERS_IN_OUT = {
    *("records", "job.json", "report", "report.html", "evaluation.csv", "evaluation.json"),
    *("frontier.json", "frontier.png"),
}


class Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def _check_name(name: str) -> str:
    if name.casefold() in OTHERS_IN_OUT:
        raise ValueError(f"the output folder uses the name {name!r} itself; choose another")
    return name


def _check_window(window: Window) -> Window:
    if not 0 <= window[0] < window[1] <= 1:
        raise ValueError("a window is two fractions of the steps, 0 <= first < last <= 1")
    return window


#: A recipe's name, which is also that of the folder for its pictures.
RecipeName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME),
    AfterValidator(_check_name),
]
#: Part of the steps that are run, as two fractions.
WindowField = Annotated[tuple[StrictFloat, StrictFloat], AfterValidator(_check_window)]
Timestep = Annotated[StrictInt, Field(ge=0, le=999)]
#: How the VAE's posterior becomes latents: by sampling it, or by its mean.
Posterior = Literal["sample", "mean"]
