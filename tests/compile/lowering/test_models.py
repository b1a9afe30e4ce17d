"""Whole models, tiny: lowered equals original on fresh inputs, nothing unsupported is left besides embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compile.lowering import lower
from tests.compile.lowering.checks import distance, unsupported

transformers = pytest.importorskip("transformers")

VISION = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**VISION, "num_hidden_layers": 2, "vocab_size": 99}


class Flat(nn.Module):
    """The floating-point outputs of a model as a flat tuple."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs by the names given."""
        return tuple(_floats(self.model(**dict(zip(self.names, inputs, strict=True)))))


def _floats(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in _floats(part)] if isinstance(value, (list, tuple)) else []


def drawn(model: nn.Module) -> nn.Module:
    """Weights that make the output depend on the input."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() > 1:
                weight.copy_(noise * weight[0].numel() ** -0.5)
            else:
                weight.copy_(0.1 * noise + (1.0 if "weight" in name else 0.0))
    return model.eval()


def compare(
    module: nn.Module, example: tuple[Tensor, ...], fresh: tuple[Tensor, ...], besides: frozenset[str] = frozenset()
) -> Any:
    """Lower on the example, compare on fresh inputs, run and traced, within twice the eager model's own error."""
    result = lower(module, example)
    with torch.no_grad():
        expected = module(*fresh)
        assert all(tensor.std() > 1e-3 for tensor in expected)
        assert distance(module(*example), expected) > 1e-3
        traced = torch.jit.trace(result.module, example, check_trace=False)
        assert distance(result.module(*fresh), expected) <= 1e-5
        assert distance(traced(*fresh), expected) <= 1e-5
    assert set(unsupported(result.module, example)) <= besides
    return result


def _with_attention(config: Any, attention: str) -> Any:
    config._attn_implementation = attention
    return config


def _depth(attention: str) -> nn.Module:
    backbone = transformers.Dinov2Config(
        **VISION,
        image_size=42,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=_with_attention(backbone, attention),
        reassemble_hidden_size=32,
        patch_size=14,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )
    return transformers.DepthAnythingForDepthEstimation(config)


def _matting(attention: str) -> nn.Module:
    backbone = transformers.VitDetConfig(
        **{key: value for key, value in VISION.items() if key != "intermediate_size"},
        image_size=64,
        pretrain_image_size=32,
        patch_size=16,
        num_channels=4,
        window_size=2,
        window_block_indices=[0, 2],
        residual_block_indices=[1, 3],
        out_features=["stage4"],
        use_relative_position_embeddings=True,
    )
    config = transformers.VitMatteConfig(
        backbone_config=backbone, hidden_size=32, convstream_hidden_sizes=[8, 8, 8], fusion_hidden_sizes=[16, 8, 8, 8]
    )
    return transformers.VitMatteForImageMatting(config)


VISUAL: dict[str, tuple[Callable[[str], nn.Module], tuple[int, ...]]] = {
    "depth_anything": (_depth, (1, 3, 70, 56)),
    "vitmatte": (_matting, (1, 4, 96, 64)),
    "dinov2": (
        lambda a: transformers.Dinov2Model(_with_attention(transformers.Dinov2Config(**VISION, image_size=42), a)),
        (1, 3, 56, 70),
    ),
    "swin": (
        lambda a: transformers.SwinModel(
            transformers.SwinConfig(image_size=64, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
        ),
        (1, 3, 64, 64),
    ),
    "segformer": (
        lambda a: transformers.SegformerForSemanticSegmentation(
            transformers.SegformerConfig(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, decoder_hidden_size=32)
        ),
        (1, 3, 64, 96),
    ),
    "resnet": (
        lambda a: transformers.ResNetModel(
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
        ),
        (1, 3, 64, 64),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", VISUAL)
def test_vision(name: str, attention: str) -> None:
    build, shape = VISUAL[name]
    try:
        model = drawn(build(attention))
    except (ImportError, ValueError) as error:
        pytest.skip(f"this transformers has no {attention} attention for it: {error}")
    module = Flat(model, ("pixel_values",)).eval()
    compare(module, (torch.randn(shape),), (torch.randn(shape),))


def _text(kind: str, config: dict[str, Any]) -> Callable[[str], nn.Module]:
    def build(attention: str) -> nn.Module:
        made = getattr(transformers, f"{kind}Config")(**config)
        return getattr(transformers, f"{kind}Model")(_with_attention(made, attention))  # type: ignore[no-any-return]

    return build


TEXTUAL = {
    "bert": _text("Bert", TEXT),
    "distilbert": _text("DistilBert", {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "roberta": _text("Roberta", TEXT),
    "xlm_roberta": _text("XLMRoberta", TEXT),
    "xlm": _text("XLM", {"vocab_size": 99, "emb_dim": 32, "n_layers": 2, "n_heads": 4}),
    "electra": _text("Electra", {**TEXT, "embedding_size": 16}),
    "deberta": _text("DebertaV2", {**TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", TEXTUAL)
def test_text(name: str, attention: str) -> None:
    """The example's mask is all ones, the fresh one is not: a shortcut for the first must not be baked in."""
    try:
        model = drawn(TEXTUAL[name](attention))
    except (ImportError, ValueError) as error:
        pytest.skip(f"this transformers has no {attention} attention for it: {error}")
    module = Flat(model, ("input_ids", "attention_mask")).eval()
    ones, mask = torch.ones(2, 12, dtype=torch.long), torch.ones(2, 12, dtype=torch.long)
    mask[0, 8:] = 0
    example, fresh = (torch.randint(5, 99, (2, 12)), ones), (torch.randint(5, 99, (2, 12)), mask)
    compare(module, example, fresh, besides=frozenset({"aten::embedding"}))


class Focus(nn.Module):
    """YOLO's first block: four slices, then a convolution; the blocks around it with in-place SiLU and Mish."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(12, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Mish(inplace=True))
        self.head = nn.Conv2d(16, 3 * 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> decoded boxes [N, 3 * H/2 * W/2, 7]."""
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        wide = self.first(torch.cat(parts, 1))
        deep = nn.functional.interpolate(self.second(wide), scale_factor=2, mode="nearest")
        maps = self.head(torch.cat([wide, deep], 1))
        batch, _, height, width = maps.shape
        boxes = maps.view(batch, 3, 7, height, width).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack((columns, rows), 2).view(1, 1, height, width, 2).float()
        boxes[..., 0:2] = (boxes[..., 0:2] * 2.0 - 0.5 + grid) * 8
        boxes[..., 2:4] = (boxes[..., 2:4] * 2) ** 2
        return boxes.view(batch, -1, 7)


def test_yolo_blocks() -> None:
    module = Flat(drawn(Focus()), ("x",)).eval()
    result = compare(module, (torch.randn(1, 3, 32, 24),), (torch.randn(1, 3, 32, 24),))
    assert result.report.applied["indexed_writes"] == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_depth_anything_v2_small_at_full_size() -> None:
    backbone = transformers.Dinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        out_indices=[3, 6, 9, 12],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
    )
    module = Flat(drawn(transformers.DepthAnythingForDepthEstimation(config)), ("pixel_values",)).eval()
    compare(module, (torch.randn(1, 3, 518, 518),), (torch.randn(1, 3, 518, 518),))
