"""What the kernels of a device keep for the backward pass, on tensors of the meta device, which would choose others.

The kernel for attention is the one that the device's own PyTorch chooses. Sources: PyTorch's
aten/src/ATen/native/transformers/cuda/attention.cu, attention_backward.cu and layer_norm_kernel.cu.
"""
import contextlib
from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend

from .ledger import Ledger

aten = torch.ops.aten
MATH, EFFICIENT = SDPBackend.MATH.value, SDPBackend.EFFICIENT_ATTENTION.value


def _chosen(choice, device: torch.device, qkv: tuple[torch.Tensor, ...], mask, grouped: bool) -> int:
    """The SDPBackend that ``device`` takes for tensors like these, asked with few tokens; of a CUDA device that is not here,
    what most take."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return SDPBackend.FLASH_ATTENTION.value if mask is None else EFFICIENT
    n = min(qkv[0].shape[-2], 128)
    with torch.inference_mode(False), torch.enable_grad():
        few = [
            torch.empty((1, t.shape[1], n, t.shape[-1]), dtype=t.dtype, device=device, requires_grad=t.requires_grad)
            for t in qkv
        ]
        few_of_mask = None if mask is None else torch.empty((1, 1, n, n), dtype=mask.dtype, device=device)
        try:
            return choice(*few, few_of_mask, **({"enable_gqa": True} if grouped else {}))
        except (NotImplementedError, RuntimeError):
            return MATH


class FlashAttention(torch.autograd.Function):
    """Keeps q, k, v, the output and the logarithm of the scores' sums; the backward pass adds up in float32. Also for
    cuDNN's kernel, which keeps the same."""

    @staticmethod
    def forward(ctx, q, k, v, scale, ledger: Ledger):
        out = output(q)
        lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.ledger = ledger
        ledger.now.flops += 2 * products(q, k)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, out, lse = ctx.saved_tensors
        ctx.ledger.now.flops += 5 * products(q, k)
        (b, h, n, d), m = q.shape, k.shape[2]
        rows, width = -(-n // 128) * 128, -(-d // 32) * 32
        work = [
            torch.empty(b, h, rows, width, dtype=torch.float32, device=q.device),  # the sum of q's gradients
            torch.empty(b, h, rows, dtype=torch.float32, device=q.device),
        ]
        if k.shape[1] != h:  # k and v have a gradient for every head, until those are added up
            work += [torch.empty(b, h, m, d, dtype=q.dtype, device=q.device) for _ in range(2)]
        grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        del work
        return *grads, None, None


class EfficientAttention(torch.autograd.Function):
    """Keeps the mask as well, in the dtype of q."""

    @staticmethod
    def forward(ctx, q, k, v, mask, ledger: Ledger):
        out = output(q)
        lse = torch.empty(*q.shape[:2], -(-q.shape[2] // 32) * 32, dtype=torch.float32, device=q.device)
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.empty_like(mask, dtype=q.dtype)
        ctx.save_for_backward(q, k, v, mask, out, lse)
        ctx.ledger = ledger
        ledger.now.flops += 2 * products(q, k)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, mask, out, lse = ctx.saved_tensors
        ctx.ledger.now.flops += 5 * products(q, k)
        work = torch.empty_like(lse), torch.empty_like(q, dtype=torch.float32)
        grads = tuple(map(torch.empty_like, (q, k, v)))
        del work
        return *grads, None, None


def output(q: torch.Tensor) -> torch.Tensor:
    """Shaped like q, (batch, heads, tokens, width), where the kernels write it: a token's heads side by side."""
    return torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


def products(q: torch.Tensor, k: torch.Tensor) -> int:
    """Floating-point operations of one matrix product of all queries with all keys."""
    b, h, n, d = q.shape
    return 2 * b * h * n * k.shape[2] * d


class FusedRMSNorm(torch.autograd.Function):
    """Keeps its input and a float32 a row (CUDA, PyTorch 2.9 and newer)."""

    @staticmethod
    def forward(ctx, x, weight, normalised: int):
        rows = torch.empty(x.shape[: x.ndim - normalised], dtype=torch.float32, device=x.device)
        ctx.save_for_backward(x, weight, rows)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, grad):
        return torch.empty_like(ctx.saved_tensors[0]), None, None


@contextlib.contextmanager
def of_device(device: torch.device, ledger: Ledger) -> Iterator[None]:
    """Attention and RMSNorm keep what they would on ``device``, while this is open."""
    functional, choice = torch.nn.functional, torch._fused_sdp_choice
    plain_attention, plain_norm = functional.scaled_dot_product_attention, torch.rms_norm  # which functional.rms_norm calls
    known: dict[tuple, int] = {}

    def asked(q, k, v, mask=None, *args, enable_gqa=False, **kwargs) -> int:
        key = q.dtype, q.shape[1:-2], k.shape[1:-2], q.shape[-1], mask is None or mask.dtype, min(q.shape[-2], 128)
        if key not in known:
            known[key] = _chosen(choice, device, (q, k, v), mask, enable_gqa)
        return known[key]

    def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        kernel = asked(q, k, v, attn_mask, enable_gqa=enable_gqa)
        if kernel == MATH:
            return plain_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        if device.type == "cpu":
            if attn_mask is not None and attn_mask.dtype == torch.bool:
                attn_mask = torch.empty_like(attn_mask, dtype=q.dtype)
            return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=attn_mask, scale=scale)[0]
        if attn_mask is not None or kernel == EFFICIENT:
            return EfficientAttention.apply(q, k, v, attn_mask, ledger)
        return FlashAttention.apply(q, k, v, scale, ledger)

    def norm(x, normalized_shape, weight=None, eps=None):
        if weight is not None and weight.dtype != x.dtype:
            return plain_norm(x, normalized_shape, weight, eps)
        return FusedRMSNorm.apply(x, weight, len(normalized_shape))

    fused_norm = device.type == "cuda" and hasattr(aten, "_fused_rms_norm")
    try:
        torch._fused_sdp_choice = asked
        functional.scaled_dot_product_attention = attention
        if fused_norm:
            torch.rms_norm = norm
        yield
    finally:
        torch._fused_sdp_choice = choice
        functional.scaled_dot_product_attention, torch.rms_norm = plain_attention, plain_norm
