"""Attention has an exact backward with every kernel that ComfyUI may have chosen, and needs little memory in it."""
import contextlib
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

HEADS, WIDTH, QUERIES, KEYS = 3, 8, 50, 70
SCORES = 2 * HEADS * KEYS * 7  # of seven queries at a time


@pytest.fixture
def chunked(trainer, monkeypatch):
    attention = trainer("host.attention")
    monkeypatch.setattr(attention, "SCORES", SCORES)
    return attention.attention


class Largest(TorchDispatchMode):
    """The largest tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = result if isinstance(result, (tuple, list)) else [result]
        self.elements = max([self.elements, *(t.numel() for t in made if isinstance(t, torch.Tensor))])
        return result


def computed(function, in_heads: bool, out_heads: bool, mask):
    """The output and the gradients of queries, keys and values, and the largest tensor on the way."""
    generator = torch.Generator().manual_seed(0)

    def randn(tokens):
        shape = (2, HEADS, tokens, WIDTH) if in_heads else (2, tokens, HEADS * WIDTH)
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    q, k, v = randn(QUERIES), randn(KEYS), randn(KEYS)
    with sdpa_kernel(SDPBackend.MATH), Largest() as largest:
        out = function(None, q, k, v, HEADS, mask=mask, skip_reshape=in_heads, skip_output_reshape=out_heads,
                       _inside_attn_wrapper=True)  # fmt: skip
        out.backward(torch.randn(out.shape, generator=generator, dtype=torch.float64))
    return [out.detach(), q.grad, k.grad, v.grad], largest.elements


@pytest.mark.parametrize("in_heads, out_heads", [(False, False), (True, False), (True, True), (False, True)])
@pytest.mark.parametrize("shape", [None, (QUERIES, KEYS), (1, KEYS), (2, QUERIES, KEYS), (2, 1, 1, KEYS)])
def test_some_queries_at_a_time_give_what_all_at_once_give(trainer, chunked, in_heads, out_heads, shape):
    plain = trainer("host.attention").attention_pytorch
    mask = None if shape is None else torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole, most = computed(lambda _, *args, **options: plain(*args, **options), in_heads, out_heads, mask)
    parts, largest = computed(chunked, in_heads, out_heads, mask)
    assert all((a - b).abs().max() < 1e-12 for a, b in zip(whole, parts))
    masks = 0 if mask is None else mask.numel()
    assert most >= 2 * HEADS * QUERIES * KEYS and largest <= max(SCORES, 2 * KEYS * HEADS * WIDTH, masks)


def test_a_fused_kernel_is_left_to_itself(trainer, chunked, monkeypatch):
    """On a CPU all of PyTorch's kernels are fused; so they are on NVIDIA's cards and where AOTriton is."""
    attention = trainer("host.attention")
    monkeypatch.setattr(attention, "checkpoint", None)
    q = torch.randn(1, 500, HEADS * WIDTH, requires_grad=True)
    assert attention.is_fused(q, q, q, HEADS, None, {})
    assert chunked(None, q, q, q, HEADS, _inside_attn_wrapper=True).shape == q.shape
    with sdpa_kernel(SDPBackend.MATH):
        assert not attention.is_fused(q, q, q, HEADS, None, {})


@pytest.mark.parametrize("name", ["SD3", "FLUX.1 Kontext", "SD1.5"])
def test_a_kernel_without_a_backward_takes_no_part(zoo, tiny, trainer, monkeypatch, name):
    """As ComfyUI has it with --use-sage-attention. SD3 does not hand on the options that override a kernel."""
    from comfy.ldm.modules import attention

    kind = next(kind for kind in zoo.KINDS if kind.name == name)
    model = zoo.model(kind)
    samples = [zoo.sample(kind, model, 1, len(kind.references) and 1)]
    wanted = tiny.Training(model).gradient(samples, *tiny.draws(samples))

    @attention.wrap_attn
    def kernel(*args, **kwargs):
        return attention.attention_pytorch(*(t.detach() for t in args[:3]), *args[3:], **kwargs)

    before = attention.optimized_attention
    for module in list(sys.modules.values()):
        if vars(module).get("optimized_attention") is before:
            monkeypatch.setattr(module, "optimized_attention", kernel)
            if hasattr(module, "optimized_attention_masked"):
                monkeypatch.setattr(module, "optimized_attention_masked", kernel)
    assert tiny.relative(tiny.Training(model).gradient(samples, *tiny.draws(samples)), wanted) < 1e-6
    assert attention.optimized_attention is kernel, "and is back afterwards"
    monkeypatch.setattr(trainer("host.attention"), "differentiable", contextlib.nullcontext)
    assert tiny.relative(tiny.Training(model).gradient(samples, *tiny.draws(samples)), wanted) > 1e-2
