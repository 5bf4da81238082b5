"""From decoded images and a caption to conditioning, by the very nodes a generation graph uses."""
import comfy.model_patcher
import comfy.sd
import numpy as np
import torch

import nodes as comfy_nodes

from . import families, forward


def encode(
    model: comfy.model_patcher.ModelPatcher, clip: comfy.sd.CLIP, vae: comfy.sd.VAE,
    name: str, images: list[np.ndarray], caption: str, several: bool,
) -> forward.Conditioned:  # fmt: skip
    """A sample, references first and target last, as the model takes it; all of it on the model's device.

    ``several`` says that some sample of the dataset has more than one reference.
    """
    *references, target = (torch.from_numpy(image)[None] for image in images)
    family = families.family_of(model.model)
    with torch.inference_mode():
        edit = families.Edit(caption, references, tuple(target.shape[1:3]), several)
        conditioning = family.condition(clip, vae, edit)
        latent = comfy_nodes.VAEEncode().encode(vae, target)[0]["samples"]
    # Clones made outside inference mode can be used by autograd.
    with torch.inference_mode(False), torch.no_grad():
        return forward.condition(model.model, name, *_clone((latent, conditioning), model.load_device))


def _clone(value, device):
    if isinstance(value, torch.Tensor):
        return value.clone().to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(_clone(v, device) for v in value)
    return {k: _clone(v, device) for k, v in value.items()} if isinstance(value, dict) else value
