"""Which operators a graph may name: torch's own that compute, and none that touch files."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

PYTHON: Final[Mapping[str, Callable[..., Any]]] = {
    name: getattr(operator, name)
    for name in (
        *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem"),
        *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_"),
    )
}
"""Of sizes, which are Python's integers; `getitem` also of an operator's several results."""
EXTREMES: Final[Mapping[str, Callable[..., Any]]] = {
    "sym_max": torch.sym_max,
    "sym_min": torch.sym_min,
    "sym_not": torch.sym_not,
    "sym_int": torch.sym_int,
    "sym_float": torch.sym_float,
}

NAMESPACES: Final = ("aten", "quantized_decomposed")
REFUSED: Final = frozenset(
    (
        *("save", "from_file", "set_", "set_data", "set_grad_enabled", "warn", "record_stream"),
        *("pin_memory", "is_pinned", "as_strided_", "empty_strided", "new_empty_strided", "cuda"),
    )
)
"""Of aten: those that reach files, other storage, or the process's own state."""
REFUSED_PARTS: Final = ("resize", "backward", "unsafe", "miopen", "cudnn", "sparse", "mkldnn")
PRIVATE: Final = frozenset(
    (
        *("_to_copy", "_unsafe_view", "_softmax", "_log_softmax", "_safe_softmax", "_conj"),
        *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_native_batch_norm_legit"),
        *("_native_batch_norm_legit_no_training", "_fused_rms_norm", "_trilinear", "_upsample"),
        *("_scaled_dot_product_flash_attention_for_cpu", "_assert_tensor_metadata"),
        *("_scaled_dot_product_attention_math", "_assert_scalar", "_assert_async"),
        *("_local_scalar_dense", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
        *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_weight_norm"),
        *("_weight_norm_interface", "_convolution", "_cdist_forward", "_euclidean_dist"),
        *("_embedding_bag", "_embedding_bag_forward_only", "_shape_as_tensor", "_is_all_true"),
        *("_is_any_true", "_stack", "_prelu_kernel", "_reshape_alias", "_neg_view", "_chunk_cat"),
        *("_fft_r2c", "_fft_c2r", "_fft_c2c", "_linalg_svd", "_linalg_det", "_linalg_eigh"),
        *("_native_multi_head_attention", "_transformer_encoder_layer_fwd", "_pdist_forward"),
        *("_nested_tensor_from_mask_left_aligned", "_functional_sym_constrain_range"),
        *("_functional_sym_constrain_range_for_size", "_thnn_fused_gru_cell", "_trilinear"),
    )
)
"""The operators of aten that begin with an underscore and may be named nevertheless."""


def refusal(name: str) -> str:
    """Why a graph may not name an operator, such as `aten.linear.default`; "" where it may."""
    parts = name.split(".")
    if len(parts) != 3 or not all(part.isidentifier() for part in parts):
        return "is no name of an operator"
    namespace, base, _ = parts
    if namespace not in NAMESPACES:
        return f"is none of {' or '.join(NAMESPACES)}: only torch's own operators are known here"
    if namespace == "aten" and base not in PRIVATE:
        if base in REFUSED or any(part in base for part in REFUSED_PARTS):
            return "is none that only computes"
        if base.startswith("_") and not (base.startswith("__") and base.endswith("__")):
            return "is one of torch's private ones"
    return ""


def operator_named(name: str) -> Callable[..., Any]:
    """The operator.

    Raises:
        LookupError: a graph may not name it, or this torch has none of that name.
    """
    if why := refusal(name):
        raise LookupError(f"{name!r} {why}")
    # Of python's own library of torch: where it is not imported, torch has no such operators.
    import torch.ao.quantization.fx._decomposed

    found: Any = torch.ops
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise LookupError(f"{name!r} is not in torch {torch.__version__}") from error
    if not isinstance(found, torch._ops.OpOverload):
        raise LookupError(f"{name!r} is no operator")
    chosen: Callable[..., Any] = found
    return chosen
