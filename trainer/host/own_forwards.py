"""Forwards that others have put on the layers of a model: "bypass" LoRAs, packs that multiply in fp8 or swap blocks.

Such a forward lies in the ``__dict__`` of a module, in front of the one of its class. Gradients go through it where it has
a gradient, and by the weight of the layer where it is only another way to multiply with it.
"""
import contextlib
import functools
import re
import types
from collections.abc import Callable, Iterator

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, copy_nested_dicts
from torch.overrides import TorchFunctionMode

from . import compat
from .plain import is_plain, ordinary

PROBES = 16  # directions in which a gradient is tried
SAME_GRADIENT, SAME_WEIGHT = 0.02, 0.1  # relative; room for half precision, and for activations rounded to fp8


class OrdinaryTensors(TorchFunctionMode):
    """While this is entered, operations see tensors of inference mode as ordinary ones: the executor's nodes have made the
    weights that patches bring."""

    def __torch_function__(self, function, _, args=(), kwargs=None):
        return function(*_ordinary(args), **_ordinary(kwargs or {}))


def _ordinary(value):
    if isinstance(value, torch.Tensor):
        return ordinary(value) if is_plain(value) and value.is_inference() else value
    if type(value) in (list, tuple):
        return type(value)(map(_ordinary, value))
    return {k: _ordinary(v) for k, v in value.items()} if type(value) is dict else value


def through(forward: Callable) -> Callable:
    """``forward`` on ordinary tensors."""

    def run(*args, **kwargs):
        with OrdinaryTensors():
            return forward(*args, **kwargs)

    return run


def slots(module: torch.nn.Module) -> list[tuple[object, str]]:
    """Where the forwards of ``module`` lie, the outermost first, as (object, attribute).

    What replaces a forward keeps the one it has found as its ``original_forward``, as ComfyUI's bypass LoRAs do.
    """
    found = [(module, "forward")]
    while True:
        holder = getattr(getattr(*found[-1]), "__self__", None)
        if holder is module or getattr(holder, "__dict__", {}).get("original_forward") is None:
            return found
        found.append((holder, "original_forward"))


def is_own(module: torch.nn.Module) -> bool:
    """Whether something else than the forward of its class is called, or called first."""
    return getattr(module.forward, "__func__", None) is not type(module).forward


@contextlib.contextmanager
def followed(model: ModelPatcher, on: Callable[[], None], off: Callable[[], None]) -> Iterator[None]:
    """While this is open, ``off()`` is called after ComfyUI has taken such forwards off the layers of ``model``, and
    ``on()`` after it has put them back: whenever it loads the model, also for a preview."""
    before = model.callbacks
    model.callbacks = copy_nested_dicts(before)
    try:
        model.add_callback_with_key(CallbacksMP.ON_EJECT_MODEL, "pairlora", lambda _: off())
        model.add_callback_with_key(CallbacksMP.ON_INJECT_MODEL, "pairlora", lambda _: on())
        yield
    finally:
        model.callbacks = before


@contextlib.contextmanager
def differentiable(model: torch.nn.Module, is_linear, freeze, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Let autograd go through every forward of a loaded ``model``.

    ``freeze(module, forward)`` is a forward of a Linear whose gradient comes from the weight. Under whatever lies in front
    of it, the forward of each Linear's own class is frozen so. ``dtype`` and ``device`` are those of activations.

    Raises:
        ValueError: a Linear has been given a forward whose gradient cannot be known.
    """
    before = []

    def put(holder, attribute: str, forward: Callable) -> None:
        before.append((vars(holder), attribute, vars(holder).get(attribute)))
        setattr(holder, attribute, forward)

    try:
        for path, module in model.named_modules():
            *outer, (holder, attribute) = slots(module)
            forward = getattr(holder, attribute)
            known = getattr(forward, "__func__", None) is type(module).forward
            if is_linear(module):
                put(holder, attribute, freeze(module, forward) if known else _tried(path, module, forward, freeze, dtype, device))
            elif not known:
                put(holder, attribute, through(forward))
            for holder, attribute in outer:
                if not hasattr(getattr(holder, attribute).__self__, "saves_ordinary_tensors"):  # as LoRA layers in training do
                    put(holder, attribute, through(getattr(holder, attribute)))
        yield
    finally:
        for attributes, attribute, forward in reversed(before):
            if forward is None:
                attributes.pop(attribute, None)
            else:
                attributes[attribute] = forward


def _tried(path: str, module: torch.nn.Module, forward: Callable, freeze, dtype, device) -> Callable:
    """A forward of the Linear ``module`` with the effect and the gradient of ``forward``, found by trying.

    A Linear is affine, so its gradient is right when <v, f(x) - f(0)> is <gradient of <v, f(x)>, x> for any v.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(module.in_features, generator=generator).to(device, dtype).expand(1, PROBES, -1)
    v = torch.randn(1, PROBES, module.out_features, generator=generator).to(device)
    run = through(forward)
    with torch.no_grad():
        effect = run(x.clone()).float() - run(torch.zeros_like(x)).float()
    try:
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((run(leaf).float() * v).sum(), leaf)
        if _differ((gradient.float() * x.float()).sum(-1), (effect * v).sum(-1)) < SAME_GRADIENT:
            return run
    except RuntimeError as error:  # it has no gradient of its own
        if compat.is_out_of_memory(error):
            raise
    with torch.no_grad(), compat.linear_weight(module, dtype, device) as weight:
        if _differ(effect, (x @ weight.T).float()) < SAME_WEIGHT:
            return freeze(module, run)
    raise ValueError(
        f"{title(forward)} has given the layer {path} another forward, and nothing can be learned through it. Connect the "
        "model to Train Edit LoRA without it."
    )


def _differ(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(1e-12)).item()


def title(patch) -> str:
    """What a user knows a function or object on the model by: the node or class that it comes from, and the pack."""
    source = source_of(patch)
    pack = re.search(r"custom_nodes[\\/.]([^\\/.]+)", source.__module__ or "")
    return source.__qualname__.split(".")[0] + (f" of {pack[1]}" if pack else "")


def source_of(patch):
    """The function or class that a patch is made by: of a node, its qualified name begins with the node's class."""
    patch = patch.func if isinstance(patch, functools.partial) else patch
    owner = getattr(patch, "__self__", None)
    if owner is not None and not isinstance(owner, (type, types.ModuleType)):
        patch = owner
    return patch if hasattr(patch, "__qualname__") else type(patch)
