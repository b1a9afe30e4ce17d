"""The Depth Anything V2 family: sizes, options, random weights, official checkpoints."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from compile import models
from compile.definition import ModelDefinition, checked_inputs
from compile.errors import CompileError
from compile.frontend import weights
from compile.models.depth_anything_v2 import VARIANTS, Sizes, draw
from tests.compile.models.official_depth import OfficialDepth

OPTIONS = {
    "hidden_size": 24, "heads": 2, "layers": 4, "layers_out": [1, 2, 3, 4], "neck": [8, 12, 16, 20], "fusion": 8,
    "head": 6, "image_size": 56,
}  # fmt: skip

FAMILY = models.families()["depth_anything_v2"]
SIZES = Sizes(24, 2, 4, (1, 2, 3, 4), (8, 12, 16, 20), 8, 6, 56)


def tiny(**options: object) -> ModelDefinition:
    return FAMILY.build("vits", {**OPTIONS, **options})


def depth(definition: ModelDefinition, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return definition.weights(pixel_values=pixels).predicted_depth


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Every parameter different from every other and far from its default."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.normal_(0.05, 1 / math.sqrt(fan), generator=generator)
    return module.eval()


def test_an_official_checkpoint_gives_the_official_depth(tmp_path: Path) -> None:
    definition = tiny()
    official = randomised(OfficialDepth(SIZES))
    torch.save(official.state_dict(), tmp_path / "official.pth")
    weights.load(definition, weights.read(tmp_path / "official.pth"), "official.pth")
    pixels = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = official(pixels)
    assert expected.std() > 1e-3 * expected.abs().max()
    assert torch.allclose(depth(definition, pixels), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_missing_and_unexpected_official_keys_are_named(tmp_path: Path) -> None:
    state = OfficialDepth(SIZES).state_dict()
    del state["depth_head.scratch.refinenet2.resConfUnit1.conv2.bias"]
    state["pretrained.blocks.0.attn.rope"] = torch.zeros(1)
    with pytest.raises(CompileError) as caught:
        weights.load(tiny(), dict(state), "official.pth")
    assert "missing: neck.fusion_stage.layers.2.residual_layer1.convolution2.bias" in str(caught.value)
    assert "unexpected: pretrained.blocks.0.attn.rope" in str(caught.value)


def test_a_checkpoint_of_another_variant_is_refused() -> None:
    state = OfficialDepth(replace(SIZES, hidden_size=48)).state_dict()
    with pytest.raises(CompileError, match="of another shape"):
        weights.load(tiny(), dict(state), "official.pth")


def test_weights_under_transformers_names_load_unchanged() -> None:
    source, target = tiny(), tiny()
    randomised(source.weights)
    weights.load(target, dict(source.weights.state_dict()), "model.safetensors")
    pixels = torch.randn(1, 3, 56, 56)
    assert torch.equal(depth(source, pixels), depth(target, pixels))


def test_random_weights_are_the_seed_and_the_depth_follows_the_picture() -> None:
    first, second, other = tiny(), tiny(), tiny()
    for definition, seed in ((first, 0), (second, 0), (other, 1)):
        draw(definition.weights, torch.Generator().manual_seed(seed))
    example, references = checked_inputs(first.graphs["main"], "main", first.buckets[0], 1)
    pixels = example["pixel_values"]
    assert torch.equal(depth(first, pixels), depth(second, pixels))
    assert not torch.equal(depth(first, pixels), depth(other, pixels))
    maps = torch.cat([depth(first, reference["pixel_values"]) for reference in references])
    assert maps.min() >= 0
    # Between pictures as much changes as inside them: not a pattern of the network's own.
    assert maps.std(0).mean() > 0.1 * maps.mean()
    assert maps.std((1, 2)).min() > 0.05 * maps.mean()


def test_one_part_of_the_picture_changes_its_part_of_the_depth() -> None:
    definition = tiny(image_size=112)
    draw(definition.weights, torch.Generator().manual_seed(0))
    pixels = torch.zeros(1, 3, 112, 112)
    changed = pixels.clone()
    changed[..., :28, :28] = 2.0
    difference = (depth(definition, changed) - depth(definition, pixels))[0].abs()
    assert difference[:28, :28].mean() > 1.5 * difference[56:, 56:].mean()


@pytest.mark.parametrize("batch", [1, 3])
def test_buckets_and_batches_shape_the_inputs(batch: int) -> None:
    example, references = checked_inputs(tiny().graphs["main"], "main", {"image": [42, 70]}, batch)
    assert example["pixel_values"].shape == (batch, 3, 42, 70)
    assert len(references) >= 5
    assert depth(tiny(), example["pixel_values"]).shape == (batch, 42, 70)


@pytest.mark.parametrize("bucket", [{"image": [50, 56]}, {"image": [56]}, {"tokens": 128}, {"image": 56}])
def test_a_bucket_that_the_patches_do_not_divide_is_refused(bucket: dict[str, object]) -> None:
    with pytest.raises(CompileError, match="multiples of 14"):
        checked_inputs(tiny().graphs["main"], "main", bucket, 1)


def test_official_sizes() -> None:
    counts = {"vits": 24_785_089, "vitb": 97_470_785, "vitl": 335_315_649}
    with torch.device("meta") if hasattr(torch.device, "__enter__") else torch.no_grad():
        names = list(VARIANTS) if hasattr(torch.device, "__enter__") else ["vits"]
        for name in names:
            assert sum(p.numel() for p in FAMILY.build(name, {}).weights.parameters()) == counts[name]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"depth": 3}, "depth: there is no such option"),
        ({"heads": 5}, "no multiple of heads"),
        ({"layers_out": [1, 2, 3]}, "4 values"),
        ({"layers_out": [1, 2, 3, 9]}, "goes beyond layers"),
        ({"image_size": 60}, "no multiple of 14"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(CompileError, match=said):
        tiny(**options)


def test_the_registry_lists_it_and_names_what_exists() -> None:
    assert models.families()["depth_anything_v2"].variants.keys() == {"vits", "vitb", "vitl"}
    with pytest.raises(CompileError, match="depth_anything_v2"):
        models.find("depth_anything_v3", None)
    with pytest.raises(CompileError, match="vits, vitb, vitl"):
        models.find("depth_anything_v2", "vitg")


def test_positions_are_resized_as_the_official_code_does_it_in_every_environment() -> None:
    """The ratio has 0.1 added to the rows and columns: written down once more, on a grid that is not square."""
    definition = FAMILY.build("vits", asdict(SIZES))
    embeddings = definition.weights.backbone.embeddings
    with torch.no_grad():
        embeddings.position_embeddings.normal_(generator=torch.Generator().manual_seed(0))
        found = embeddings.interpolate_pos_encoding(torch.zeros(1, 1 + 3 * 5, SIZES.hidden_size), 42, 70)
        grid = embeddings.position_embeddings[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
        scale = (3.1 / 4, 5.1 / 4)
        expected = torch.nn.functional.interpolate(grid, scale_factor=scale, mode="bicubic")
        plain = torch.nn.functional.interpolate(grid, size=(3, 5), mode="bicubic")
    rows = found[:, 1:].reshape(1, 3, 5, -1).permute(0, 3, 1, 2)
    torch.testing.assert_close(rows, expected)
    assert (rows - plain).abs().max() > 0.01
    assert torch.equal(found[:, 0], embeddings.position_embeddings[:, 0])
    same = embeddings.interpolate_pos_encoding(torch.zeros(1, 17, SIZES.hidden_size), 56, 56)
    assert torch.equal(same, embeddings.position_embeddings)
