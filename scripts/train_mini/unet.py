"""Train mini's U-Net on the latents of the VAE and the words of the CLIP, as Stable Diffusion is."""

import torch
from data import STYLES, Icons, as_pixels
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.resnet import ResnetBlock2D
from diffusers.training_utils import compute_snr
from pictures import Pictures
from torch import Generator, Tensor
from towers import text_tower, tokens_of
from training import RUNS, Run, Schedule, run_from_flags, train
from transformers import CLIPTextModel, CLIPTokenizer, logging

#: A GPU uses larger batches, and a learning rate that grows with their square root.
SCHEDULES = {
    "cpu": Schedule(steps=200_000, batch=64, learning_rate=4e-4, weight_decay=0.02, ema=0.9995),
    "cuda": Schedule(
        steps=200_000, batch=1024, learning_rate=1.2e-3, weight_decay=0.02, ema=0.999, every=500
    ),
}
#: Min-SNR weighting (Hang et al., ICCV 2023), with a small constant for steps of almost no weight.
GAMMA, FLOOR = 5.0, 0.1
#: In the residual blocks, in training; without it, the error on held-out pictures stops falling early.
DROPOUT = 0.1
#: Timesteps at which the held-out loss is printed.
LEVELS = (50, 200, 400, 600, 800)


def build(text_width: int) -> UNet2DConditionModel:
    """Three levels on 16x16 latents; the decoder's first attention level sees 8x8 tokens."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 192),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
        norm_num_groups=16,
        attention_head_dim=4,
        cross_attention_dim=text_width,
    )


def noise_schedule() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def encoded(vae: AutoencoderKL, pixels: Tensor, generator: Generator) -> Tensor:
    """(pictures, 3, 64, 64) -> latents (pictures, 4, 16, 16), drawn from the posterior, scaled."""
    posterior = vae.encode(pixels).latent_dist
    noise = torch.randn(
        posterior.mean.shape, generator=generator, device=pixels.device, dtype=posterior.mean.dtype
    )
    latents: Tensor = vae.config.scaling_factor * (posterior.mean + posterior.std * noise)
    return latents.float()


class HeldOut:
    """Latents of held-out concepts in the five styles, captioned by style alone, as in translation."""

    def __init__(
        self, icons: Icons, vae: AutoencoderKL, encoder: CLIPTextModel, tokenizer: CLIPTokenizer
    ) -> None:
        rows = icons.rows(icons.held_out)
        pixels = as_pixels(icons.tensor(rows)).to(vae.device)
        random = Generator(vae.device).manual_seed(0)
        self.latents = torch.cat([encoded(vae, part, random) for part in torch.split(pixels, 100)])
        said = tokens_of(tokenizer, [f"in {STYLES[style]}" for _, style in rows]).to(vae.device)
        self.text = encoder(input_ids=said).last_hidden_state
        self.noise = torch.randn(self.latents.shape, generator=random, device=vae.device)

    @torch.inference_mode()
    def errors(self, unet: UNet2DConditionModel, timestep: int, every: int = 1) -> Tensor:
        """(pictures,): mean squared error of the predicted noise at `timestep`, for each `every`-th."""
        scheduler = noise_schedule()
        found = []
        for x0, noise, text in zip(
            *(torch.split(of[::every], 100) for of in (self.latents, self.noise, self.text)), strict=True
        ):
            t = torch.full((len(x0),), timestep, device=x0.device)
            noised = scheduler.add_noise(x0, noise, t)
            with torch.autocast(x0.device.type, torch.bfloat16):
                prediction = unet(noised, t, text).sample
            found.append((prediction.float() - noise).pow(2).mean((1, 2, 3)))
        return torch.cat(found)


def begin(run: Run, text_width: int) -> UNet2DConditionModel:
    if run.start is None:
        unet = build(text_width)
    else:
        unet = UNet2DConditionModel.from_pretrained(run.start, torch_dtype=torch.float32)
    for block in unet.modules():
        if isinstance(block, ResnetBlock2D):
            block.dropout.p = DROPOUT
    if run.device.type == "cpu":
        # on the CPU the gradient of fused attention is slower than that of its parts
        unet.set_attn_processor(AttnProcessor())
        return unet.train()
    return unet.train().to(run.device, memory_format=torch.channels_last)


def main() -> None:
    torch.manual_seed(0)
    # silence warnings about unread CLIP weights and truncated captions; both are intended
    logging.set_verbosity_error()
    run = run_from_flags(SCHEDULES)
    icons = Icons()
    vae = AutoencoderKL.from_pretrained(RUNS / "vae", torch_dtype=torch.float32).eval().to(run.device)
    encoder = text_tower().float().eval().to(run.device)
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "clip")
    pictures = Pictures(icons, tokenizer, run.device)
    unet = begin(run, encoder.config.hidden_size)
    # compiling takes a minute, which a CPU does not earn back
    predict = torch.compile(unet) if run.device.type == "cuda" else unet
    scheduler = noise_schedule()
    snr = compute_snr(scheduler, torch.arange(scheduler.config.num_train_timesteps)).to(run.device)
    weights = snr.clamp(max=GAMMA) / snr + FLOOR

    def loss(_: Tensor, generator: Generator) -> Tensor:
        pixels, ids = pictures.drawn(run.schedule.batch, generator)
        t = torch.randint(len(weights), (len(pixels),), generator=generator, device=run.device)
        with torch.autocast(run.device.type, torch.bfloat16):
            with torch.no_grad():
                x0 = encoded(vae, pixels, generator)
                text = encoder(input_ids=ids).last_hidden_state
            noise = torch.randn(x0.shape, generator=generator, device=run.device)
            prediction = predict(scheduler.add_noise(x0, noise, t), t, text).sample
        return (weights[t] * (prediction.float() - noise).pow(2).mean((1, 2, 3))).mean()

    with torch.inference_mode():
        unseen = HeldOut(icons, vae, encoder, tokenizer)

    def figures() -> dict[str, float]:
        unet.eval()
        found = {f"held out at {t}": float(unseen.errors(unet, t, every=3).mean()) for t in LEVELS}
        unet.train()
        unet.save_pretrained(RUNS / "unet")
        return found

    train("unet", unet, run.schedule, len(pictures.pictures), loss, figures)
    unet.save_pretrained(RUNS / "unet")


if __name__ == "__main__":
    main()
