"""One forward pass for every model ComfyUI loads, on batches whose samples keep their own conditioning."""
from collections.abc import Iterable
from dataclasses import dataclass

import comfy.conds
import comfy.model_base
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import torch

from . import autograd


@dataclass(frozen=True)
class Conditioned:
    """A training sample as the model takes it.

    ``x0`` (1, channels, ..., height, width) is the target's latent in the model's space; ``conds`` are ComfyUI's model
    conditions: caption, references, guidance.
    """

    name: str
    x0: torch.Tensor
    conds: dict[str, comfy.conds.CONDRegular]

    def signature(self) -> tuple:
        """Samples with equal signatures can go through the model together."""

        def shape(value):
            if isinstance(value, torch.Tensor):
                return tuple(value.shape)
            return tuple(map(shape, value)) if isinstance(value, (list, tuple)) else repr(value)

        return tuple(self.x0.shape), tuple((k, type(c), shape(c.cond)) for k, c in sorted(self.conds.items()))


def condition(base: comfy.model_base.BaseModel, name: str, latent: torch.Tensor, positive: list) -> Conditioned:
    """A latent from the VAE and a CONDITIONING, as made by the nodes of a graph, as the model takes them."""
    x0 = base.process_latent_in(latent)
    conds = comfy.samplers.encode_model_conds(
        base.extra_conds, comfy.sampler_helpers.convert_cond(positive), torch.zeros_like(x0), x0.device, "positive",
        latent_image=x0, denoise_mask=None, seed=0,
    )  # fmt: skip
    model_conds = conds[0]["model_conds"]
    return Conditioned(name, x0, {k: c.process_cond(batch_size=1, area=None) for k, c in model_conds.items()})


def groups(samples: Iterable[Conditioned]) -> list[list[int]]:
    """Indices of samples that can go through the model together."""
    by_signature: dict[tuple, list[int]] = {}
    for i, sample in enumerate(samples):
        alone = (i,) if "ref_contexts" in sample.conds else ()  # Z-Image Omni in 0.33 cannot take a batch of these
        by_signature.setdefault(sample.signature() + alone, []).append(i)
    return list(by_signature.values())


def predict_x0(
    model: comfy.model_patcher.ModelPatcher, samples: list[Conditioned], noise: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """The model's estimate of the clean latents, from latents noised to ``sigma``.

    ``samples`` share a signature; ``noise`` is (n, channels, ..., height, width), ``sigma`` (n,), the result as noise.
    """
    base, n = model.model, len(samples)
    x0 = torch.cat([sample.x0 for sample in samples])
    shaped = sigma.view(-1, *[1] * (x0.ndim - 1))
    x_t = base.model_sampling.noise_scaling(shaped, noise, x0, False)
    conds = {k: c.concat([s.conds[k] for s in samples[1:]]) for k, c in samples[0].conds.items()}
    options = comfy.model_patcher.create_model_options_clone(model.model_options).get("transformer_options", {})
    options = {**options, **autograd.ATTENTION, "sigmas": sigma, "cond_or_uncond": [0] * n}
    return base.apply_model(x_t, sigma, transformer_options=options, **conds)
