"""Options that several commands have: each overrides the job's setting, where it is given."""

from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option("--model", help="mini, a diffusers folder, a .safetensors or .ckpt file, or a hub id."),
]
Strength = Annotated[
    float | None, typer.Option("--strength", help="How far to go from the source, 0 to 1.")
]
Steps = Annotated[int | None, typer.Option("--steps", help="Sampling steps at strength 1.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Another seed, other noise.")]
Size = Annotated[
    int | None, typer.Option("--size", help="The longer side, px.", show_default="the model's own")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="auto, float32, float16, bfloat16.")]
Limit = Annotated[int | None, typer.Option("--limit", help="Only the first so many.")]
