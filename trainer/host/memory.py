"""Borrowing the base model: loaded by ComfyUI's own management, with an honest estimate of what training needs."""
import comfy.model_management
import comfy.model_patcher
import torch

from . import compat
from .encode import Encoded

GIB = 1024**3


def wants_checkpointing(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Recomputing activations costs a third more time; it is worth it once the model itself is large."""
    return model.model_size() > GIB


def activation_estimate(
    model: comfy.model_patcher.ModelPatcher, sample: Encoded, batch_size: int, checkpointing: bool
) -> int:
    """Bytes of activations for one step of samples like this one, from ComfyUI's own estimate for inference.

    Inference keeps about one block's activations. So does training with gradient checkpointing, a second time for the
    gradients, and the inputs of the other blocks; without checkpointing it keeps all of them.
    """
    references = sum(latent.numel() for latent in sample.references)
    one_block = model.model.memory_required([batch_size, *sample.latent.shape[1:]])
    one_block *= 1 + references / sample.latent.numel()
    blocks = sum(len(m) for m in model.model.diffusion_model.children() if isinstance(m, torch.nn.ModuleList))
    return int(one_block * (3 if checkpointing else max(blocks, 3)))


def load(model: comfy.model_patcher.ModelPatcher, activations: int, trainable: int = 0) -> None:
    """Load the model for training: ``activations`` bytes, and 16 for each of the ``trainable`` float32 numbers
    (weight, gradient, and the two moments of AdamW)."""
    with torch.inference_mode():  # outside it the loaded weights would break later inference
        comfy.model_management.load_models_gpu([model], memory_required=activations + 16 * trainable)


def release(*patchers: comfy.model_patcher.ModelPatcher) -> None:
    """Give the devices back that these models are loaded on; ComfyUI loads them again when they are used."""
    loaded = comfy.model_management.current_loaded_models
    done = [m for m in loaded if m.model is not None and any(m.model.is_clone(patcher) for patcher in patchers)]
    compat.end_phase()
    for device in {m.device for m in done}:
        comfy.model_management.free_memory(1e30, device, [m for m in loaded if m not in done])


def check_interrupted() -> None:
    """Raise ComfyUI's interrupt when the user has pressed cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()

