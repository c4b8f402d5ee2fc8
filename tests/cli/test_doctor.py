"""doctor, prefetch and --offline."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import controlnet, lora, original_names, save_folder, save_single, tiny, vae
from click.testing import Result
from diffusers import UNet2DConditionModel
from hub import REVISION, serving
from huggingface_hub import constants
from safetensors.torch import save_file

from sdcorrect.core.capture import capture
from sdcorrect.core.footprint import kept_bytes, tensors_of
from sdcorrect.core.layout import UNetLayout
from sdcorrect.core.plan import Injection, Plan
from sdcorrect.models import Model
from sdcorrect.recipes import BUILT_IN

Run = Callable[..., Result]
SD15_WIDTHS = (320, 640, 1280, 1280)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_doctor_tells_the_machine(sdcorrect: Run) -> None:
    result = sdcorrect("doctor")
    assert result.exit_code == 0, result.output
    told = flat(result.stdout)
    for expected in (f"torch {torch.__version__}", "GiB free", "would run on", "hub cache"):
        assert expected in told


def test_doctor_runs_in_a_process_of_its_own() -> None:
    """Where nothing is imported yet, unlike in this process."""
    command = [sys.executable, "-c", "from sdcorrect.cli import app; app()", "doctor"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "would run on" in result.stdout


@pytest.fixture
def job(tmp_path: Path, pictures: Path) -> Callable[[str], Path]:
    def write(settings: str) -> Path:
        file = tmp_path / "job.yaml"
        file.write_text(
            f"input: {{path: {pictures}}}\noutput: {{path: {tmp_path / 'out'}}}\nprompt: p\n"
            f"steps: 2\nstrength: 1\nlimit: 1\n{settings}\n"
        )
        return file

    return write


def test_doctor_tells_what_a_job_would_keep(sdcorrect: Run, job: Callable[[str], Path]) -> None:
    told = flat(
        sdcorrect("doctor", job("variants: [sdedit, correct]\nsize: 512\ndtype: bfloat16")).stdout
    )
    assert "would run on cpu, in bfloat16" in told
    assert "3 to 5 with attention" in told
    assert "sdedit keeps nothing" in told
    # blocks 3 and 4: Q and K of 64 x 64 tokens in 128 channels, two bytes each: 4 MiB; and two skips
    assert "correct keeps 5.5 MiB" in told
    assert "512 x 512 px, bfloat16" in told


def test_doctor_marks_what_would_not_run(sdcorrect: Run, job: Callable[[str], Path]) -> None:
    result = sdcorrect("doctor", job("model: nobody/nothing\ndevice: cuda:99"))
    assert result.exit_code == 2
    assert "! model nobody/nothing: not on this machine" in flat(result.stdout)
    assert "! device 'cuda:99' cannot be used" in flat(result.stdout)
    assert result.stderr == "error: lines marked with ! would keep a job from running\n"


def test_doctor_uses_settings_without_a_job(sdcorrect: Run) -> None:
    result = sdcorrect("doctor", "--set", "model=nobody/nothing")
    assert result.exit_code == 2
    assert "! model nobody/nothing: not on this machine" in flat(result.stdout)
    result = sdcorrect("doctor", "--set", "method=sdedit", "--set", "stpes=3")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: stpes: there is no such setting; did you mean steps?\n"


SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def test_of_sd15_at_512_px_the_correction_keeps_a_few_megabytes() -> None:
    config = {"cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": SD15_WIDTHS}
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, **config)
    plan = BUILT_IN["correct"].plan(UNetLayout.from_config(unet.config))
    # 8 heads' maps of 256 tokens squared in two blocks, and skips of 1280 and 640 channels
    expected = 2 * (2 * 8 * 256**2 + (1280 + 640) * 256)
    assert kept_bytes(unet.config, plan, (64, 64), torch.float16, steps=20) == expected < 3 * 2**20


def test_of_sdxl_at_1024_px_the_correction_keeps_queries_and_keys() -> None:
    config = {"cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), **SDXL}
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=128, **config)
    attention = (Injection("self-attention", (0, 1)),)
    plan = Plan("one-step", injections=attention)
    # Q and K of 1280 channels in two blocks of 10 layers; their maps would be 8 times as much
    expected = 2 * 10 * 2 * 1280 * 32**2 * 2
    assert kept_bytes(unet.config, plan, (128, 128), torch.float16, steps=20) == expected == 100 * 2**20


@pytest.mark.parametrize("name", ["correct", "correct-attention", "correct-features", "masactrl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_told_is_what_is_kept(model: Model, name: str, dtype: torch.dtype) -> None:
    plan = BUILT_IN[name].plan(model.layout)
    told = kept_bytes(model.pipe.unet.config, plan, (16, 24), dtype, steps=50)
    if plan.inversion == "full":
        assert told == 50 * torch.zeros(4, 16, 24).nbytes
        return
    unet = type(model.pipe.unet).from_config(model.pipe.unet.config).to(dtype)
    text = model.text(["a"], (96, 64))
    with capture(unet, plan.injections) as captured:
        unet(torch.randn(1, 4, 16, 24, dtype=dtype), 1, text.embeddings.to(dtype))
    assert told == sum(tensor.nbytes for tensor in tensors_of(captured)) > 0


def test_prefetch_names_what_is_here(sdcorrect: Run, job: Callable[[str], Path], tmp_path: Path) -> None:
    save_folder(tiny("sd1"), tmp_path / "base")
    save_single(tiny("sd1"), tmp_path / "model.safetensors")
    save_file(lora(tiny("sd1")), tmp_path / "ink.safetensors")
    file = job("model: model.safetensors\nbase_config: base\nloras: [ink.safetensors]")
    result = sdcorrect("prefetch", file)
    assert result.exit_code == 0, result.output
    names = [Path(line).name for line in result.stdout.splitlines()]
    assert names == ["model.safetensors", "base", "ink.safetensors"]


def test_prefetch_and_doctor_take_a_model_without_a_job(sdcorrect: Run) -> None:
    assert sdcorrect("prefetch", "--model", "mini").stdout.endswith("assets/mini\n")
    assert "give a job, or the model" in sdcorrect("prefetch").stderr
    found = sdcorrect("doctor", "--model", "nowhere.safetensors")
    assert found.exit_code == 2 and "nowhere.safetensors: there is no such" in flat(found.stdout)


def test_prefetch_does_not_send_to_prefetch(
    sdcorrect: Run, job: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    told = sdcorrect("prefetch", job("model: tiny/other\noffline: true"))
    assert told.exit_code == 2 and len(told.stderr.splitlines()) == 1
    assert "cannot be reached" in told.stderr and "on a machine that reaches it" in told.stderr
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "unset HF_HUB_OFFLINE" in sdcorrect("prefetch", "--model", "tiny/other").stderr


@pytest.mark.slow
def test_what_is_prefetched_is_used_offline_by_many_at_once(
    job: Callable[[str], Path], tmp_path: Path
) -> None:
    repositories = tmp_path / "hub"
    save_folder(tiny("sd1"), repositories / "tiny" / "sd1")
    save_file(lora(tiny("sd1")), (repositories / "tiny" / "sd1" / "ink.safetensors"))
    file = job(f"model: tiny/sd1\nrevision: {REVISION}\nloras: [tiny/sd1/ink.safetensors]\nsize: 64")

    def start(*arguments: object, endpoint: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from sdcorrect.cli import app; app()", *map(str, arguments)]
        environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache")}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    with serving(repositories) as endpoint:
        racing = [start("prefetch", file, endpoint=endpoint) for _ in range(2)]
        for process in racing:
            output, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            assert f"snapshots/{REVISION}" in output
            assert "ink.safetensors" in output
    running = start("translate", "-c", file, "--offline", endpoint=endpoint)
    output, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    assert (tmp_path / "out" / "correct" / "bicycle.png").is_file()
    assert REVISION in (tmp_path / "out" / "job.json").read_text()

    absent = start("translate", "-c", file, "--offline", "--model", "tiny/other", endpoint=endpoint)
    output, errors = absent.communicate(timeout=300)
    assert absent.returncode == 2
    assert "tiny/other: not on this machine, and the hub is not contacted offline" in errors


def test_doctor_tells_what_each_file_was_recognised_as(
    sdcorrect: Run, job: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    save_folder(tiny("sd1"), tmp_path / "base")
    save_single(tiny("sd1"), tmp_path / "model.safetensors")
    vae().save_pretrained(tmp_path / "vae")
    controlnet("sd1").save_pretrained(tmp_path / "control")
    tensors = lora(tiny("sd1"))
    alphas = [key for key in tensors if key.endswith(".alpha")]
    save_file(tensors | {alphas[0]: torch.tensor(0.5)}, tmp_path / "ink.safetensors")
    save_file({"emb_params": torch.ones(8, 32)}, tmp_path / "EasyNegative.safetensors")
    settings = (
        "model: model.safetensors\nbase_config: base\nvae: vae\nprediction_type: v_prediction\n"
        "loras: [{path: ink.safetensors, weight: 0.7}]\ncontrolnets: [control]\n"
        "textual_inversions: [EasyNegative.safetensors]"
    )
    result = sdcorrect("doctor", job(settings))
    assert result.exit_code == 0, result.output
    told = flat(result.stdout)
    for expected in (
        "texts 32 wide: prediction_type v_prediction, terminal SNR not zero, timestep_spacing leading",
        "vae: folder, 4 channels, scaling_factor 0.18215",
        f"ink.safetensors: LoRA, {len(alphas)} layers ({len(alphas) - 8} of the unet, 8 of the "
        "text_encoder), rank 2, alpha 0.5 to 2, weight 0.7",
        "EasyNegative.safetensors: the word EasyNegative, 8 vectors of 32",
        "control: folder, hints canny, scale 1",
    ):
        assert expected in told, told


def test_one_bad_file_hides_no_other(
    sdcorrect: Run, job: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # short paths are not broken
    save_file(lora(tiny("sd1")), "ink.safetensors")
    Path("page.safetensors").write_text("<html>log in</html>")
    job("model: gone.safetensors\nloras: [page.safetensors, absent.safetensors]\nmask: nowhere")
    result = sdcorrect("doctor", "job.yaml", "--vae", "vae.pt", "--device", "cuda:99")
    assert result.exit_code == 2
    told = flat(result.stdout)
    bad = (
        "device 'cuda:99' cannot be used",
        "model gone.safetensors: there is no such file",
        "vae vae.pt: there is no such file",
        "lora page.safetensors: is a web page",
        "lora absent.safetensors: there is no such file",
        "mask nowhere: there is no such folder",
    )
    assert all(f"! {line}" in told for line in bad), told
    assert told.count(" ! ") == len(bad)

    loras = ("--lora", "page.safetensors", "--lora", "ink.safetensors:0.7")
    told = flat(sdcorrect("doctor", *loras, "--model", "gone.safetensors").stdout)
    assert "lora page.safetensors: is a web page" in told and told.count(" ! ") == 2
    assert "layers, weight 0.7; can be read; not compared with the model" in told


def test_doctor_marks_each_file_that_would_be_refused(
    sdcorrect: Run, job: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    save_folder(tiny("sd1"), tmp_path / "base")
    tensors = original_names(tiny("sd1")) | {"novelty": torch.ones(2)}
    save_file(tensors, tmp_path / "model.safetensors")
    save_file(lora(tiny("sdxl")), tmp_path / "other.safetensors")
    torch.save({"word": torch.ones(2, 48)}, tmp_path / "word.pt")
    controlnet("sd2").save_pretrained(tmp_path / "control")
    result = sdcorrect(
        "doctor",
        job(
            "model: model.safetensors\nbase_config: base\nloras: [other.safetensors]\n"
            "textual_inversions: [word.pt]\ncontrolnets: [control]"
        ),
    )
    assert result.exit_code == 2
    told = flat(result.stdout)
    for expected in (
        "such as novelty: something unknown",
        "other.safetensors: made for another family: it reads texts 80 wide",
        "word.pt: its vectors are 48 wide, but this model's are 32",
        "control: made for another family: its cross_attention_dim is 48, this model's is 32",
    ):
        assert expected in told, told
    assert told.count("!") == 4
    assert not (tmp_path / "out").exists()
