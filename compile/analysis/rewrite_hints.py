"""Which rewrite of the lowering removes an unsupported operator."""

from __future__ import annotations

# Operators of a trace whose name is not that of the PyTorch function that a rewrite replaces. Tests disable the rewrite
# and see the operator stay.
_BY_KIND = {
    **dict.fromkeys(
        (f"aten::upsample_{name}" for name in ("bilinear2d", "bicubic2d", "linear1d", "trilinear3d")), "interpolate"
    ),
    **dict.fromkeys(("aten::_upsample_bilinear2d_aa", "aten::_upsample_bicubic2d_aa"), "interpolate"),
    "aten::_scaled_dot_product_flash_attention_for_cpu": "scaled_dot_product_attention",
    "aten::index": "indexed_reads",
    "aten::im2col": "windows",
    "aten::col2im": "windows",
    "aten::grid_sampler": "grid_sample",
    "aten::grid_sampler_2d": "grid_sample",
    "aten::copy_": "indexed_writes",
    "aten::index_put_": "indexed_writes",
}


def removed_by(kind: str) -> str:
    """The name of the rewrite that replaces this operator, or "" when none does.

    A rewrite may still leave a single operator alone (sizes that are not fixed, ...): the report of lowering says so.
    """
    from compile.lowering import REWRITES, FunctionRewrite  # noqa: PLC0415 (analyzing alone does not need it)

    if kind in _BY_KIND:
        return _BY_KIND[kind]
    name = kind.rpartition("::")[2]
    found = (one.name for one in REWRITES if isinstance(one, FunctionRewrite) and name in one.operators)
    return next(found, "")
