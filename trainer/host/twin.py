"""A model's structure without its weights: the same modules on the meta device, to count what a step on it would take."""
from dataclasses import dataclass, field

import comfy.ops
import torch

from .layers import is_linear
from .plain import is_plain

META = torch.device("meta")
STATE = {"weight_function", "bias_function", "comfy_patched_weights", "prev_comfy_cast_weights", "forward"}  # of being loaded


@dataclass(frozen=True)
class Twin:
    """What a step asks of a ModelPatcher, for a model without weights, and without what nodes have put on it."""

    model: torch.nn.Module
    model_options: dict = field(default_factory=dict)


def twin(model, depths: dict[torch.nn.ModuleList, int] | None = None, streamed: bool = False) -> Twin:
    """The twin of a ModelPatcher's model, whose modules are new and whose other attributes are the same objects.

    Lists of its blocks are cut to ``depths``. If ``streamed``, the weights of Linears lie on the CPU (without storage),
    from where every use brings them.
    """
    with torch.inference_mode(False):
        base = _twin(model.model, depths or {}, streamed)
    base.device = META
    return Twin(base)


def _twin(module: torch.nn.Module, depths: dict, streamed: bool) -> torch.nn.Module:
    if is_linear(module):
        return _linear(module, streamed)
    new = type(module).__new__(type(module))
    new.__dict__ = {name: _own(value) for name, value in vars(module).items() if name not in STATE and not _is_loading(name)}
    new._parameters = {name: None if p is None else _parameter(p.shape, _stored(p), META) for name, p in module._parameters.items()}
    new._buffers = {name: None if b is None else b.to(META) for name, b in module._buffers.items()}
    children = list(module._modules.items())[: depths.get(module)]
    new._modules = {name: child and _twin(getattr(child, "_orig_mod", child), depths, streamed) for name, child in children}
    if hasattr(module, "weight_function"):
        new.weight_function, new.bias_function = [], []
    return new


def _is_loading(name: str) -> bool:
    """Whether an attribute says where newer hosts have put a weight."""
    return name.startswith(("_v", "_prefetch", "_pin"))


def _own(value):
    """Containers that a forward may fill are the twin's own."""
    return value.copy() if type(value) in (dict, list, set) else value


def _linear(module: torch.nn.Module, streamed: bool) -> torch.nn.Module:
    """One that casts its weight as it uses it, as every kind of Linear does that stores it otherwise."""
    sizes = module.in_features, module.out_features
    new = comfy.ops.manual_cast.Linear(*sizes, bias=module.bias is not None, device=META, dtype=torch.float32)
    for name, p, shape in (("weight", module.weight, sizes[::-1]), ("bias", module.bias, sizes[1:])):
        if p is not None:
            setattr(new, name, _parameter(shape, _stored(p), torch.device("cpu") if streamed else META))
    return new


def _stored(p: torch.Tensor) -> torch.dtype:
    return p.dtype if is_plain(p) else torch.float8_e4m3fn  # what is packed in 8 bits or less


def _parameter(shape, dtype: torch.dtype, device: torch.device) -> torch.nn.Parameter:
    if device == META:
        return torch.nn.Parameter(torch.empty(shape, dtype=dtype, device=META), False)
    return torch.nn.Parameter(torch.zeros((), dtype=torch.float32).to(dtype).expand(shape), False)
