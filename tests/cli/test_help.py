"""Help as a person reads it in 80 columns, and flags that are called alike in every command."""

from collections.abc import Callable
from pathlib import Path

import click
import pytest
import typer
from click.testing import Result

from sdcorrect.cli import app

Run = Callable[..., Result]
GROUP = typer.main.get_command(app)
PICTURE = Path(__file__).parents[2] / "sdcorrect" / "assets" / "pictures" / "church.png"
EVERYDAY = {
    *("--prompt", "--negative-prompt", "--guidance-scale", "--strength", "--steps", "--seed", "--size"),
    *("--limit", "--model", "--lora", "--vae", "--controlnet", "--device", "--dtype", "--offline"),
}


def flags(command: str) -> set[str]:
    context = click.Context(GROUP)
    found = GROUP.get_command(context, command)  # type: ignore[attr-defined]
    return {name for parameter in found.params for name in parameter.opts}


def test_everyday_flags_are_called_alike() -> None:
    assert EVERYDAY | {"--variants", "--format", "--method"} <= flags("translate")
    assert EVERYDAY | {"--variants", "--format"} <= flags("bench")
    assert EVERYDAY | {"--method"} <= flags("dissect")
    for command in ("translate", "status", "merge", "evaluate"):
        assert {"--quiet", "-q", "--verbose", "-v", "--log-level", "--json"} <= flags(command)


def test_help_lists_translate_first_and_each_command_on_a_line(sdcorrect: Run) -> None:
    shown = sdcorrect("--help").stdout
    listed = [
        line.split()[1] for line in shown.splitlines() if line.startswith("│ ") and line[2:3].isalpha()
    ]
    context = click.Context(GROUP)
    assert listed == GROUP.list_commands(context) and listed[0] == "translate"  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= 80
    assert "[default: (7.5)]" in sdcorrect("translate", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "--guidance-scale", "-1"], "guidance_scale: should be greater than or equal to 0"),
        (["bench", "--size", "3"], "size: should be greater than or equal to 8"),
        (["bench", "--format", "png"], "--format: is that of the pictures which --evaluate writes"),
        (["bench", "--evaluate", "--format", "gif"], "output.format: should be 'png', 'jpg' or 'webp'"),
        (["bench", "--strength", "0.5,0.8"], "bench takes one of each"),
        (["bench", "--lora", "nowhere.safetensors"], "nowhere.safetensors"),
        (["bench", "--negative-prompt", "{stem}"], "{stem}: bench times all pictures by the same words"),
        (["bench", "--vae", ""], "--vae: is empty; is a shell variable unset?"),
        (["bench", "--negative-prompt", "<lora:ink:1>"], "LoRAs belong in the job"),
        (["translate", "--steps", "2.5"], "--steps: should be a whole number; found '2.5'"),
        (["translate", "--guidance-scale", "7,5"], "--guidance-scale: should be a number; found '7,5'"),
        (["translate", "-c"], "requires an argument; see `sdcorrect translate --help`"),
        (["--cache"], "requires an argument; see `sdcorrect --help`"),
        (
            ["translate", "--stepz", "2"],
            "sdcorrect translate has no option --stepz; did you mean --steps?",
        ),
        (["merge", "--wrong"], "has no option --wrong; `sdcorrect merge --help` lists the options"),
        (
            ["translate", "a.png", "b.png"],
            "argument(s) (b.png); put a pattern such as '*.jpg' in quotes",
        ),
        (["translate", "a", "0.7"], "argument(s) (0.7); see `sdcorrect translate --help`"),
        (["evaluate"], "Missing argument 'OUT...'; see `sdcorrect evaluate --help`"),
        (["schema", "jobs"], "error: FILE: 'jobs' is not one of 'job', 'record'"),
        (["translates"], "Did you mean 'translate'"),
        (["bench", "--repeats", "0"], "--repeats: should be greater than or equal to 1; found '0'"),
        (["dissect", PICTURE, "-p", "a", "--controlnet", "nowhere.safetensors"], "nowhere.safetensors"),
        (["dissect", PICTURE, "-p", "a", "--negative-prompt", "{name}"], "no placeholder {name}"),
        (["dissect", PICTURE, "--lora", " "], "--lora: is empty; is a shell variable unset?"),
    ],
)
def test_each_wrong_flag_is_one_clear_line(sdcorrect: Run, arguments: list[str], message: str) -> None:
    result = sdcorrect(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
