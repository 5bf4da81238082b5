"""One forward pass for every model ComfyUI loads, on batches whose samples keep their own conditioning."""
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import comfy.conds
import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher

from . import attention, autograd, compat, patches, recompute
from .encode import Encoded, copied

IGNORED = 1e-4  # relative change of a prediction up to which other references have had no effect but noise
UNCHANGED = 0.02  # relative change of a prediction up to which it is rounding in half precision


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


def condition(model: ModelPatcher, sample: Encoded) -> Conditioned:
    """A sample as ComfyUI's sampler would hand it to ``model``, on its device."""
    base = model.model
    latent, positive = copied((sample.latent, sample.conditioning), model.load_device)
    with torch.inference_mode(False), torch.no_grad():
        x0 = base.process_latent_in(latent)
        conds = comfy.samplers.encode_model_conds(
            base.extra_conds, comfy.sampler_helpers.convert_cond(positive), torch.zeros_like(x0), x0.device, "positive",
            latent_image=x0, denoise_mask=None, seed=0,
        )  # fmt: skip
        conds = {k: c.process_cond(batch_size=1, area=None) for k, c in conds[0]["model_conds"].items()}
    return Conditioned(sample.name, x0, conds)


def groups(samples: Iterable[Conditioned]) -> list[list[int]]:
    """Indices of samples that can go through the model together."""
    by_signature: dict[tuple, list[int]] = {}
    for i, sample in enumerate(samples):
        alone = (i,) if "ref_contexts" in sample.conds else ()  # Z-Image Omni in 0.33 cannot take a batch of these
        by_signature.setdefault(sample.signature() + alone, []).append(i)
    return list(by_signature.values())


def predict_x0(
    model: ModelPatcher, samples: list[Conditioned], noise: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """The model's estimate of the clean latents, from latents noised to ``sigma``.

    ``samples`` share a signature; ``noise`` is (n, channels, ..., height, width), ``sigma`` (n,), the result as noise.
    """
    base, n = model.model, len(samples)
    if n > 1 and patches.one_at_a_time(model):
        return torch.cat([predict_x0(model, [samples[i]], noise[i : i + 1], sigma[i : i + 1]) for i in range(n)])
    x0 = torch.cat([sample.x0 for sample in samples])
    shaped = sigma.view(-1, *[1] * (x0.ndim - 1))
    x_t = base.model_sampling.noise_scaling(shaped, noise, x0, False)
    conds = {k: c.concat([s.conds[k] for s in samples[1:]]) for k, c in samples[0].conds.items()}
    options = {**patches.guarded(patches.options(model)), "sigmas": sigma, "cond_or_uncond": [0] * n}
    conds["transformer_options"] = options
    if around := patches.around(model):
        return around(base.apply_model, {"input": x_t, "timestep": sigma, "c": conds, "cond_or_uncond": [0] * n})
    return base.apply_model(x_t, sigma, **conds)


def prediction(model: ModelPatcher, sample: Encoded) -> torch.Tensor:
    """The model's estimate of a sample's clean latent, from half way to noise that is always the same."""
    conditioned = condition(model, sample)
    noise = torch.randn(conditioned.x0.shape, generator=torch.Generator().manual_seed(0)).to(conditioned.x0)
    sigma = float(model.model.model_sampling.percent_to_sigma(0.5))
    return predict_x0(model, [conditioned], noise, torch.tensor([sigma], device=conditioned.x0.device)).detach()


def trial(model: ModelPatcher, sample: Encoded, training: bool = False) -> torch.Tensor:
    """``prediction`` as when generating or, if ``training``, with the kernels that have a backward, on a loaded ``model``,
    to see that it can take such a sample at all.

    Raises:
        ValueError: it cannot, or gives no numbers.
    """
    try:
        with torch.inference_mode(), contextlib.ExitStack() as kernels:
            if training:
                kernels.enter_context(compat.training_mode())
                kernels.enter_context(attention.differentiable())
            predicted = prediction(model, sample)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        if compat.is_out_of_memory(error):
            raise
        channels, height, width = sample.latent.shape[1], *sample.latent.shape[-2:]
        raise ValueError(
            f"{type(model.model).__name__} cannot take {sample.name}, whose latent is {width} x {height} with {channels} "
            f"channels: {error}. Check that text encoder and VAE are those of this model, or choose another resolution in "
            "Load Paired Dataset."
        ) from error
    if not torch.isfinite(predicted).all():
        damaged = [name for name, p in model.model.named_parameters() if not torch.isfinite(p.float()).all()]
        raise ValueError(
            f"The base model is damaged: {damaged[0]} holds NaN or infinity. Download its file again." if damaged else
            f"{type(model.model).__name__} gives NaN for {sample.name}. Load it with another weight_dtype, such as default."
        )  # fmt: skip
    return predicted


def check_reads_references(model: ModelPatcher, sample: Encoded, predicted: torch.Tensor) -> None:
    """Compare what was ``predicted`` for a sample with the same for other references; ``model`` is loaded.

    Found by trying, not by the model's class, since plain Flux and Kontext share one.

    Raises:
        ValueError: the model gives the same for both, so it could never learn an edit.
    """
    with torch.inference_mode():
        other = prediction(model, sample.with_other_references())
    if difference(other, predicted) < IGNORED:
        raise ValueError(
            f"This model ({type(model.model).__name__}) takes no reference images, so it cannot learn an edit from pairs. "
            "Load an editing model: FLUX.1 Kontext, FLUX.2, Qwen-Image-Edit or OmniGen2."
        )


def check_patches(model: ModelPatcher, sample: Encoded) -> None:
    """Raise ValueError when the gradient through a loaded ``model`` would be wrong for what other packs have put on it."""
    with torch.inference_mode():
        other = Encoded(sample.name, -sample.latent, sample.with_other_references().conditioning)
        patches.check_keeps_nothing(model, lambda: prediction(model, sample), lambda: prediction(model, other))
    with autograd.exact_gradients(model.model, model.model.diffusion_model, recompute.NOTHING):
        pass  # every layer with a forward of its own is tried on the way in


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """How far ``a`` is from ``b``, relative to ``b``."""
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def check_unchanged(plain: torch.Tensor, training: torch.Tensor) -> None:
    """Check that the model computes with layers for training what it computes without; a LoRA begins without effect.

    Both are with the kernels that have a backward, so that only a model whose code does something else when gradients are
    wanted is further off than rounding.
    """
    if not (off := difference(training, plain)) <= UNCHANGED:
        raise RuntimeError(
            f"While training, this model gives something else than without gradients (relative difference {off:.1e}). A "
            "LoRA would learn to undo that. Please report it with the model's name."
        )


def kernels_warning(generating: torch.Tensor, plain: torch.Tensor) -> str | None:
    """What to say where ComfyUI's kernels for generating round otherwise than those that have a backward: fused rope,
    attention in 8 bits, products of quantised numbers."""
    off = difference(plain, generating)
    return None if off <= UNCHANGED else (
        f"This model's fast kernels, used to generate, round otherwise than those used to train: the two differ by {off:.0%}. "
        "The LoRA is trained on the more exact ones."
    )  # fmt: skip
