"""What to show: the blocks, timesteps and point that a user chooses."""

from collections.abc import Sequence

from pydantic import ValidationError

from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.plan import Block
from sdcorrect.errors import UsageError, of_pydantic
from sdcorrect.recipes import Inject
from sdcorrect.recipes.blocks import FIRST

DRAWN_STEPS = 3  #: how many evenly spaced steps are drawn by default
EVERYWHERE = "0+"


def choose_blocks(spec: str, layout: UNetLayout) -> tuple[Block, ...]:
    """Parse a comma-separated list of decoder blocks with attention, named as in recipes.

    Raises:
        UsageError: it is not such a list, or a block has no attention or is not in the decoder.
    """
    try:
        named = Inject.model_validate({"tensor": "self-attention", "blocks": spec.split(",")})
        blocks = named.resolve(layout).blocks
    except ValidationError as error:
        message = of_pydantic(error.errors()[0]["msg"])
        raise UsageError(f"--blocks {spec}: {message}") from None
    except UsageError as error:
        raise UsageError(f"--blocks {spec}: {error}") from None
    for block in blocks:
        if not isinstance(block, int):
            raise UsageError(
                f"--blocks {spec}: {block} is not in the decoder; choose {FIRST}, or numbers"
            )
    return tuple(sorted(blocks, key=int))


def choose_timesteps(asked: Sequence[int], taken: Sequence[int]) -> list[int]:
    """The timesteps to draw, out of those `taken`; evenly spaced ones if none are asked for.

    Raises:
        UsageError: a timestep is not among those taken.
    """
    if not asked:
        last, drawn = len(taken) - 1, min(DRAWN_STEPS, len(taken))
        return [taken[round(i * last / max(1, drawn - 1))] for i in range(drawn)]
    for t in asked:
        if t not in taken:
            nearest = min(taken, key=lambda other: abs(other - t))
            raise UsageError(
                f"--timesteps: {t} is not among the {len(taken)} timesteps that are run, {taken[0]} to "
                f"{taken[-1]}; the nearest is {nearest}"
            )
    return [t for t in taken if t in asked]


def place_point(text: str, whole: tuple[int, int], kept: tuple[int, int]) -> tuple[float, float]:
    """Parse `x,y`, and return it as fractions of the part of the picture that the model sees.

    Args:
        text: whole numbers are px of the picture, numbers with a decimal point are fractions of it.
        whole: width and height of the picture, px.
        kept: width and height of its centre that the model sees, px.

    Raises:
        UsageError: it is not a point, or lies outside the part that the model sees.
    """
    parts = [part.strip() for part in text.split(",")]
    try:
        if len(parts) != 2:
            raise ValueError
        if any("." in part for part in parts):
            x, y = (float(part) * side for part, side in zip(parts, whole, strict=True))
        else:
            x, y = (int(part) + 0.5 for part in parts)
    except ValueError:
        raise UsageError(
            f"--point {text}: expected x,y in pixels, such as 120,80, or fractions, such as 0.5,0.5"
        ) from None
    edges = [(side - middle) / 2 for side, middle in zip(whole, kept, strict=True)]
    fractions = [(p - edge) / side for p, edge, side in zip((x, y), edges, kept, strict=True)]
    if not all(0 <= fraction <= 1 for fraction in fractions):
        seen = "" if kept == whole else f", of which the model sees the central {kept[0]}x{kept[1]}"
        raise UsageError(f"--point {text}: lies outside the picture of {whole[0]}x{whole[1]} px{seen}")
    return fractions[0], fractions[1]
