"""From decoded images and a caption to conditioning, by the very nodes a generation graph uses."""
import comfy.model_patcher
import comfy.sd
import numpy as np
import torch
from comfy_extras.nodes_edit_model import ReferenceLatent
from comfy_extras.nodes_flux import FluxGuidance

import nodes as comfy_nodes

from . import forward

GUIDANCE = 1.0  # what Kontext-like models train best with; only models with a guidance embedding read it


def to_latent(vae: comfy.sd.VAE, image: np.ndarray) -> dict:
    """The LATENT of one (height, width, 3) image in 0..1, by VAEEncode."""
    return comfy_nodes.VAEEncode().encode(vae, torch.from_numpy(image)[None])[0]


def positive(clip: comfy.sd.CLIP, caption: str, references: list[dict]) -> list:
    """The CONDITIONING of a caption and reference LATENTs: CLIPTextEncode, ReferenceLatent for each, FluxGuidance."""
    conditioning = comfy_nodes.CLIPTextEncode().encode(clip, caption)[0]
    for reference in references:
        conditioning = ReferenceLatent.execute(conditioning, reference).args[0]
    return FluxGuidance.execute(conditioning, GUIDANCE).args[0]


def encode(
    model: comfy.model_patcher.ModelPatcher, clip: comfy.sd.CLIP, vae: comfy.sd.VAE,
    name: str, images: list[np.ndarray], caption: str,
) -> forward.Conditioned:  # fmt: skip
    """A sample, references first and target last, as the model takes it; all of it on the model's device."""
    *references, target = images
    with torch.inference_mode():
        conditioning = positive(clip, caption, [to_latent(vae, image) for image in references])
        latent = to_latent(vae, target)["samples"]
    # Clones made outside inference mode can be used by autograd.
    with torch.inference_mode(False), torch.no_grad():
        return forward.condition(model.model, name, *_clone((latent, conditioning), model.load_device))


def _clone(value, device):
    if isinstance(value, torch.Tensor):
        return value.clone().to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(_clone(v, device) for v in value)
    return {k: _clone(v, device) for k, v in value.items()} if isinstance(value, dict) else value
