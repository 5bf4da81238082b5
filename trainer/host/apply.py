"""A LoRA on a model, through ComfyUI's own loader, and the proof that it does there what training saw."""
from pathlib import Path

import comfy.lora
import comfy.lora_convert
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch


def fits(model: comfy.model_patcher.ModelPatcher, lora: dict[str, torch.Tensor]) -> bool:
    """Whether ComfyUI's loader finds anything in the LoRA for this model."""
    return bool(_patches(model, lora))


def with_lora(model, lora: dict[str, torch.Tensor], strength: float) -> comfy.model_patcher.ModelPatcher:
    """The MODEL with the LoRA on it; the given one stays as it is."""
    return comfy.sd.load_lora_for_models(model, None, lora, strength, 0)[0]


def prove(
    model: comfy.model_patcher.ModelPatcher, file: Path, trained: dict[str, torch.Tensor], tolerance: float = 1e-5
) -> None:
    """Check that ComfyUI, loading ``file`` at strength 1, adds to every layer what training did: lora_B @ lora_A.

    A layer at a time, so that a large base costs no memory. ``tolerance`` is relative.

    Raises:
        RuntimeError: a key is not used, a layer is missing, or a layer is changed in another way.
    """
    lora = comfy.utils.load_torch_file(str(file), safe_load=True)
    patches = _patches(model, lora)
    used = {key for patch in patches.values() for key in getattr(patch, "loaded_keys", ())}
    if unused := sorted(key for key in comfy.lora_convert.convert_lora(dict(lora)) if key not in used):
        raise RuntimeError(f"{file}: ComfyUI would not load {len(unused)} keys, first {unused[0]}. Please report it.")
    layers: dict[str, list] = {}  # of some, a file may have the rows in parts, each with where it belongs
    for key, patch in patches.items():
        key, offset = (key, None) if isinstance(key, str) else key[:2]
        layers.setdefault(key, []).append((1.0, patch, 1.0, offset, None))
    if 2 * len(layers) != len(trained):
        raise RuntimeError(f"{file}: ComfyUI changes {len(layers)} layers, training {len(trained) // 2}. Please report it.")
    for key, parts in layers.items():
        path = key.removesuffix(".weight")
        a, b = (trained[f"{path}.lora_{x}.weight"].float() for x in "AB")
        weight = torch.zeros(b.shape[0], a.shape[1])
        changed = comfy.lora.calculate_weight(parts, weight, key)
        error = (changed - b @ a).norm() / (b @ a).norm().clamp_min(1e-12)
        if not error <= tolerance:
            raise RuntimeError(f"{file}: the effect on {key} differs by {error:.1e} from training. Please report it.")


def _patches(model: comfy.model_patcher.ModelPatcher, lora: dict[str, torch.Tensor]) -> dict:
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    return comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(lora)), keys, log_missing=False)
