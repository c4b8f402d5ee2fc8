"""What a user chooses to look at: blocks, timesteps and a point of the picture."""

from collections.abc import Sequence

from pydantic import ValidationError

from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.plan import Block
from sdcorrect.errors import UsageError
from sdcorrect.recipes import FIRST, Inject

DRAWN_STEPS = 3  #: of the steps taken, evenly spaced, where the user names none
EVERYWHERE = "0+"


def choose_blocks(spec: str, layout: UNetLayout) -> tuple[Block, ...]:
    """Decoder blocks with attention, as recipes name them, with commas between.

    Raises:
        UsageError: it is no such list, or a block has no attention or is not the decoder's.
    """
    try:
        named = Inject.model_validate({"tensor": "self-attention", "blocks": spec.split(",")})
        blocks = named.resolve(layout).blocks
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"--blocks {spec}: {message}") from None
    except UsageError as error:
        raise UsageError(f"--blocks {spec}: {error}") from None
    for block in blocks:
        if not isinstance(block, int):
            raise UsageError(
                f"--blocks {spec}: {block} is not of the decoder; choose {FIRST}, or numbers"
            )
    return tuple(sorted(blocks, key=int))


def choose_timesteps(asked: Sequence[int], taken: Sequence[int]) -> list[int]:
    """The timesteps that are drawn, of those `taken`; some evenly spaced where none is asked for.

    Raises:
        UsageError: one is not taken.
    """
    if not asked:
        last, drawn = len(taken) - 1, min(DRAWN_STEPS, len(taken))
        return [taken[round(i * last / max(1, drawn - 1))] for i in range(drawn)]
    for t in asked:
        if t not in taken:
            nearest = min(taken, key=lambda other: abs(other - t))
            raise UsageError(
                f"--timesteps: {t} is not among the {len(taken)} that are computed, {taken[0]} to "
                f"{taken[-1]}; the nearest is {nearest}"
            )
    return [t for t in taken if t in asked]


def place_point(text: str, whole: tuple[int, int], kept: tuple[int, int]) -> tuple[float, float]:
    """`x,y` as fractions of what the model sees of a picture.

    Args:
        text: whole numbers are px of the picture, numbers with a point are fractions of it.
        whole: width and height of the picture, px.
        kept: width and height of its middle, px, which the model sees.

    Raises:
        UsageError: it is no point, or not one that the model sees.
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
            f"--point {text}: expected x,y in px, such as 120,80, or in fractions, such as 0.5,0.5"
        ) from None
    edges = [(side - middle) / 2 for side, middle in zip(whole, kept, strict=True)]
    fractions = [(p - edge) / side for p, edge, side in zip((x, y), edges, kept, strict=True)]
    if not all(0 <= fraction <= 1 for fraction in fractions):
        seen = "" if kept == whole else f", of which the model sees the middle {kept[0]}x{kept[1]}"
        raise UsageError(f"--point {text}: lies outside of the picture, {whole[0]}x{whole[1]} px{seen}")
    return fractions[0], fractions[1]
