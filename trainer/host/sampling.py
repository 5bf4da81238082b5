"""Which amounts of noise a model is trained on, and how their losses are weighted."""
import comfy.model_base
import comfy.model_patcher
import comfy.model_sampling
import torch

from .. import objective
from . import families
from .forward import Conditioned

BIASES = {"balanced": 0.0, "structure": 0.7, "detail": -0.7}  # twice and half the odds of noise to picture


def sigmas(
    model: comfy.model_patcher.ModelPatcher, batch: list[Conditioned], u: torch.Tensor, how: str, bias: float = 0.0
) -> torch.Tensor:
    """A sigma for each sample, from uniform numbers ``u`` (n,) in (0, 1); a ``bias`` above 0 moves them towards noise.

    ``how`` is "uniform" or "logit-normal", both with the shift of the model; "resolution-shifted", logit-normal with the
    shift that the family's own schedule has for so many tokens; or "family default": resolution-shifted where there is
    such a schedule, as kohya's musubi-tuner does, logit-normal for other flow models, uniform for diffusion models
    (https://arxiv.org/abs/2006.11239). A shift that the graph has set on the model comes before the schedule's.
    """
    sampling, mu = model.get_model_object("model_sampling"), families.family_of(model.model).mu
    if how == "family default":
        how = "uniform" if not is_flow(sampling) else "resolution-shifted" if mu else "logit-normal"
    t = u if how == "uniform" else objective.logit_normal(u)
    if bias:
        t = objective.shifted(t, torch.tensor(bias))
    if how != "resolution-shifted" or not is_flow(sampling) or "model_sampling" in model.object_patches:
        return sigma_at(sampling, t)
    start, slope = mu or families.FLUX_MU
    return objective.shifted(t, torch.tensor([start + slope * (tokens(model.model, s.x0) - 256) for s in batch]))


def is_flow(model_sampling: torch.nn.Module) -> bool:
    """Whether the model is trained by flow matching, with sigmas in 0..1."""
    return isinstance(model_sampling, comfy.model_sampling.CONST)


def sigma_at(model_sampling: torch.nn.Module, t: torch.Tensor) -> torch.Tensor:
    """The sigmas at timesteps ``t`` in (0, 1), with the shift that the graph has set on the model."""
    if isinstance(model_sampling, comfy.model_sampling.ModelSamplingFlux):
        return model_sampling.sigma(t)
    if isinstance(model_sampling, comfy.model_sampling.ModelSamplingDiscreteFlow):
        return model_sampling.sigma(t * model_sampling.multiplier)
    logs = model_sampling.sigmas.log().to(t.device)  # from least to most noise; of EDM's too, whose sigma() is of no index
    low = (t * (len(logs) - 1)).floor().long().clamp_max(len(logs) - 2)
    return torch.lerp(logs[low], logs[low + 1], t * (len(logs) - 1) - low).exp()


def tokens(base: comfy.model_base.BaseModel, x0: torch.Tensor) -> int:
    """How many tokens a transformer makes of a latent (1, channels, ..., height, width)."""
    patch = getattr(base.diffusion_model, "patch_size", 2)
    patch = patch[-1] if isinstance(patch, (list, tuple)) else patch
    return x0.shape[-2] * x0.shape[-1] // patch**2


def check_loss(model: comfy.model_patcher.ModelPatcher, loss: str) -> None:
    """Raise ValueError when the model cannot be trained with ``loss``, one of loop.Settings."""
    sampling = model.get_model_object("model_sampling")
    if loss == "min-snr" and (not isinstance(sampling, comfy.model_sampling.EPS) or isinstance(sampling, comfy.model_sampling.X0)):
        raise ValueError(
            f"loss is min-snr, which balances a diffusion model that predicts noise, such as SD1.5 and SDXL; "
            f"{type(model.model).__name__} does not. Choose squared in Training Settings."
        )


def min_snr(model_sampling: torch.nn.Module, sigma: torch.Tensor) -> torch.Tensor:
    """What turns the weight of a sigma into that of min-SNR with a gamma of 5, which keeps small amounts of noise from
    outweighing all others (https://arxiv.org/abs/2303.09556); of models that predict epsilon or v."""
    predicts_v = isinstance(model_sampling, comfy.model_sampling.V_PREDICTION)
    snr = (getattr(model_sampling, "sigma_data", 1.0) if predicts_v else 1.0) ** 2 / sigma**2
    return snr.clamp_max(5) / (snr + predicts_v)


def x0_error_weight(model_sampling: torch.nn.Module, sigma: torch.Tensor) -> torch.Tensor:
    """What turns the error of x0 into that of the model's own prediction: velocity, epsilon or v."""
    if isinstance(model_sampling, comfy.model_sampling.COSMOS_RFLOW):
        return ((1 + sigma) / sigma) ** 2
    if isinstance(model_sampling, (comfy.model_sampling.V_PREDICTION, comfy.model_sampling.EDM)):
        data = getattr(model_sampling, "sigma_data", 1.0)
        return (sigma**2 + data**2) / (sigma * data) ** 2
    if isinstance(model_sampling, comfy.model_sampling.X0):
        return torch.ones_like(sigma)
    return sigma**-2
