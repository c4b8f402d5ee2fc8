"""The settings of a job."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from sdcorrect.config.rules import complaints
from sdcorrect.config.templates import Template, placeholders
from sdcorrect.core.plan import SchedulerName, effective_steps
from sdcorrect.recipes import Recipe, built_in
from sdcorrect.recipes.built_in import RecipeField
from sdcorrect.settings import FilledIn, ModelSettings, Settings, Source
from sdcorrect.sweep import Swept, Variant, several, variants_of

#: PIE-Bench's mapping file, and the lists of Wild-TI2I and ImageNet-R-TI2I.
BENCHMARK_SUFFIXES = {".json", ".yaml", ".yml"}
LIST_SUFFIXES = {".txt", ".csv", ".jsonl", *BENCHMARK_SUFFIXES}
MOST_PIXELS = 178_956_970  #: the largest picture that Pillow itself agrees to open


def _one_text(words: Any) -> Any:
    is_list = isinstance(words, list | tuple) and all(isinstance(word, str) for word in words)
    return " ".join(words) if is_list else words


#: What an output can keep of its source's file.
Keep = Literal["exif", "profile"]
FilePath = Annotated[Path, FilledIn]


class Input(Settings):
    """The pictures to translate: a folder, a file, a glob pattern, or a list (.txt, .csv, .jsonl; for
    benchmarks .json, .yaml)."""

    path: FilePath
    """a folder, a picture, a pattern such as '**/*.jpg', or a list: .txt, .csv or .jsonl"""
    recursive: StrictBool = True
    """include subfolders"""
    captions: FilePath | None = None
    """COCO captions (.json) for {caption}; by default, the .txt file beside each picture"""
    classes: FilePath | None = None
    """names for {class} by folder: lines such as `n01440764 tench, Tinca tinca`, .csv, .json or .yaml"""
    min_side: Annotated[StrictInt, Field(ge=1)] | None = None
    """leave out pictures whose shorter side is below this, in px"""
    max_side: Annotated[StrictInt, Field(ge=1)] | None = None
    """leave out pictures whose longer side is above this, in px"""
    max_aspect: Annotated[StrictFloat, Field(ge=1)] | None = None
    """leave out pictures whose aspect ratio (longer side / shorter side) is above this"""
    max_pixels: Annotated[StrictInt, Field(ge=1, le=MOST_PIXELS)] = 64_000_000
    """refuse to read pictures with more pixels; they are recorded as failed"""

    @property
    def is_list(self) -> bool:
        """Whether `path` is a list, which can give each picture its own prompts."""
        return self.path.suffix.lower() in LIST_SUFFIXES


class Output(Settings):
    """Where pictures are saved, and in which format."""

    path: FilePath
    """the output folder"""
    format: Literal["png", "jpg", "webp"] = "png"
    """image format"""
    png_compression: Literal["fast"] | Annotated[StrictInt, Field(ge=0, le=9)] = "fast"
    """zlib's level, 0 to 9, or fast: half the time of level 6 for hardly larger files"""
    embed_metadata: StrictBool = True
    """save prompt and settings in each picture, as the `parameters` that web UIs read"""
    keep: tuple[Keep, ...] = ()
    """what each output keeps of its source: exif, and profile (its colours are converted to it)"""


class Job(ModelSettings):
    """A translation job: which pictures, which prompt, which method and model, which output folder."""

    input: Input
    """the pictures to translate; see the keys of `input`"""
    output: Output
    """where the results are saved; see the keys of `output`"""
    prompt: Template = Field("", validate_default=True)
    """what the pictures should become; {caption}, {class}, {stem} and {parameters} are filled in"""
    negative_prompt: Template = ""
    """what the pictures should not become, with the same placeholders as in prompt"""
    source_prompt: Template | None = None
    """what the pictures show, for recipes that need it, such as p2p"""
    equalizer: dict[str, Annotated[StrictFloat, Field(ge=0)]] = Field(default_factory=dict)
    """weights for words of the prompt in p2p-reweight, such as {snowy: 2}"""
    mask: Source | None = None
    """where to edit: a folder of masks (white is edited), PIE-Bench's mapping file, alpha, or words"""
    mask_words: Annotated[Template, BeforeValidator(_one_text)] | None = None
    """with mask: words, the words of source_prompt (or prompt) whose attention becomes the mask"""
    mask_threshold: Annotated[StrictFloat, Field(gt=0, lt=1)] = 0.5
    """with mask: words, the attention that counts as inside, from 0 (picture's least) to 1 (its most)"""
    mask_feather: Annotated[StrictFloat, Field(ge=0, le=1024)] = 0.0
    """width in px over which the edit fades in, inwards from the mask's edge"""
    invert_mask: StrictBool = False
    """edit outside the mask instead of inside"""
    method: RecipeField = Field(default_factory=lambda: built_in("correct"))
    """the name of a recipe, or a recipe of your own"""
    variants: tuple[RecipeField, ...] = ()
    """several recipes to compare, instead of method; they share encoding and inversion"""
    strength: Swept[Annotated[StrictFloat, Field(gt=0, le=1)]] = 0.8
    """how far to go from the source; a list makes a sweep, with a folder for each strength"""
    steps: Annotated[StrictInt, Field(ge=1, le=999)] = 20
    """sampling steps at strength 1; at strength 0.8, 16 of 20 are run"""
    guidance_scale: Annotated[StrictFloat, Field(ge=0)] = 7.5
    """scale of classifier-free guidance; 1 or less turns guidance off"""
    scheduler: SchedulerName = "ddim"
    """the sampler"""
    steps_offset: Literal[0, 1] = 1
    """added to every timestep: 1 as in the paper, 0 as in PnPInversion's Prompt-to-Prompt, MasaCtrl"""
    seed: Swept[Annotated[StrictInt, Field(ge=0, lt=2**63)]] = 0
    """random seed; each picture's noise is drawn from it and the picture's content; a list sweeps"""
    size: Annotated[StrictInt, Field(ge=8, le=16_384)] | None = None
    """longer side in px, by default what the model was trained on; SD takes multiples of 64"""
    resize: Literal["fit", "crop", "none"] = "fit"
    """fit: scale the longer side to `size`; crop: take a square from the centre; none: keep the size"""
    background: Literal["white", "transparent"] = "white"
    """white behind transparent sources; or transparent: outputs get their source's alpha channel"""
    match_colors: Literal["source"] | None = None
    """source: give each picture the colours of its source, by matching the histogram of each channel"""
    batch_size: Literal["auto"] | Annotated[StrictInt, Field(ge=1)] = 1
    """pictures per batch; auto: as many as fit in memory, found once per job"""
    limit: Annotated[StrictInt, Field(ge=1)] | None = None
    """process only the first N pictures"""
    spill: FilePath | None = None
    """a folder to keep the latents of full inversions in; by default, they stay in memory"""

    @field_validator("prompt")
    @classmethod
    def _is_given(cls, prompt: str, info: ValidationInfo) -> str:
        """A list may do without a prompt, because it can give each picture its own."""
        given: Input | None = info.data.get("input")
        if not prompt and (given is None or not given.is_list):
            raise ValueError('is missing; give -p "...", or `prompt: ...` in the job')
        return prompt

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if complaint := next(complaints(self), None):
            raise ValueError(complaint)
        return self

    @property
    def has_placeholders(self) -> bool:
        """Whether the prompts differ from picture to picture."""
        return bool(placeholders(self.prompt) | placeholders(self.source_prompt or ""))

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipes to run: `variants` where given, else `method` alone."""
        return self.variants or (self.method,)

    @property
    def expanded(self) -> tuple[Variant, ...]:
        """The variants, each with its own folder: the recipes, in a sweep at each strength and seed."""
        return variants_of(self.recipes, self.strength, self.seed)

    @property
    def sweeps(self) -> bool:
        """Whether strength or seed is a list."""
        return isinstance(self.strength, tuple) or isinstance(self.seed, tuple)

    @property
    def strengths(self) -> tuple[float, ...]:
        return several(self.strength)

    @property
    def seeds(self) -> tuple[int, ...]:
        return several(self.seed)

    @property
    def effective_steps(self) -> int:
        """The steps that are run at the highest strength."""
        return effective_steps(self.steps, max(self.strengths))
