"""Train mini's VAE: pictures of 64 px to latents of 4 channels at a quarter of the side."""

import torch
from data import Icons, as_pixels, more_icons, say
from diffusers import AutoencoderKL
from torch import Generator, Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio
from training import RUNS, Run, Schedule, run_from_flags, train

SCHEDULES = {
    "cpu": Schedule(steps=6000, batch=16, learning_rate=2e-3),
    "cuda": Schedule(steps=6000, batch=256, learning_rate=4e-3),
}
#: Weight of the KL divergence from a unit Gaussian, per value of the latent.
KL = 1e-4


def build() -> AutoencoderKL:
    levels = 3
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )


def begin(run: Run) -> AutoencoderKL:
    """A new VAE; or one from given weights that trains only its decoder, to keep the latents."""
    if run.start is None:
        vae = build()
    else:
        vae = AutoencoderKL.from_pretrained(run.start, torch_dtype=torch.float32)
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    return vae.train().to(run.device, memory_format=torch.channels_last)


def edges(pictures: Tensor) -> tuple[Tensor, Tensor]:
    return pictures.diff(dim=-1), pictures.diff(dim=-2)


def reconstruction_error(result: Tensor, truth: Tensor) -> Tensor:
    """L1 + 4 MSE + half the L1 of the gradients, which keeps outlines sharp."""
    difference = result - truth
    gradients = sum(edge.abs().mean() for edge in edges(difference))
    return difference.abs().mean() + 4 * difference.pow(2).mean() + 0.5 * gradients


@torch.inference_mode()
def psnr(vae: AutoencoderKL, pixels: Tensor) -> float:
    """Mean PSNR of the reconstructions from the posterior's mean over the pictures, dB."""
    rounds = [
        vae.decode(vae.encode(p).latent_dist.mean).sample.clamp(-1, 1) for p in torch.split(pixels, 50)
    ]
    return float(peak_signal_noise_ratio(torch.cat(rounds), pixels, data_range=2.0, dim=(1, 2, 3)))


def main() -> None:
    torch.manual_seed(0)
    run = run_from_flags(SCHEDULES)
    icons, more = Icons(), torch.from_numpy(more_icons().pictures).permute(0, 3, 1, 2)
    own = icons.tensor(icons.rows(icons.trained_on))
    pictures = torch.cat([own, more]).to(run.device)
    held_out = as_pixels(icons.tensor(icons.rows(icons.held_out)).to(run.device))
    vae = begin(run)

    def loss(indices: Tensor, generator: Generator) -> Tensor:
        pixels = as_pixels(augment(pictures[indices], generator))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(run.device.type, torch.bfloat16):
            posterior = vae.encode(pixels).latent_dist
            result = vae.decode(posterior.sample(generator)).sample
        return (
            reconstruction_error(result.float(), pixels)
            + KL * posterior.kl().float().mean() / posterior.mean[0].numel()
        )

    def figures() -> dict[str, float]:
        return {"held-out PSNR": psnr(vae, held_out)}

    train("vae", vae, run.schedule, len(pictures), loss, figures)
    if run.start is None:
        scale(vae, as_pixels(pictures[: len(own) : 3]))
    vae.save_pretrained(RUNS / "vae")
    say(f"held-out PSNR {psnr(vae, held_out):.2f} dB, scaling factor {vae.config.scaling_factor:.4f}")


def augment(pictures: Tensor, generator: Generator) -> Tensor:
    """Mirror each picture or not, and shift it by up to 4 px on its white background."""
    count, _, height, width = pictures.shape
    device = pictures.device
    flips = torch.rand(count, generator=generator, device=device) < 0.5
    mirrored = torch.where(flips[:, None, None, None], pictures.flip(-1), pictures)
    padded = torch.nn.functional.pad(mirrored, (4, 4, 4, 4), value=255)
    top, left = torch.randint(0, 9, (2, count, 1), generator=generator, device=device)
    rows, columns = (torch.arange(side, device=device) for side in (height, width))
    rows, columns = (top + rows)[:, :, None], (left + columns)[:, None, :]
    places = torch.arange(count, device=device)[:, None, None]
    return padded[places, :, rows, columns].movedim(-1, 1)


@torch.inference_mode()
def scale(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Set the factor that gives latents unit variance, as Stable Diffusion's does."""
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in torch.split(pixels, 50)])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))


if __name__ == "__main__":
    main()
