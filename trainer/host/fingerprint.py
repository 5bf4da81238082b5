"""Knowing a model again: by its classes, shapes and a few values of every weight, and by what the graph has put on it."""
import hashlib
from collections.abc import Iterator

import comfy.model_patcher
import torch

PICKS = 16  # values of each weight


def fingerprint(patcher: comfy.model_patcher.ModelPatcher) -> str:
    """A hash of a MODEL, or of the model in a CLIP or VAE. It does not depend on what is loaded where at the moment."""
    model, values = patcher.model, []
    digest = hashlib.sha256(type(model).__name__.encode())
    original = {**{name: kept.weight for name, kept in patcher.backup.items()}, **getattr(patcher, "backup_buffers", {})}
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        if name.startswith("model_sampling."):  # of whichever clone is loaded
            continue
        for part in _stored(original.get(name, tensor)):  # patches may be on the weights just now
            digest.update(f"{name} {tuple(part.shape)}".encode())
            if part.device.type != "meta" and part.numel():
                flat = part.detach().reshape(-1)
                picks = torch.linspace(0, flat.numel() - 1, PICKS, dtype=torch.float64).long()  # MPS has no float64
                values.append(flat[picks.to(flat.device)].float().cpu())
    if values:
        digest.update(torch.cat(values).numpy().tobytes())
    for name, patches in sorted(patcher.patches.items()):
        parts = [[strength, getattr(patch, "weights", patch), *rest] for strength, patch, *rest in patches]
        digest.update(f"{name} {summary(parts)}".encode())
    others = {name: value for name, value in patcher.object_patches.items() if name != "model_sampling"}
    digest.update(repr(summary([others, patcher.model_options.get("transformer_options")])).encode())
    if hasattr(model, "model_sampling"):
        sampling = patcher.get_model_object("model_sampling")
        kinds = [kind.__name__ for kind in type(sampling).__mro__]  # ComfyUI's nodes give all of theirs one name
        plain = {name: value for name, value in vars(sampling).items() if not name.startswith("_")}
        digest.update(repr(summary([kinds, plain, dict(sampling.named_buffers())])).encode())
    return digest.hexdigest()


def _stored(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The plain tensors that a weight consists of: a quantised one has several."""
    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
        yield tensor
    elif hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _stored(getattr(tensor, name))
    else:  # ComfyUI-GGUF's: packed bytes
        yield tensor.as_subclass(torch.Tensor)


def summary(value):
    """``value`` without anything that differs from one process to the next."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), float(value.float().norm())
    if isinstance(value, dict):
        return sorted((str(key), summary(v)) for key, v in value.items())
    if isinstance(value, (list, tuple)):
        return [summary(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype)):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)
