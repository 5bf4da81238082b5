"""A LoRA on a model, through ComfyUI's own loader, and the proof that it does there what training saw."""
import re
from pathlib import Path

import comfy.lora
import comfy.lora_convert
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase

from ..data.text import counted
from .patches import uncompiled

TEXT_ENCODER = re.compile(r"lora_(prior_)?te\d*_|text_encoders?(_\d+)?\.")  # as kohya, diffusers and ComfyUI name them
WHOLE = (".diff", ".diff_b", ".set_weight", ".w_norm", ".b_norm")


def with_lora(model, lora: dict[str, torch.Tensor], strength: float) -> comfy.model_patcher.ModelPatcher:
    """The MODEL with the LoRA on it; the given one stays as it is."""
    with uncompiled(model.model):
        return comfy.sd.load_lora_for_models(model, None, lora, strength, 0)[0]


def added(model, patched) -> dict[str, list[tuple]]:
    """ComfyUI's patches on weights, by their names, that ``patched`` has and ``model``, which it was made from, has not."""
    before = {key: len(patches) for key, patches in model.patches.items()}
    return {key: new for key, patches in patched.patches.items() if (new := patches[before.get(key, 0) :])}


def of_text_encoder(lora: dict[str, torch.Tensor]) -> list[str]:
    """The keys of ``lora`` that are for a text encoder, in every way of naming them that ComfyUI's loader knows."""
    return sorted(filter(TEXT_ENCODER.match, lora))


def unused(lora: dict[str, torch.Tensor], layers: dict[str, list[tuple]]) -> list[str]:
    """The keys of ``lora`` that are in none of the patches that ComfyUI made of it."""
    lora, patches = comfy.lora_convert.convert_lora(dict(lora)), [part[1] for parts in layers.values() for part in parts]
    # An adapter keeps the names of all that was loaded with it, but a whole difference or value, which has none, is the
    # file's tensor itself.
    names = {key for patch in patches for key in getattr(patch, "loaded_keys", ()) if not key.endswith(WHOLE)}
    wholes = {id(value) for patch in patches if isinstance(patch, tuple) for value in patch[1]}
    used = {key for key, value in lora.items() if key in names or id(value) in wholes}
    used |= {f"{key.rpartition('.')[0]}.alpha" for key in used}  # which a difference makes no use of
    return sorted(lora.keys() - used)


def kind(patch) -> str:
    """What one of ComfyUI's patches is: "LoRA" where it is plain, else what to call it."""
    if not isinstance(patch, LoRAAdapter):
        adapter = isinstance(patch, WeightAdapterBase)
        return type(patch).__name__.removesuffix("Adapter") if adapter else f"{patch[0]} of the whole weight"
    *_, mid, dora_scale, reshape = patch.weights
    found = {"lora_mid": mid, "DoRA (dora_scale)": dora_scale, "reshape_weight": reshape}
    return next((name for name, value in found.items() if value is not None), "LoRA")


def factors(patch, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The B (rows, rank) and A (rank, columns) of a plain LoRA in float32, its scale in B: what it adds is B @ A.

    Raises:
        ValueError: they have other shapes.
    """
    up, down = (torch.atleast_2d(matrix).flatten(1).float() for matrix in patch.weights[:2])
    if not (rank := len(down)) or up.shape != (rows, rank) or down.shape != (rank, columns):
        raise ValueError(f"{tuple(up.shape)} times {tuple(down.shape)}, which is no weight of {rows} x {columns}")
    alpha = patch.weights[2]
    return up if alpha is None else up * (alpha / rank), down


def check_loads(
    model: comfy.model_patcher.ModelPatcher, file: Path, trained: dict[str, torch.Tensor]
) -> dict[str, list[tuple]]:
    """The patches that ComfyUI makes of ``file`` for the model, by the weights' names.

    Raises:
        RuntimeError: a key of the file is not used, or a layer of those ``trained`` is not changed.
    """
    lora = comfy.utils.load_torch_file(str(file), safe_load=True)
    layers = added(model, with_lora(model, lora, 1.0))
    if left := unused(lora, layers):
        raise RuntimeError(f"{file}: ComfyUI would not load {counted(len(left), 'key')}, first {left[0]}. Please report it.")
    if 2 * len(layers) != len(trained):
        raise RuntimeError(f"{file}: ComfyUI changes {len(layers)} layers, training {len(trained) // 2}. Please report it.")
    return layers


def prove(
    model: comfy.model_patcher.ModelPatcher, file: Path, trained: dict[str, torch.Tensor], tolerance: float = 1e-5
) -> None:
    """Check that ComfyUI, loading ``file`` at strength 1, adds to every layer what training did: lora_B @ lora_A.

    A layer at a time on the model's device, so that a large base costs neither memory nor minutes. ``tolerance`` is
    relative.

    Raises:
        RuntimeError: as of check_loads, or a layer is changed in another way.
    """
    for key, parts in check_loads(model, file, trained).items():
        path = key.removesuffix(".weight")
        a, b = (trained[f"{path}.lora_{x}.weight"].to(model.load_device, torch.float32) for x in "AB")
        wanted = b @ a
        changed = comfy.lora.calculate_weight(parts, torch.zeros_like(wanted), key)
        error = (changed - wanted).norm() / wanted.norm().clamp_min(1e-12)
        if not error <= tolerance:
            raise RuntimeError(f"{file}: the effect on {key} differs by {error:.1e} from training. Please report it.")
