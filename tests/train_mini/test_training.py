"""The loop of the stages: what is stopped goes on as if it had not been."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import clip_images
import clip_text
import pytest
import torch
import towers
import training
import unet
import vae
from torch import Generator, Tensor, nn

SCHEDULE = training.Schedule(steps=6, batch=4, learning_rate=0.1, warm_up=2, ema=0.9)
PICTURES = torch.rand(10, 3, generator=torch.Generator().manual_seed(1))


def _loss(model: nn.Module) -> Callable[[Tensor, Generator], Tensor]:
    def loss(indices: Tensor, generator: Generator) -> Tensor:
        noise = torch.randn(len(indices), 3, generator=generator)
        error: Tensor = model(PICTURES[indices] + noise).pow(2).mean()
        return error

    return loss


def _trained(folder: Path, monkeypatch: pytest.MonkeyPatch, stops: list[int]) -> dict[str, Tensor]:
    monkeypatch.setattr(training, "RUNS", folder)
    schedule = replace(SCHEDULE, every=2)
    for stop in stops:
        torch.manual_seed(0)
        model = nn.Linear(3, 3)

        def loss(indices: Tensor, generator: Generator, stop: int = stop) -> Tensor:
            if generator.initial_seed() == stop:
                raise KeyboardInterrupt
            return _loss(model)(indices, generator)  # noqa: B023

        try:
            training.train("stage", model, schedule, len(PICTURES), loss, dict)
        except KeyboardInterrupt:
            continue
    return model.state_dict()


def test_stopped_and_started_again_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = SCHEDULE.steps
    whole = _trained(tmp_path / "whole", monkeypatch, [never])
    parts = _trained(tmp_path / "parts", monkeypatch, [3, 5, never])
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name])


def test_a_checkpoint_comes_after_a_pause_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PAUSE", 0)
    _trained(tmp_path, monkeypatch, [5])
    assert torch.load(tmp_path / "stage.pt")["step"] == 5


def test_trains_for_so_many_minutes_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "RUNS", tmp_path)
    schedule = replace(SCHEDULE, minutes=0.3 / 60, every=10**9)
    for _ in range(2):
        model = nn.Linear(3, 3)
        training.train("stage", model, schedule, len(PICTURES), _loss(model), dict)
    # the second time nothing is left to do
    assert capsys.readouterr().out.count("loss") == 1
    saved = torch.load(tmp_path / "stage.pt")
    assert saved["step"] > SCHEDULE.steps
    assert saved["seconds"] == pytest.approx(0.3, abs=0.2)


def test_the_rate_rises_stays_and_falls() -> None:
    schedule = training.Schedule(steps=1000, batch=1, learning_rate=1.0, warm_up=10)
    rates = [schedule.rate(step, schedule.progress(step, 0)) for step in range(1001)]
    assert rates[:11] == pytest.approx([*(n / 10 for n in range(1, 11)), 1])
    assert set(rates[10:800]) == {1.0}
    assert rates[900] == pytest.approx(0.51)
    assert rates[1000] == pytest.approx(0.02)


def test_a_vae_that_is_begun_with_keeps_its_encoder(tmp_path: Path) -> None:
    vae.build().save_pretrained(tmp_path)
    run = training.Run(SCHEDULE, torch.device("cpu"), tmp_path)
    learns = {
        name.split(".")[0]
        for name, weights in vae.begin(run).named_parameters()
        if weights.requires_grad
    }
    assert learns == {"decoder", "post_quant_conv"}


def test_prints_figures_of_the_averaged_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "RUNS", tmp_path)
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    seen = []

    def figures() -> dict[str, float]:
        seen.append(model.weight.detach().clone())
        return {"figure": 0.5}

    training.train("stage", model, SCHEDULE, len(PICTURES), _loss(model), figures)
    assert "stage 6/6: loss" in capsys.readouterr().out
    assert torch.equal(seen[-1], model.weight)


def test_an_epoch_has_every_picture_once() -> None:
    order = training.batches(12, 4, 0)
    first, second = (torch.cat([next(order) for _ in range(3)]) for _ in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(12))
    assert not torch.equal(first, second)


def test_networks_fit_each_other() -> None:
    latents = vae.build().encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean
    network = unet.build(towers.WIDTH)
    assert list(latents.shape[1:]) == [4, network.config.sample_size, network.config.sample_size]
    text = torch.zeros(1, 24, towers.WIDTH)
    assert network(latents, 1, text).sample.shape == latents.shape


def test_a_caption_means_its_name_and_its_style_alike() -> None:
    name = nn.functional.normalize(torch.rand(1, towers.PROJECTION - towers.STYLE_AXES), dim=-1)
    style = torch.eye(towers.STYLE_AXES)[:1]
    alone, said = clip_text.targets(name, None), clip_text.targets(None, style)
    both = clip_text.targets(name, style)
    assert both.shape == (1, towers.PROJECTION)
    assert (alone * said).sum() == 0
    half = torch.tensor(0.5).sqrt()
    assert torch.allclose(torch.stack([(both * alone).sum(), (both * said).sum()]), half)


@pytest.mark.parametrize("piece", clip_images.PIECES)
def test_a_collage_is_of_pieces_from_up_to_four_pictures_of_one_style(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_images, "PIECES", (piece,))
    monkeypatch.setattr(clip_images, "COLLAGES", 512)
    # a pixel tells its picture, its row and its column
    count, side = 12, towers.IMAGE
    places = torch.meshgrid(*(torch.arange(n) for n in (count, side, side)), indexing="ij")
    pictures = torch.stack(places, 1).to(torch.uint8)
    by_style = torch.arange(count).reshape(2, 6)
    generator = torch.Generator().manual_seed(0)
    cut, style = clip_images.collages(pictures, by_style, generator)
    assert cut.shape == (clip_images.COLLAGES, 3, side, side)
    assert torch.equal(cut[:, 0] // 6, style.to(torch.uint8)[:, None, None].expand_as(cut[:, 0]))
    of_how_many = [len(one.unique()) for one in cut[:, 0]]
    # one of four is of the first alone
    assert of_how_many.count(1) > len(cut) / 8
    assert max(of_how_many) == 4
    # of each piece: one picture, and rows and columns that follow each other, from anywhere
    laid = cut.unfold(2, piece, piece).unfold(3, piece, piece)
    picture, row, column = laid.permute(1, 0, 2, 3, 4, 5).flatten(2, 3).long()
    assert picture.eq(picture[..., :1, :1]).all()
    assert row.diff(dim=2).eq(1).all()
    assert column.diff(dim=3).eq(1).all()
    assert len(row[..., 0, 0].unique()) == len(column[..., 0, 0].unique()) == side - piece + 1


def test_shifts_move_a_picture_as_it_is() -> None:
    picture = torch.randint(255, (1, 3, 16, 16), dtype=torch.uint8)
    shifted = vae.augment(picture.expand(64, -1, -1, -1), torch.Generator().manual_seed(0))
    places = [(top, left) for top in range(9) for left in range(9)]
    padded = [nn.functional.pad(one, (4, 4, 4, 4), value=255) for one in (picture, picture.flip(-1))]
    known = [one[0, :, top : top + 16, left : left + 16] for one in padded for top, left in places]
    found = {next(i for i, other in enumerate(known) if torch.equal(one, other)) for one in shifted}
    assert len(found) > 32


def test_augmentations_keep_the_ground_white() -> None:
    generator = torch.Generator().manual_seed(0)
    white = torch.full((3, 3, 64, 64), 255, dtype=torch.uint8)
    assert vae.augment(white, generator).eq(255).all()
    assert torch.allclose(towers.augment(torch.ones(3, 3, 64, 64), generator), torch.ones(1))


def test_every_other_picture_is_seen_as_it_was_drawn_or_mirrored() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(12, 3, 64, 64, generator=generator)
    seen = towers.augment(pixels, generator)
    same = [torch.allclose(s, p, atol=1e-4) for s, p in zip(seen, pixels, strict=True)]
    mirrored = [torch.allclose(s.flip(2), p, atol=1e-4) for s, p in zip(seen, pixels, strict=True)]
    assert [a or b for a, b in zip(same, mirrored, strict=True)] == [True, False] * 6
    assert any(same)
    assert any(mirrored)
