"""Knowing a model again: by its classes, shapes and a few values of every weight, and by what the graph has put on it."""
import contextlib
import enum
import functools
import hashlib
import types
import uuid
from collections.abc import Iterator

import comfy.model_management
import comfy.model_patcher
import numpy as np
import torch

from . import patches
from .own_forwards import is_own, slots
from .plain import is_plain

PICKS = 16  # values of each weight
ALL = 2**20  # values of a tensor up to which every one counts
OBJECTS = 100_000  # that a patch may lead to


def fingerprint(patcher: comfy.model_patcher.ModelPatcher) -> str:
    """A hash of a MODEL, or of the model in a CLIP or VAE. It does not depend on what is loaded where at the moment.

    What training leaves out does not count. A patch that cannot be known again makes every fingerprint another.
    """
    model, values = patcher.model, []
    known = Summary(model)
    digest = hashlib.sha256(type(model).__name__.encode())
    original = {**{name: kept.weight for name, kept in patcher.backup.items()}, **getattr(patcher, "backup_buffers", {})}
    with contextlib.ExitStack() as stack:
        for loaded in comfy.model_management.current_loaded_models:
            if loaded.model is not None and loaded.model.model is model:  # it may be another clone, with injections of its own
                stack.enter_context(loaded.model.use_ejected())
        stack.enter_context(patches.uncompiled(model))
        modules = dict(model.named_modules())
        for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
            if name.startswith("model_sampling."):  # of whichever clone is loaded
                continue
            tensor, (path, _, last) = original.get(name, tensor), name.rpartition(".")  # patches may be on the weights just now
            layer = modules[path]  # with dynamic VRAM, its weights are those of the file until they are used
            dtype = getattr(layer, f"{last}_comfy_model_dtype", tensor.dtype)
            digest.update(f"{name} {dtype} {type(layer).__qualname__}".encode())
            for part in _stored(tensor):
                digest.update(f"{tuple(part.shape)}".encode())
                if part.device.type != "meta" and part.numel():
                    flat = part.detach().reshape(-1)
                    if flat.element_size() == 1:  # torch 2.9 and older cannot index float8 on the CPU
                        flat = flat.view(torch.uint8)
                    picks = torch.linspace(0, flat.numel() - 1, PICKS, dtype=torch.float64).long()  # MPS has no float64
                    values.append(flat[picks.to(flat.device)].float().cpu())
        forwards = {path: getattr(*slots(module)[-1]) for path, module in modules.items() if is_own(module)}
        injections = {key: [injection.inject for injection in kept] for key, kept in patcher.injections.items()}
        digest.update(repr(known([forwards, injections])).encode())
    if values:
        digest.update(torch.cat(values).numpy().tobytes())
    cast = "manual_cast_dtype"  # some text encoders have it only while they are loaded
    compute = patcher.get_model_object(cast) if cast in patcher.object_patches or hasattr(model, cast) else None
    digest.update(str(compute).encode())
    others = {name: value for name, value in patcher.object_patches.items() if name not in ("model_sampling", cast)}
    wrappers = getattr(patcher, "weight_wrapper_patches", {})
    put = [patcher.patches, others, wrappers, patches.options(patcher), patches.around(patcher)]
    digest.update(repr(known(put)).encode())
    if hasattr(model, "model_sampling"):
        sampling = patcher.get_model_object("model_sampling")
        kinds = [kind.__name__ for kind in type(sampling).__mro__]  # ComfyUI's nodes give all of theirs one name
        plain = {name: value for name, value in vars(sampling).items() if not name.startswith("_")}
        digest.update(repr(known([kinds, plain, dict(sampling.named_buffers())])).encode())
    return digest.hexdigest()


def _stored(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The plain tensors that a weight consists of: a quantised one has several."""
    if is_plain(tensor):
        yield tensor
    elif hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _stored(getattr(tensor, name))
    else:  # ComfyUI-GGUF's: packed bytes
        yield tensor.as_subclass(torch.Tensor)


def summary(value):
    """``value`` without anything that differs from one process to the next; see Summary."""
    return Summary()(value)


class Summary:
    """Nested values, functions and objects as what is plain in them: numbers, texts, the bytes of tensors, the code of
    functions. What cannot be seen into is another one each time."""

    def __init__(self, model: torch.nn.Module | None = None):
        """``model`` and its modules are known otherwise."""
        self.own = {} if model is None else {id(module): path for path, module in model.named_modules()}
        self.model, self.seen = model, {}

    def __call__(self, value):
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype)):
            return value if not isinstance(value, enum.Enum) else str(value)
        if id(value) not in self.seen:
            self.seen[id(value)] = value, "itself"
            self.seen[id(value)] = value, self._inside(value) if len(self.seen) < OBJECTS else uuid.uuid4().hex
        return self.seen[id(value)][1]

    def _inside(self, value):
        if isinstance(value, torch.Tensor):
            return [_digest(part) for part in _stored(value)]
        if isinstance(value, np.ndarray):
            return _digest(torch.from_numpy(value)) if value.dtype.kind in "biuf" else uuid.uuid4().hex
        if isinstance(value, dict):
            return sorted(([self(key), self(v)] for key, v in value.items()), key=repr)
        if isinstance(value, (list, tuple)):
            return [self(v) for v in value]
        if isinstance(value, (set, frozenset)):
            return sorted(map(self, value), key=repr)
        if id(value) in self.own:
            return self.own[id(value)]
        if isinstance(value, functools.partial):
            return [self(value.func), self(value.args), self(value.keywords)]
        if isinstance(value, types.MethodType):
            return [self(value.__func__), self(value.__self__)]
        if isinstance(value, types.FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
            return [value.__qualname__, self(value.__code__), self(value.__defaults__), self(value.__kwdefaults__), self(cells)]
        if isinstance(value, types.CodeType):
            return [value.co_code, value.co_names, self(value.co_consts)]
        if hasattr(value, "__qualname__"):  # a class made by a call may hold in its methods what it was called with
            methods = vars(value) if isinstance(value, type) and "<locals>" in value.__qualname__ else {}
            return [value.__qualname__, self([f for f in methods.values() if isinstance(f, types.FunctionType)])]
        if isinstance(value, (types.EllipsisType, slice, range)):
            return repr(value)
        if isinstance(value, (types.ModuleType, torch.device)):
            return type(value).__name__  # a device says where, not what
        if isinstance(value, comfy.model_patcher.ModelPatcher):
            return "the model" if value.model is self.model else fingerprint(value)
        if isinstance(value, torch.nn.Module):
            inside = {name: v for name, v in vars(value).items() if not name.startswith("_")}
            return [self(type(value)), self([inside, value._parameters, value._buffers, value._modules])]
        if hasattr(value, "weights") and hasattr(value, "loaded_keys"):  # of a LoRA; loading may round them
            return [self(type(value)), self(_rounded(value.weights))]
        if hasattr(value, "__dict__"):
            return [self(type(value)), self(vars(value))]
        return uuid.uuid4().hex


def _digest(tensor: torch.Tensor):
    """Its shape and a hash of its bytes, wherever it lies; of a large one, of some of them."""
    if tensor.device.type == "meta":
        return tuple(tensor.shape)
    flat = tensor.detach().reshape(-1).view(torch.uint8) if tensor.numel() else torch.zeros(0, dtype=torch.uint8)
    if flat.numel() > ALL:
        picks = torch.linspace(0, flat.numel() - 1, ALL, dtype=torch.float64).long()
        flat = flat[picks.to(flat.device)]
    return tuple(tensor.shape), str(tensor.dtype), hashlib.sha256(flat.cpu().numpy().tobytes()).hexdigest()


def _rounded(value):
    if isinstance(value, torch.Tensor):
        return value.detach().to(torch.bfloat16)
    return [_rounded(v) for v in value] if isinstance(value, (list, tuple)) else value
