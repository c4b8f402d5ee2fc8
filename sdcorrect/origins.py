"""The sources of the built-in recipes, their costs and their groups (imports no torch)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sdcorrect.core.plan import effective_steps
from sdcorrect.recipes import BUILT_IN, Recipe

#: The settings for which costs are listed, unless a recipe sets its own: the job's defaults.
STEPS, STRENGTH, GUIDANCE_SCALE = 20, 0.8, 7.5


@dataclass(frozen=True)
class Origin:
    """Recipes of one method."""

    names: tuple[str, ...]
    paper: str
    code: str  #: the implementation that the recipe follows
    checked: str  #: what the tests compare it with


ORIGINS = (
    Origin(
        ("sdedit",),
        "Meng et al., ICLR 2022",
        "diffusers, StableDiffusionImg2ImgPipeline",
        "against that pipeline: latents within 1e-4",
    ),
    Origin(
        tuple(
            name
            for name in BUILT_IN
            if name.startswith("correct") and "adain" not in name and "wide" not in name
        ),
        "Yuan et al., JAS 2025",
        "the authors' sampler and its presets",
        "against latents of that sampler: within 1e-4",
    ),
    Origin(
        tuple(name for name in BUILT_IN if "adain" in name or "wide" in name),
        "none: this project's own, beyond the paper",
        "no other code",
        "only against the other recipes, in docs/beyond-the-paper.md",
    ),
    Origin(
        ("infedit",),
        "Xu et al., CVPR 2024",
        "sled-group/InfEdit, pipeline_ead.py, without attention control",
        "against its sampler's equations: latents within 1e-4",
    ),
    Origin(
        ("cyclediffusion",),
        "Wu and De la Torre, ICCV 2023",
        "ChenWu98/cycle-diffusion; diffusers, CycleDiffusionPipeline",
        "against that pipeline: latents within 1e-4",
    ),
    Origin(
        ("flowedit",),
        "Kulikov et al., ICCV 2025",
        "fallenshock/FlowEdit, SD3_exp.yaml, for models that predict noise",
        "by an identity: equal prompts change nothing",
    ),
    Origin(
        ("edit-friendly",),
        "Huberman-Spiegelglas et al., CVPR 2024",
        "inbarhub/DDPM_inversion, main_run.py, but with the last map",
        "against its equations: within 1e-4 with last_map: false",
    ),
    Origin(
        ("leditspp",),
        "Brack et al., CVPR 2024",
        "diffusers, LEditsPPPipelineStableDiffusion, use_intersect_mask: false",
        "against that pipeline: latents within 1e-4",
    ),
    Origin(
        ("turboedit",),
        "Deutch et al., SIGGRAPH Asia 2024",
        "GiilDe/turbo-edit, noise_shift_steps_4.yaml",
        "against its equations: latents within 1e-4",
    ),
    Origin(
        ("ddim",),
        "Song et al., ICLR 2021",
        "diffusers, DDIMInverseScheduler",
        "by a property: more steps reconstruct better",
    ),
    Origin(
        ("pnp", "pnp-50"),
        "Tumanyan et al., CVPR 2023",
        "MichalGeyer/pnp-diffusers, preprocess.py and pnp.py",
        "against latents of that code: within 1e-4 (pnp-50)",
    ),
    Origin(
        ("masactrl",),
        "Cao et al., ICCV 2023",
        "TencentARC/MasaCtrl, playground_real.ipynb",
        "against latents of that code: within 1e-4",
    ),
    Origin(
        ("p2p", "p2p-refine", "p2p-reweight"),
        "Hertz et al., ICLR 2023",
        "google/prompt-to-prompt, with a DDIM inversion",
        "against latents of cure-lab/PnPInversion: within 1e-4",
    ),
    Origin(
        ("masactrl-direct", "pnp-direct", "p2p-direct", "p2p-direct-refine"),
        "Ju et al., ICLR 2024",
        "cure-lab/PnPInversion, run_editing_*.py (directinversion+...)",
        "by an identity: the source is reproduced exactly",
    ),
    Origin(
        ("p2p-direct-both",),
        "Ju et al., ICLR 2024, ablation",
        "cure-lab/PnPInversion, ablation_directinversion_add-source+p2p",
        "by an identity: with equal prompts the source comes back exactly",
    ),
    Origin(
        ("npi", "p2p-npi"),
        "Miyake et al., 2023",
        "cure-lab/PnPInversion, negative-prompt-inversion+p2p",
        "by an identity: the source's own prompt gets no guidance",
    ),
    Origin(
        ("renoise",),
        "Garibi et al., ECCV 2024; Pan et al. (AIDI), ICCV 2023",
        "garibida/ReNoise-Inversion, config.py, without regularization",
        "by a property: more iterations reconstruct better",
    ),
)


@dataclass(frozen=True)
class Group:
    """Recipes with the same needs."""

    needs: str
    recipes: tuple[Recipe, ...]


def grouped() -> list[Group]:
    """The built-in recipes by what they need, the cheapest kind first."""
    kinds: dict[str, Callable[[Recipe], bool]] = {
        "Only the prompt": lambda r: r.inversion == "none" and not r.needs_source_prompt,
        "One evaluation on the clean picture": lambda r: r.inversion == "one-step",
        "A source prompt; no inversion": lambda r: r.source == "noised",
        "A source prompt; noise maps": lambda r: r.inversion == "ddpm",
        "A full inversion": lambda r: r.inversion == "full" and not r.needs_source_prompt,
        "A full inversion and a source prompt": lambda r: (
            r.inversion == "full" and r.needs_source_prompt
        ),
    }
    return [
        Group(needs, tuple(recipe for recipe in BUILT_IN.values() if of_kind(recipe)))
        for needs, of_kind in kinds.items()
    ]


def by_origin(recipes: Sequence[Recipe]) -> Iterator[tuple[Origin, list[Recipe]]]:
    """`recipes` by method, in the order of the methods."""
    for origin in ORIGINS:
        if of_origin := [recipe for recipe in recipes if recipe.name in origin.names]:
            yield origin, of_origin


def evaluations(recipe: Recipe) -> int:
    """U-Net evaluations per picture, at the job's defaults unless the recipe sets its own."""
    steps = recipe.steps or STEPS
    fully = recipe.inversion == "full" and recipe.start == "inverted"
    taken = recipe.solver_steps or effective_steps(steps, 1 if fully else recipe.strength or STRENGTH)
    inverting = 1 if recipe.inversion_guidance == 1 else 2
    found = {
        "none": 0,
        "one-step": 1,
        "full": (recipe.inversion_steps or steps) * recipe.inversion_iterations * inverting,
        "ddpm": taken * inverting,
    }
    scale = GUIDANCE_SCALE if recipe.guidance_scale is None else recipe.guidance_scale
    target = 2 if scale > 1 else 1
    beside = {
        "noised": 1 if recipe.source_guidance == 1 else 2,
        "sampled": target if recipe.inject else 0,
        "corrected": target,
        "inverted": 1 if recipe.inject and recipe.inversion == "full" else 0,
    }
    return found[recipe.inversion] + taken * (target + beside[recipe.source])
