"""Every family at a size that runs in a blink: model.options and a bucket."""

from __future__ import annotations

from typing import Any

from compile.definition import Bucket

STAGES = ((4, 4), (6, 6), (8, 8, 8), (8, 8, 8), (8, 8, 8))
TEXT: dict[str, Any] = {"vocabulary": 60, "hidden_size": 32, "heads": 4, "layers": 2, "positions": 20, "tokens": 12}
SEQ2SEQ: dict[str, Any] = {
    **{"vocabulary": 60, "width": 32, "layers": 2, "heads": 4, "intermediate_size": 48, "positions": 40},
    **{"tokens": 10, "target": 12},
}
RESNET: dict[str, Any] = {"layers": (1, 2, 1, 1), "stem": 16, "classes": 10, "image_size": 64}

# family, variant: options, bucket
TINY: dict[tuple[str, str], tuple[dict[str, Any], Bucket]] = {
    ("resnet", "resnet50"): (RESNET, {"image": (64, 64)}),
    ("resnet", "resnext50_32x4d"): (RESNET | {"groups": 4, "group_width": 8}, {"image": (64, 64)}),
    ("vgg", "vgg16"): ({"stages": STAGES, "hidden": 16, "classes": 10}, {"image": (224, 224)}),
    ("craft", "vgg16_bn"): ({"stages": STAGES, "deep": 16, "upper": (8, 8, 8, 8), "head": 8}, {"image": (64, 96)}),
    ("yolov3", "yolov3"): ({"classes": 3, "width": 8, "blocks": (1, 2, 1, 1, 1)}, {"image": (64, 96)}),
    ("yolov3", "tiny"): ({"classes": 3, "width": 4}, {"image": (64, 96)}),
    ("yolov4", "yolov4"): ({"classes": 3, "width": 8, "blocks": (1, 2, 1, 1)}, {"image": (64, 96)}),
    ("yolov5", "yolov5s"): ({"classes": 3, "width": 0.125}, {"image": (64, 96)}),
    ("ssd300", "vgg16"): ({"classes": 3, "stages": STAGES, "deep": 16, "extra": (8, 8, 8, 8)}, {"image": (300, 300)}),
    ("dlrm", "kaggle_10k"): (
        {"rows": (9, 30, 7), "max_rows": 20, "bottom": (16, 8), "top": (8, 1)},
        {"numbers": 13, "tables": 3},
    ),
    ("dinov2", "small"): (
        {"hidden_size": 32, "heads": 4, "layers": 2, "pretrained_size": 56},
        {"image": (42, 70)},
    ),
    ("vitmatte", "small"): (
        {
            "hidden_size": 32,
            "heads": 4,
            "layers": 3,
            "window": 2,
            "residual_layers": (2,),
            "detail": (8, 12, 16),
            "fusion": (16, 12, 8, 8),
        },
        {"image": (64, 96)},
    ),
    ("parseq", "tiny"): (
        {"width": 48, "encoder_layers": 2, "encoder_heads": 3, "decoder_heads": 4, "decoder_layers": 2},
        {"image": (32, 128)},
    ),
    ("marian", "opus-mt-en-de"): (SEQ2SEQ, {"tokens": 10}),
    ("bart", "base"): (SEQ2SEQ, {"tokens": 10}),
    ("pegasus", "xsum"): (SEQ2SEQ, {"tokens": 10}),
    ("bert", "base-uncased"): (TEXT | {"intermediate_size": 48}, {"tokens": 12}),
    ("bert", "biobert-base-cased"): (TEXT | {"intermediate_size": 48}, {"tokens": 9}),
    ("distilbert", "base-uncased"): (TEXT | {"intermediate_size": 48}, {"tokens": 12}),
    ("roberta", "base"): (TEXT | {"intermediate_size": 48}, {"tokens": 12}),
    ("xlm_roberta", "base"): (TEXT | {"intermediate_size": 48}, {"tokens": 12}),
    ("xlm", "mlm-ende-1024"): (TEXT, {"tokens": 12}),
}
