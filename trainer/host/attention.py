"""Attention that has a backward on every device, without room for all pairs of tokens at once.

The kernels that generate fastest (sage, flash, int8) have no backward or drop gradients silently, and ComfyUI's own
memory-saving ones fail in it. PyTorch's has one, but where no fused kernel takes the tensors (AMD without AOTriton,
Macs, older Intel) it computes all scores at once: 11 GB a block for FLUX.1 at 1024 pixels with one reference.
"""
import contextlib
import sys
import types
from collections.abc import Iterator

import comfy.ldm.modules.attention as comfy_attention
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch.nn.attention import SDPBackend
from torch.utils.checkpoint import checkpoint

NAMES = "optimized_attention", "optimized_attention_masked"  # of ComfyUI's choice, in every module that uses it
SCORES = 2**26  # attention scores computed at a time where no kernel is fused: 256 MiB in float32


def attention(_, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, mask=None, **options) -> torch.Tensor:
    """ComfyUI's attention by PyTorch; shapes and ``options`` are those of comfy's ``attention_pytorch``.

    Without a fused kernel it goes over some queries at a time and computes their scores again for the backward pass
    (Rabe and Staats 2021, https://arxiv.org/abs/2112.05682), so that only those of one part are in memory.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    at_once = max(1, SCORES // (q.shape[0] * heads * keys))
    if queries <= at_once or is_fused(q, k, v, heads, mask, options):
        return attention_pytorch(q, k, v, heads, mask=mask, **options)

    def part(q: torch.Tensor, mask) -> torch.Tensor:
        return attention_pytorch(q, k, v, heads, mask=mask, **options)

    masks = [mask] * -(-queries // at_once)
    if mask is not None and mask.shape[-2] == queries:
        masks = mask.split(at_once, dim=-2)
    parts = zip(q.split(at_once, dim=-2), masks)
    return torch.cat([checkpoint(part, *of_part, use_reentrant=False) for of_part in parts], dim=-2)


def is_fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, mask, options: dict) -> bool:
    """Whether PyTorch has a kernel for these that keeps no scores: asked as scaled_dot_product_attention asks itself."""
    if not options.get("skip_reshape"):
        width = q.shape[-1] // heads
        q, k, v = (t.unflatten(-1, (-1, width)).transpose(1, 2) for t in (q, k, v))
    while mask is not None and mask.ndim < 4:
        mask = mask.unsqueeze(mask.ndim - 2)  # as attention_pytorch does: (batch, heads, queries, keys)
    grouped = {"enable_gqa": True} if options.get("enable_gqa") else {}
    try:
        return torch._fused_sdp_choice(q, k, v, mask, **grouped) != SDPBackend.MATH.value
    except (NotImplementedError, RuntimeError):  # a device without any
        return False


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """All of ComfyUI's models, and those of other packs, compute attention as above while this is open.

    ComfyUI lets a call override its kernel by transformer_options; several models (SD3, Ernie, HunyuanDiT) do not pass
    those on, so the functions are replaced wherever a module holds them.
    """

    def overriding(kernel):
        def call(*args, transformer_options=None, **kwargs):
            options = {**(transformer_options or {}), "optimized_attention_override": attention}
            return kernel(*args, transformer_options=options, **kwargs)

        return call

    kernels = comfy_attention.optimized_attention, comfy_attention.optimized_attention_masked
    modules = [module for module in list(sys.modules.values()) if isinstance(module, types.ModuleType)]
    held = [(m, name, vars(m)[name]) for m in modules for name in NAMES if vars(m).get(name) in kernels]
    try:
        for module, name, kernel in held:
            setattr(module, name, overriding(kernel))
        yield
    finally:
        for module, name, kernel in held:
            setattr(module, name, kernel)
