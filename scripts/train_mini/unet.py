"""Train mini's U-Net on the latents of the VAE and the words of the CLIP, as Stable Diffusion is."""

from itertools import chain

import torch
from data import STYLES, Icons, Row, as_pixels
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import compute_snr
from torch import Generator, Tensor
from towers import text_tower, tokens_of
from training import RUNS, Schedule, schedule_from_flags, train
from transformers import CLIPTextModel, CLIPTokenizer

SCHEDULE = Schedule(steps=10000, batch=32, learning_rate=6e-4, weight_decay=0.02, ema=0.9995)
#: How often an icon is told by name and style, by style, by name, not at all.
TOLD = (0.4, 0.35, 0.1, 0.15)
#: Min-SNR weighting (Hang et al., ICCV 2023), and a little for the steps that it nearly drops.
GAMMA, FLOOR = 5.0, 0.1


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
    """That of Stable Diffusion."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


class Latents:
    """The VAE's posterior of each picture and of its mirror image."""

    def __init__(self, vae: AutoencoderKL, pictures: Tensor) -> None:
        self.scale = vae.config.scaling_factor
        both = torch.stack([pictures, pictures.flip(-1)], dim=1).flatten(0, 1)
        with torch.inference_mode():
            found = [vae.encode(as_pixels(part)).latent_dist for part in torch.split(both, 100)]
        # (pictures, 2, 4, 16, 16)
        pairs = (-1, 2)
        self.mean = torch.cat([p.mean for p in found]).clone().reshape(*pairs, *found[0].mean.shape[1:])
        self.std = torch.cat([p.std for p in found]).clone().reshape(*pairs, *found[0].std.shape[1:])

    def sample(self, indices: Tensor, generator: Generator) -> Tensor:
        side = torch.randint(2, indices.shape, generator=generator)
        mean, std = self.mean[indices, side], self.std[indices, side]
        return self.scale * (mean + std * torch.randn(mean.shape, generator=generator))


class Captions:
    """What the text encoder makes of each picture's captions, in the order of `TOLD`."""

    def __init__(
        self, encoder: CLIPTextModel, tokenizer: CLIPTokenizer, icons: Icons, rows: list[Row]
    ) -> None:
        names = [(icons.caption(concept), STYLES[style]) for concept, style in rows]
        captions = [(f"a {name} in {style}", f"in {style}", f"a {name}", "") for name, style in names]
        places = {text: place for place, text in enumerate(dict.fromkeys(chain(*captions)))}
        ids = tokens_of(tokenizer, list(places))
        with torch.inference_mode():
            read = [encoder(input_ids=part).last_hidden_state for part in torch.split(ids, 256)]
        self.embeddings = torch.cat(read).clone()
        # (rows, ways to tell)
        self.places = torch.tensor([[places[text] for text in texts] for texts in captions])

    def told(self, indices: Tensor, ways: Tensor | int) -> Tensor:
        return self.embeddings[self.places[indices, ways]]


def main() -> None:
    torch.manual_seed(0)
    icons = Icons()
    vae = AutoencoderKL.from_pretrained(RUNS / "vae").eval()
    encoder = text_tower().eval()
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "clip")
    rows = icons.rows(icons.trained_on)
    latents = Latents(vae, icons.tensor(rows))
    captions = Captions(encoder, tokenizer, icons, rows)
    scheduler = noise_schedule()
    unet = build(encoder.config.hidden_size).to(memory_format=torch.channels_last)
    # on the CPU the gradient of the fused attention costs more than that of its parts
    unet.set_attn_processor(AttnProcessor())

    def error(x0: Tensor, text: Tensor, generator: Generator) -> Tensor:
        t = torch.randint(scheduler.config.num_train_timesteps, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        noised = scheduler.add_noise(x0, noise, t).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            prediction = unet(noised, t, text).sample
        snr = compute_snr(scheduler, t)
        weights = snr.clamp(max=GAMMA) / snr + FLOOR
        return (weights * (prediction.float() - noise).pow(2).mean((1, 2, 3))).mean()

    def loss(indices: Tensor, generator: Generator) -> Tensor:
        ways = torch.multinomial(torch.tensor(TOLD), len(indices), True, generator=generator)
        return error(latents.sample(indices, generator), captions.told(indices, ways), generator)

    unseen_rows = icons.rows(icons.held_out[::3])
    unseen = Latents(vae, icons.tensor(unseen_rows))
    by_style = Captions(encoder, tokenizer, icons, unseen_rows).told(torch.arange(len(unseen_rows)), 1)

    @torch.inference_mode()
    def figures() -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        x0 = unseen.sample(torch.arange(len(unseen_rows)), generator)
        value = error(x0, by_style, generator)
        unet.save_pretrained(RUNS / "unet")
        return {"held-out loss": float(value)}

    train("unet", unet, schedule_from_flags(SCHEDULE), len(rows), loss, figures)
    unet.save_pretrained(RUNS / "unet")


if __name__ == "__main__":
    main()
