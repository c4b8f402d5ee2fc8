"""The recipes that come with sdcorrect, each with the paper that it follows."""

from typing import Annotated, Any

from pydantic import BeforeValidator

from sdcorrect.core.plan import ALWAYS, MID, Statistics, Window, Words
from sdcorrect.errors import did_you_mean
from sdcorrect.recipes.blocks import FIRST
from sdcorrect.recipes.inject import Inject
from sdcorrect.recipes.recipe import Recipe


def _attention(*blocks: str, window: Window = ALWAYS) -> Inject:
    return Inject(tensor="self-attention", blocks=blocks, window=window)


def _skip(*blocks: str, statistics: Statistics = "source") -> Inject:
    return Inject(tensor="skip", blocks=blocks, statistics=statistics)


_CORRELATIONS = _attention(f"{FIRST}.0", f"{FIRST}.1")
_FEATURES = _skip(f"{FIRST}.1", f"{FIRST}.2")
_FEATURES_ADAIN = _skip(f"{FIRST}.1", f"{FIRST}.2", statistics="own")
_EVERYWHERE = ("encoder", MID, "0+")


def _one_step(name: str, summary: str, inject: tuple[Inject, ...], **settings: Any) -> Recipe:
    return Recipe(name=name, summary=summary, inversion="one-step", inject=inject, **settings)


def _with_fast(name: str, summary: str, inject: tuple[Inject, ...]) -> tuple[Recipe, Recipe]:
    """A correction, and its fast version: UniPC in 5 steps."""
    fast = {"scheduler": "unipc", "solver_steps": 5}
    return (
        _one_step(name, summary, inject),
        _one_step(f"{name}-fast", f"{name} by UniPC in 5 steps", inject, **fast),
    )


def _pnp(name: str, summary: str, inversion_steps: int, **settings: Any) -> Recipe:
    """Tumanyan et al., CVPR 2023, as in the public diffusers version.

    It copies Q and K; softmax(QK^T) of the source's Q and K is the source's self-attention.
    """
    return Recipe(
        name=name,
        summary=summary,
        inversion="full",
        inversion_steps=inversion_steps,
        start="inverted",
        inject=(
            Inject(tensor="resnet", blocks=(f"{FIRST}.1",), window=(0, 0.8)),
            _attention(f"{FIRST}.1+", window=(0, 0.5)),
        ),
        posterior="mean",
        steps=50,
        guidance_scale=7.5,
        negative_prompt="ugly, blurry, black, low res, unrealistic",
        **settings,
    )


#: An inversion in 50 steps under the source prompt, then 50 sampling steps.
_INVERTED: dict[str, Any] = {
    "inversion": "full",
    "inversion_steps": 50,
    "inversion_prompt": "source",
    "start": "inverted",
    "posterior": "mean",
    "steps": 50,
}


def _p2p(name: str, summary: str, words: Words, max_tokens: int = 16 * 16, **settings: Any) -> Recipe:
    """Hertz et al., ICLR 2023: attention is edited in all blocks, in the prompt's branch only."""
    place: dict[str, Any] = {"blocks": _EVERYWHERE, "branches": "cond"}
    inject = (
        Inject(tensor="cross-attention", window=(0, 0.4), **place),
        Inject(tensor="self-attention", window=(0, 0.6), max_tokens=max_tokens, **place),
    )
    return Recipe(name=name, summary=summary, inject=inject, words=words, **_INVERTED, **settings)


def _masactrl(name: str, summary: str, **settings: Any) -> Recipe:
    """Cao et al., ICCV 2023: from step 4 of 50, and from layer 10 of 16 on, which is decoder block 6."""
    inject = (Inject(tensor="key-value", blocks=("second-attention+",), window=(0.08, 1)),)
    settings |= _INVERTED | {"inversion_prompt": "empty"}
    return Recipe(name=name, summary=summary, inject=inject, **settings)


def _along_maps(name: str, summary: str, **settings: Any) -> Recipe:
    """Sampling along the noise maps of the source (Huberman-Spiegelglas et al., CVPR 2024)."""
    settings |= {"inversion": "ddpm", "inversion_prompt": "source", "start": "inverted"}
    return Recipe(name=name, summary=summary, posterior="mean", **settings)


#: Ju et al., ICLR 2024: the source's branch is the inversion's own latents.
_DIRECT: dict[str, Any] = {"source": "inverted", "steps_offset": 0}


_RECIPES = (
    Recipe(name="sdedit", summary="noise, then denoise under the new prompt (the baseline)"),
    *_with_fast(
        "correct",
        "the paper's correction of correlations and features (its preset 'all')",
        (_CORRELATIONS, _FEATURES),
    ),
    *_with_fast(
        "correct-adain",
        "correct, with features rescaled to the mean and deviation of those they replace",
        (_CORRELATIONS, _FEATURES_ADAIN),
    ),
    *_with_fast(
        "correct-wide",
        "queries of the clean picture in all self-attention; no features",
        (Inject(tensor="query", blocks=_EVERYWHERE),),
    ),
    _one_step(
        "correct-attention",
        "correlations only, over the whole first attention level",
        (_attention(FIRST),),
    ),
    _one_step("correct-features", "features only (the paper's preset 'only spatial')", (_FEATURES,)),
    _one_step(
        "correct-attention-last-feature",
        "correlations of the whole level and the features of its last block",
        (_attention(FIRST), _skip(f"{FIRST}.2")),
    ),
    _one_step(
        "correct-attention-5-7", "ablation: correlations at blocks 5 to 7", (_attention("5", "6", "7"),)
    ),
    _one_step(
        "correct-attention-7-9", "ablation: correlations at blocks 7 to 9", (_attention("7", "8", "9"),)
    ),
    Recipe(
        name="ddim",
        summary="DDIM inversion, then sampling from the inverted latents in as many steps",
        inversion="full",
        start="inverted",
    ),
    _pnp("pnp", "Plug-and-Play: features and attention of a 999-step inversion", 999),
    _pnp("pnp-50", "Plug-and-Play with a 50-step inversion", 50),
    _pnp(
        "pnp-direct",
        "Plug-and-Play with an inversion under the source prompt",
        50,
        inversion_prompt="source",
        source_branch_prompt="empty",
    ),
    _p2p("p2p", "Prompt-to-Prompt: words replaced one for one", "replace", source="sampled"),
    _p2p("p2p-refine", "Prompt-to-Prompt: words added to the prompt", "refine", source="sampled"),
    _p2p(
        "p2p-reweight",
        "Prompt-to-Prompt: words given more or less weight (needs equalizer)",
        "reweight",
        source="sampled",
    ),
    _p2p("p2p-direct", "p2p with the inversion's latents as source", "replace", 32 * 32, **_DIRECT),
    _p2p(
        "p2p-direct-refine",
        "p2p-refine with the inversion's latents as source",
        "refine",
        32 * 32,
        **_DIRECT,
    ),
    _p2p(
        "p2p-direct-both",
        "p2p-direct with the target corrected like the source",
        "replace",
        32 * 32,
        **_DIRECT | {"source": "corrected"},
    ),
    _p2p(
        "p2p-npi",
        "p2p-refine from a negative-prompt inversion",
        "refine",
        32 * 32,
        source="sampled",
        steps_offset=0,
        unconditional="source",
    ),
    _masactrl(
        "masactrl", "MasaCtrl: the target's queries on the source's keys and values", source="sampled"
    ),
    _masactrl("masactrl-direct", "masactrl with the inversion's latents as source", **_DIRECT),
    Recipe(
        name="npi",
        summary="negative-prompt inversion: guidance away from the source prompt",
        unconditional="source",
        **_INVERTED,
    ),
    Recipe(
        name="renoise",
        summary="ReNoise: DDIM inversion, each step iterated to a fixed point and averaged",
        inversion_iterations=10,
        inversion_average=(8, 10),
        **{**_INVERTED, "posterior": "sample"},
    ),
    Recipe(
        name="infedit",
        summary="InfEdit: virtual inversion; each step goes to the clean picture, noised again",
        source="noised",
        step_to="clean",
    ),
    Recipe(
        name="cyclediffusion",
        summary="CycleDiffusion: the noise with which DDIM would reproduce the source",
        source="noised",
        eta=0.1,
        noise="posterior",
    ),
    Recipe(
        name="flowedit",
        summary="FlowEdit for noise-predicting models: steps by the difference of predictions",
        source="noised",
        source_guidance=3.5,
        posterior="mean",
        steps=50,
        strength=0.66,
        guidance_scale=13.5,
    ),
    _along_maps(
        "edit-friendly",
        "edit-friendly DDPM inversion: sampling with the source's noise maps",
        inversion_guidance=3.5,
        steps=100,
        strength=0.64,
        guidance_scale=15.0,
    ),
    _along_maps(
        "leditspp",
        "LEDITS++: noise maps of a faster solver, guidance only where it is strong",
        # diffusers' pipeline guides by 3.5 with the two texts exchanged: 1 - 3.5
        inversion_guidance=-2.5,
        last_map=False,
        guidance_threshold=0.9,
        scheduler="sde-dpm++",
        steps=34,
        strength=0.883,
        guidance_scale=5.0,
    ),
    _along_maps(
        "turboedit",
        "TurboEdit: shifted noise maps in 4 steps (Turbo models)",
        noise_shift=1,
        last_map_norm=15.5,
        unconditional="source",
        model="turbo",
        steps=5,
        strength=0.8,
        guidance_scale=1.5,
    ),
)
BUILT_IN: dict[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}
#: The names that the authors' code gives to its presets.
ALIASES = {"all": "correct", "only-spatial": "correct-features"}


def built_in(name: str) -> Recipe:
    """The built-in recipe of that name or alias.

    Raises:
        ValueError: there is none; the message suggests the nearest name.
    """
    recipe = BUILT_IN.get(ALIASES.get(name, name))
    if recipe is None:
        hint = did_you_mean(name, [*BUILT_IN, *ALIASES], "see `sdcorrect recipes`")
        raise ValueError(f"there is no recipe {name!r}; {hint}")
    return recipe


def _by_name(value: Any) -> Any:
    return built_in(value) if isinstance(value, str) else value


#: In a job: a recipe's name, or a recipe in full.
RecipeField = Annotated[Recipe, BeforeValidator(_by_name)]
