"""Borrowing the base model: loaded by ComfyUI's own management, in what memory there is."""
import comfy.model_management
import comfy.model_patcher
import psutil
import torch

from . import compat
from .encode import Encoded

GIB = 1024**3


def room(model: comfy.model_patcher.ModelPatcher) -> int:
    """Bytes that the model's weights and its training may take on its device, once ComfyUI has given all it can back.

    On a CPU the weights are where they are already, and not counted.
    """
    device, management = model.load_device, comfy.model_management
    free = management.get_free_memory(device) - management.extra_reserved_memory()
    if device.type != "cpu":
        free += sum(m.model_loaded_memory() for m in management.current_loaded_models if m.device == device)
    return max(0, int(free))


def system_room() -> int:
    """Bytes of system memory that are free."""
    return psutil.virtual_memory().available


def guess(model: comfy.model_patcher.ModelPatcher, sample: Encoded, batch_size: int) -> int:
    """Bytes of activations for one step of samples like this one with every block recomputed, from ComfyUI's own estimate
    for inference, for a model whose step cannot be counted.

    Inference keeps about one block's activations; so does training, a second time for the gradients, and the inputs of the
    other blocks.
    """
    references = sum(latent.numel() for latent in sample.references)
    one_block = model.model.memory_required([batch_size, *sample.latent.shape[1:]])
    return int(3 * one_block * (1 + references / sample.latent.numel()))


def load(model: comfy.model_patcher.ModelPatcher, needed: int) -> None:
    """Load the model for work that takes ``needed`` bytes beside its weights; ComfyUI streams what finds no room."""
    with torch.inference_mode():  # outside it the loaded weights would break later inference
        comfy.model_management.load_models_gpu([model], memory_required=needed)


def release(*patchers: comfy.model_patcher.ModelPatcher) -> None:
    """Give the devices back that these models are loaded on; ComfyUI loads them again when they are used."""
    loaded = comfy.model_management.current_loaded_models
    done = [m for m in loaded if m.model is not None and any(m.model.is_clone(patcher) for patcher in patchers)]
    compat.end_phase()
    for device in {m.device for m in done}:
        comfy.model_management.free_memory(1e30, device, [m for m in loaded if m not in done])


def is_interrupt(error: BaseException) -> bool:
    return isinstance(error, comfy.model_management.InterruptProcessingException)


def check_interrupted() -> None:
    """Raise ComfyUI's interrupt when the user has pressed cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()
