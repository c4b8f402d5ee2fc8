"""How many U-Net evaluations a plan takes, computed in advance."""

from sdcorrect.core.branches import Branches
from sdcorrect.core.plan import Plan, in_window


def evaluations_to_invert(plan: Plan, steps: int) -> int:
    """Evaluations per picture for the inversion, when denoising takes `steps` steps."""
    each = 2 if plan.inversion_guidance != 1 else 1
    match plan.inversion:
        case "one-step":
            return 1
        case "full":
            return (plan.inversion_steps or 0) * plan.inversion_iterations * each
        case "ddpm":
            return steps * each
        case "none":
            return 0


def evaluations_to_denoise(plan: Plan, steps: int, guidance_scale: float) -> int:
    """Evaluations per picture for denoising in `steps` steps: one for each branch of each step."""
    guided = [guidance_scale > 1 and in_window(i, steps, plan.guidance_window) for i in range(steps)]
    branches = [Branches.of_plan(plan, guided=step) for step in guided]
    return sum(len(of_step.donors) for of_step in branches)
