"""What makes gradients through ComfyUI's model code exact, on weights that ComfyUI keeps managing.

Four things stand in the way. The executor's weights are inference tensors, which autograd refuses to save; streamed
weights lie in buffers that the next layer uses again; model code updates tensors in place that autograd has saved; and
optimized attention kernels have no backward. FrozenLinear, `usable_by_autograd`, `lasting_weights`,
`out_of_place_updates` and attention.py answer them.
"""
import contextlib
from collections.abc import Iterator

import comfy.ops
import torch

from . import attention, compat, own_forwards, patches, recompute
from .layers import is_linear
from .plain import is_plain, ordinary


class FrozenLinear(torch.autograd.Function):
    """A Linear whose weight gets no gradient and is not saved: the backward pass asks ComfyUI for it again.

    So a weight may be streamed, quantised or patched, and costs no memory between forward and backward. Where the forward
    is that of a block computed again, whose backward pass follows at once, what it has fetched serves both.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, module: torch.nn.Module, forward) -> torch.Tensor:
        ctx.module, ctx.dtype = module, x.dtype
        with recompute.weight_wanted(module):
            return forward(x)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        fetched = recompute.weights.pop(ctx.module, None)
        with compat.linear_weight(ctx.module, grad.dtype, grad.device, fetched) as weight:
            return (grad @ weight).to(ctx.dtype), None, None


def frozen(module: torch.nn.Module, plain):
    """``plain``, a forward of a Linear, without a gradient for its weight.

    What comes in front of all LoRA layers needs no gradient at all, and some models update it in place (OmniGen2), which
    a view made by an autograd function does not allow.
    """
    forward = plain
    if compat.clamps_its_input(module):

        def forward(x: torch.Tensor) -> torch.Tensor:
            return plain(x.clone())

    def run(x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            return FrozenLinear.apply(x, module, forward)
        with torch.no_grad():
            return forward(x)

    return run


@contextlib.contextmanager
def usable_by_autograd(model: torch.nn.Module) -> Iterator[None]:
    """Let autograd save the parameters and buffers of ``model`` that were made in inference mode, and want no gradient
    for those that were not.

    Each is replaced by a tensor on the same storage, so nothing is copied; the original objects return on the way out.
    """

    replaced = []
    try:
        for module in model.modules():
            for tensors, wrap in ((module._parameters, True), (module._buffers, False)):
                for name, tensor in tensors.items():
                    if is_plain(tensor) and (tensor.is_inference() or tensor.requires_grad) and tensor.device.type != "meta":
                        replaced.append((tensors, name, tensor))
                        tensors[name] = torch.nn.Parameter(ordinary(tensor), requires_grad=False) if wrap else ordinary(tensor)
                        tensors[name].__dict__.update(tensor.__dict__)  # newer hosts note there what to cast it to
        yield
    finally:
        for tensors, name, tensor in replaced:
            tensors[name] = tensor


@contextlib.contextmanager
def lasting_weights() -> Iterator[None]:
    """Let autograd save the weights that ComfyUI casts, moves or patches for one call of a layer.

    Newer hosts move them through buffers that belong to inference mode and to the next layer as well, so autograd would
    refuse them, or find another layer's weights at backward. Norms, convolutions and Linears that are not frozen get
    copies of their own; FrozenLinear saves none.
    """
    fetch, let_go = comfy.ops.cast_bias_weight, comfy.ops.uncast_bias_weight
    fetched: dict[torch.nn.Module, tuple] = {}  # until the layer has run: another stream may still be writing them

    def lasting(module: torch.nn.Module, t: torch.Tensor | None) -> torch.Tensor | None:
        own = any(t is p for p in module._parameters.values())
        if t is None or (own and is_plain(t) and not t.is_inference()):
            return t
        # ComfyUI-GGUF's tensors, which newer hosts give to norms and convolutions too, are their own clones
        return (t if is_plain(t) or hasattr(t, "__tensor_flatten__") else t.as_subclass(torch.Tensor)).clone()

    def fetch_to_keep(module: torch.nn.Module, *args, **kwargs):
        with torch.inference_mode():
            weight, bias, *stream = fetch(module, *args, **kwargs)
        if not torch.is_grad_enabled():  # within FrozenLinear
            if recompute.is_wanted(module) and not compat.is_at_hand(module, weight, *stream):
                borrowed = compat.is_borrowed(weight, *stream)
                recompute.weights[module] = (weight.clone(), None) if borrowed else (weight, None, *stream)
            return weight, bias, *stream
        if stream and stream[0] is not None:
            fetched[module] = weight, bias
        return lasting(module, weight), lasting(module, bias), *stream

    def let_go_of_fetched(module: torch.nn.Module, weight, bias, stream) -> None:
        let_go(module, *fetched.get(module, (weight, bias)), stream)
        fetched.pop(module, None)

    comfy.ops.cast_bias_weight, comfy.ops.uncast_bias_weight = fetch_to_keep, let_go_of_fetched
    try:
        yield
    finally:
        comfy.ops.cast_bias_weight, comfy.ops.uncast_bias_weight = fetch, let_go


@contextlib.contextmanager
def out_of_place_updates() -> Iterator[None]:
    """Turn `a += b` (and -=, *=, /=) into `a = a + b` wherever autograd is at work, for forward and backward.

    Without it PyTorch raises on Flux; with gradient checkpointing it does not, and gradients are silently wrong by
    percents. What needs no gradient, such as an optimizer's step counter, is still updated in place. It changes
    ``torch.Tensor`` for the whole process until the way out.
    """

    def replacement(in_place, operation):
        def update(self, other):
            other_requires_grad = isinstance(other, torch.Tensor) and other.requires_grad
            if torch.is_grad_enabled() and (self.requires_grad or other_requires_grad):
                return operation(self, other).to(self.dtype)  # like the update in place
            return in_place(self, other)

        return update

    operations = {"__iadd__": torch.add, "__isub__": torch.sub, "__imul__": torch.mul, "__itruediv__": torch.div}
    originals = {name: torch.Tensor.__dict__.get(name) for name in operations}
    try:
        for name, operation in operations.items():
            setattr(torch.Tensor, name, replacement(getattr(torch.Tensor, name), operation))
        yield
    finally:
        for name, original in originals.items():
            if original is None:
                delattr(torch.Tensor, name)
            else:
                setattr(torch.Tensor, name, original)


@contextlib.contextmanager
def exact_gradients(model: torch.nn.Module, diffusion_model: torch.nn.Module, how: recompute.Recompute) -> Iterator[None]:
    """Everything above around a training loop on a ComfyUI ``model`` whose weights stay as they are."""
    diffusion_model = getattr(diffusion_model, "_orig_mod", diffusion_model)
    dtype, device = compat.compute_dtype(model), model.device
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(compat.training_mode())
        stack.enter_context(attention.differentiable())
        stack.enter_context(patches.uncompiled(model))
        stack.enter_context(usable_by_autograd(model))
        stack.enter_context(lasting_weights())
        stack.enter_context(own_forwards.differentiable(diffusion_model, is_linear, frozen, dtype, device))
        stack.enter_context(out_of_place_updates())
        stack.enter_context(recompute.recomputed(diffusion_model, how))
        yield
