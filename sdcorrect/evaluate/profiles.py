"""The metrics, and their exact definition in each profile (imports no torch)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sdcorrect.errors import UsageError, did_you_mean

Kind = Literal[
    "ssim", "psnr", "mse", "lpips", "structure_distance", "clip_image", "clip_text", "style_accuracy"
]
Region = Literal["whole", "unedited", "edited"]
Against = Literal["source", "truth", "text", "source_text"]

LOWER_IS_BETTER = {"mse", "lpips", "structure_distance"}
#: Kinds that compare two pictures, and so can compare with the truth too.
OF_TWO_PICTURES = {"ssim", "psnr", "mse", "lpips", "structure_distance", "clip_image"}


@dataclass(frozen=True)
class Metric:
    """One column: what is measured, in which region of the picture, and in comparison with what."""

    name: str
    kind: Kind
    definition: str
    region: Region = "whole"
    against: Against = "source"

    @property
    def higher_is_better(self) -> bool:
        return self.kind not in LOWER_IS_BETTER


@dataclass(frozen=True)
class Profile:
    """A named set of definitions. `chosen` are the metrics measured by default."""

    name: str
    metrics: tuple[Metric, ...]
    chosen: tuple[str, ...]
    lpips_net: Literal["alex", "squeeze"] = "alex"
    clip: str | None = None  #: the hub id in the definition; None if it depends on the model
    structure: str | None = None
    clip_score: bool = False  #: text similarity as 100 times the cosine, or 0 if that is negative
    captions: bool = False  #: the text is the style and a caption, not the prompt
    grey: bool = False  #: SSIM of grey pictures, by scikit-image
    raw_structure: bool = False  #: samples from 0 to 255 instead of 0 to 1, without antialiasing


_WHOLE = {
    "ssim": "structural similarity of the RGB pictures in [0, 1], Gaussian window of 11 px",
    "psnr": "peak signal-to-noise ratio in dB, of RGB in [0, 1]",
    "mse": "mean squared error of RGB in [0, 1]",
    "lpips": "learned perceptual distance, AlexNet",
    "structure_distance": (
        "mean squared difference of the keys' cosine self-similarity, last layer of the image tower; "
        "of a convolutional one, of its last feature map of at least 8x8 places"
    ),
    "clip_image": "cosine of the CLIP embeddings of two pictures",
    "clip_text": "cosine of the CLIP embeddings of output and prompt",
    "style_accuracy": "1 where CLIP holds the output nearest to its own prompt among all styles, else 0",
}
_PIXELS: tuple[Kind, ...] = ("ssim", "psnr", "mse", "lpips", "structure_distance")


def _default() -> Profile:
    kinds: tuple[Kind, ...] = ("ssim", "psnr", "lpips", "structure_distance", "clip_image")
    metrics = [Metric(kind, kind, _WHOLE[kind]) for kind in kinds]
    texts: tuple[Kind, ...] = ("clip_text", "style_accuracy")
    metrics += [Metric(kind, kind, _WHOLE[kind], against="text") for kind in texts]
    chosen = ("ssim", "psnr", "structure_distance", "clip_image", "clip_text")
    return Profile("default", tuple(metrics), chosen)


def _paper() -> Profile:
    """Yuan et al. 2025, `metrics_clip_ssim.py` of their code.

    Two oddities there are not adopted: only the corrected outputs are converted to grey with red and
    blue exchanged, and the style is omitted for the outputs of PnP and Prompt-to-Prompt.
    """
    metrics = (
        Metric("clip_image", "clip_image", "cosine of the CLIP embeddings of source and output"),
        Metric(
            "clip_text",
            "clip_text",
            "cosine of the CLIP embeddings of output and text: the style, then the source's caption",
            against="text",
        ),
        Metric(
            "ssim",
            "ssim",
            "structural similarity of the grey pictures, uniform window of 7 px, 8 bits; the output is "
            "resized to the source, which is compared as it was translated",
        ),
    )
    return Profile(
        "paper",
        metrics,
        ("clip_image", "clip_text", "ssim"),
        clip="openai/clip-vit-large-patch14",
        captions=True,
        grey=True,
    )


def _pie_bench() -> Profile:
    """Ju et al. 2024 (PnP Inversion), `evaluation/` of their code: its unedit part is the picture with
    the edit mask blackened, its edit part the picture with everything else blackened."""
    exact = {
        **_WHOLE,
        "lpips": "learned perceptual distance, SqueezeNet",
        "structure_distance": (
            "mean squared difference of the keys' cosine self-similarity, DINO ViT-B/8, layer 11, "
            "shorter side 224 px, samples from 0 to 255"
        ),
    }
    regions: dict[Region, str] = {
        "whole": "",
        "unedited": "; the edit mask is blackened in both",
        "edited": "; all but the edit mask is blackened in both",
    }
    metrics = [
        Metric(kind if region == "whole" else f"{kind}_{region}", kind, exact[kind] + how, region)
        for kind in _PIXELS
        for region, how in regions.items()
    ]
    score = "100 times the cosine of the CLIP embeddings of "
    metrics += [
        Metric(
            "clip_text_source", "clip_text", f"{score}source and source prompt", against="source_text"
        ),
        Metric("clip_text", "clip_text", f"{score}output and prompt", against="text"),
        Metric(
            "clip_text_edited",
            "clip_text",
            f"{score}output and prompt; all but the edit mask is blackened",
            "edited",
            "text",
        ),
    ]
    unedited = tuple(f"{kind}_unedited" for kind in ("psnr", "lpips", "mse", "ssim"))
    return Profile(
        "pie-bench",
        tuple(metrics),
        ("structure_distance", *unedited, "clip_text_source", "clip_text", "clip_text_edited"),
        lpips_net="squeeze",
        clip="openai/clip-vit-large-patch14",
        structure="facebook/dino-vitb8",
        clip_score=True,
        raw_structure=True,
    )


PROFILES = {profile.name: profile for profile in (_default(), _paper(), _pie_bench())}


def profile_of(name: str) -> Profile:
    """The profile of that name. Raises UsageError, with the nearest name, if there is none."""
    if name not in PROFILES:
        raise UsageError(f"--profile {name}: there is no such profile; {did_you_mean(name, PROFILES)}")
    return PROFILES[name]


def choose(
    profile: Profile, names: Sequence[str] | None, *, truth: bool, styles: bool
) -> tuple[Metric, ...]:
    """The metrics to measure: those of `names`, or the profile's default.

    Args:
        truth: whether metrics of two pictures are measured against the truth too.
        styles: whether other styles are given to compare the outputs' own with.

    Raises:
        UsageError: there is no such metric, or it needs styles that are not given.
    """
    known = {metric.name: metric for metric in profile.metrics}
    more = ("style_accuracy",) if styles else ()
    for name in names or ():
        if name not in known:
            raise UsageError(
                f"--metrics {name}: profile {profile.name} has no such metric; "
                + did_you_mean(name, known)
            )
    if styles and "style_accuracy" not in known:
        raise UsageError(f"--other-style: profile {profile.name} has no style_accuracy")
    chosen = [known[name] for name in dict.fromkeys((*(names or profile.chosen), *more))]
    if any(metric.kind == "style_accuracy" for metric in chosen) and not styles:
        raise UsageError(
            "metric style_accuracy compares the outputs' style with others; "
            'give these with --other-style "in flat design style"'
        )
    if truth:
        chosen += [
            Metric(f"{m.name}_truth", m.kind, f"{m.definition}, against the truth", m.region, "truth")
            for m in chosen
            if m.kind in OF_TWO_PICTURES
        ]
    return tuple(chosen)
