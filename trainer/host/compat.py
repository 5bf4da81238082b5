"""All that differs between the ComfyUI versions the pack runs on (0.3.75 and newer)."""
import contextlib
import dataclasses
import functools
import inspect
import sys
from collections.abc import Iterator

import comfy.ldm.flux.model
import comfy.model_base
import comfy.model_management
import comfy.ops
import comfyui_version
import torch
from comfy_extras.nodes_flux import FluxKontextMultiReferenceLatentMethod

from .plain import is_plain

VERSION: str = comfyui_version.__version__


def is_out_of_memory(error: Exception) -> bool:
    """Newer hosts know more errors than torch's own."""
    management = comfy.model_management
    return management.is_oom(error) if hasattr(management, "is_oom") else isinstance(error, management.OOM_EXCEPTION)


def compute_dtype(base: comfy.model_base.BaseModel) -> torch.dtype:
    """What a loaded model computes in, whatever its weights are stored as."""
    return base.manual_cast_dtype or base.get_dtype()


def pixels(base: comfy.model_base.BaseModel, latent: torch.Tensor) -> int:
    """The side of a square picture as large as that of a latent (1, channels, ..., height, width)."""
    known = getattr(base.latent_format, "spacial_downscale_ratio", None)
    scale = known or (16 if latent.shape[1] == 128 else 8)  # FLUX.2's have 128 channels
    return round(scale * (latent.shape[-2] * latent.shape[-1]) ** 0.5)


def end_phase() -> None:
    """Clean what newer hosts with dynamic VRAM clean after each node, here between two phases of one: buffers that
    weights were cast into, queues of weights to come, and marks of what is to stay loaded."""
    memory = sys.modules.get("comfy.memory_management")
    if not getattr(memory, "aimdo_enabled", False):
        return
    import comfy.model_prefetch
    import comfy_aimdo.model_vbar

    comfy.model_management.reset_cast_buffers()
    comfy.model_prefetch.cleanup_prefetch_queues()
    comfy_aimdo.model_vbar.vbars_reset_watermark_limits()


@contextlib.contextmanager
def training_mode() -> Iterator[None]:
    """Tell newer hosts to keep to operations that have a backward, from the forward pass to the end of backward."""
    management = comfy.model_management
    if not hasattr(management, "in_training"):  # before 0.4: every operation has one
        yield
        return
    before, management.in_training = management.in_training, True
    try:
        with _joyimage_rope():
            yield
    finally:
        management.in_training = before


@contextlib.contextmanager
def _joyimage_rope() -> Iterator[None]:
    """JoyImage (0.33) calls a fused rope without a backward in training too; comfy_kitchen's plain one has a backward."""
    if (module := sys.modules.get("comfy.ldm.joyimage.model")) is None:
        yield
        return
    from comfy_kitchen.backends.eager import rope

    before, module.comfy_kitchen = module.comfy_kitchen, rope
    try:
        yield
    finally:
        module.comfy_kitchen = before


@contextlib.contextmanager
def linear_weight(
    module: torch.nn.Module, dtype: torch.dtype, device: torch.device, fetched: tuple | None = None
) -> Iterator[torch.Tensor]:
    """The (out, in) weight of a Linear as its forward sees it: cast, moved and patched, however ComfyUI stores it.

    ``fetched`` is what ``comfy.ops.cast_bias_weight`` has given for its forward, where that is still there.
    """
    if not hasattr(module, "weight_function"):  # an ordinary torch layer
        yield module.weight.to(device=device, dtype=dtype)
        return
    if hasattr(module, "cast_bias_weight"):  # ComfyUI-GGUF's layers unpack themselves
        yield module.cast_bias_weight(dtype=dtype, device=device, bias_dtype=dtype)[0]
        return
    cast = fetched or comfy.ops.cast_bias_weight(
        module, None, dtype=dtype, device=device, bias_dtype=dtype, offloadable=True
    )  # (weight, bias, stream)
    try:
        weight = cast[0]
        if isinstance(weight, comfy.ops.QuantizedTensor):
            weight = weight.dequantize()
        if (scale := getattr(module, "scale_weight", None)) is not None:  # scaled fp8 up to 0.3.75
            weight = weight.to(dtype) * scale.to(device=device, dtype=dtype)
        if (scale := getattr(module, "pre_quant_scale", None)) is not None:  # of the input's features, from 0.33 on
            weight = weight.to(dtype) * scale.to(device=device, dtype=dtype)
        yield weight.to(dtype)
    finally:
        if len(cast) > 2:
            comfy.ops.uncast_bias_weight(module, *cast)


def is_at_hand(module: torch.nn.Module, weight: torch.Tensor, stream=None) -> bool:
    """Whether the ``weight`` that was fetched for one call of a Linear needs no fetching for the next: it is the module's
    own or, with dynamic VRAM, stays on the device."""
    own = module._parameters.get("weight")
    if not is_plain(weight):
        return True  # quantised still: it costs little to unpack
    in_vram = isinstance(stream, tuple) and isinstance(stream[1], torch.device)
    return in_vram or (is_plain(own) and weight.untyped_storage()._cdata == own.untyped_storage()._cdata)


def is_borrowed(weight: torch.Tensor, stream=None) -> bool:
    """Whether what was fetched lies in a buffer, which newer hosts overwrite with the weights of the next layer."""
    return isinstance(stream, tuple) and stream[0] is not None or weight.untyped_storage().nbytes() > weight.nbytes


@functools.cache
def _clamps(linear: type) -> bool:
    plain = comfy.ops.disable_weight_init.Linear, comfy.ops.manual_cast.Linear
    cast = getattr(linear, "forward_comfy_cast_weights", None)
    return linear not in plain and bool(cast and inspect.getclosurevars(cast).nonlocals.get("fp8_matrix_mult", True))


def clamps_its_input(module: torch.nn.Module) -> bool:
    """Whether a Linear clamps what it is given, in place, to multiply it in 8 bits, as with --fast."""
    return getattr(module.weight, "dtype", None) == torch.float8_e4m3fn and _clamps(type(module))


def reference_methods() -> list[str]:
    """How a graph can have the model place its references in space and time; index_timestep_zero came after 0.3.75."""
    inputs = FluxKontextMultiReferenceLatentMethod.define_schema().inputs
    return next(choice.options for choice in inputs if choice.id == "reference_latents_method")


def flux_options() -> dict:
    """Options that newer hosts want to build a Flux, with the values the older ones have built in."""
    fields = {field.name for field in dataclasses.fields(comfy.ldm.flux.model.FluxParams)}
    return {"txt_ids_dims": []} if "txt_ids_dims" in fields else {}
