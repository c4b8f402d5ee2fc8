"""How many U-Net evaluations a plan takes, known before the first of them."""

from sdcorrect.core.branches import Branches
from sdcorrect.core.plan import Plan, in_window


def evaluations_to_invert(plan: Plan, steps: int) -> int:
    """Of a picture; noise maps are found over the `steps` that are taken, a full inversion has its own."""
    each = 2 if plan.inversion_guidance != 1 else 1
    match plan.inversion:
        case "one-step":
            return 1
        case "full":
            return (plan.inversion_steps or steps) * plan.inversion_iterations * each
        case "ddpm":
            return steps * each
        case "none":
            return 0


def evaluations_to_denoise(plan: Plan, steps: int, guidance_scale: float) -> int:
    """Of a picture, in `steps` steps: a row for each branch, as `denoise` has them."""
    guided = [guidance_scale > 1 and in_window(i, steps, plan.guidance_window) for i in range(steps)]
    source_guided = plan.source_guidance not in (None, 1)
    branches = [Branches.of(plan.beside, guided=g, source_guided=source_guided) for g in guided]
    return sum(len(of_step.donors) for of_step in branches)
