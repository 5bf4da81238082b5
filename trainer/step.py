"""One step of training: what is drawn, the loss, and its gradient."""
import math

import torch

from . import objective
from .host import forward, sampling
from .host.forward import Conditioned, ModelPatcher
from .loss_scale import LossScale


def draw(
    model: ModelPatcher, batch: list[Conditioned], timesteps: str, generator: torch.Generator
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A sigma (n,) and noise, n tensors shaped like the latents, for each sample of the batch."""
    sigma = sampling.sigmas(model, batch, objective.stratified(len(batch), generator), timesteps)
    noise = [torch.randn(sample.x0.shape, generator=generator).to(sample.x0) for sample in batch]
    return sigma.to(batch[0].x0.device), noise


def gradient(
    model: ModelPatcher, batch: list[Conditioned], sigma: torch.Tensor, noise: list[torch.Tensor],
    parameters: list[torch.nn.Parameter], scale: LossScale,
) -> tuple[float, float]:  # fmt: skip
    """Leave the gradient of the mean loss of ``batch``, clipped to a norm of 1, in ``parameters``.

    Returns the loss and the norm before clipping. If either is not finite, no optimizer may use the gradient; a gradient
    that only the ``scale`` has made overflow is computed again with a smaller one.
    """
    while True:
        loss = backward(model, batch, sigma, noise, scale.value).item()
        norm = torch.nn.utils.clip_grad_norm_(parameters, scale.value).item() / scale.value
        if math.isfinite(norm):
            scale.grow()
            break
        if not (math.isfinite(loss) and scale.back_off()):
            break
        for p in parameters:
            p.grad = None
    if scale.value != 1:
        for p in parameters:
            if p.grad is not None:
                p.grad /= scale.value
    return loss, norm


def backward(
    model: ModelPatcher, batch: list[Conditioned], sigma: torch.Tensor, noise: list[torch.Tensor], scale: float = 1.0
) -> torch.Tensor:
    """Add ``scale`` times the gradient of the mean loss of ``batch`` to the parameters; returns that loss, a scalar.

    Each sample has its own sigma, noise and conditioning; those whose shapes agree go through the model together.
    """
    total = torch.zeros((), device=sigma.device)
    for group in forward.groups(batch):
        members, its_sigma = [batch[i] for i in group], torch.stack([sigma[i] for i in group])
        x0_pred = forward.predict_x0(model, members, torch.cat([noise[i] for i in group]), its_sigma)
        x0 = torch.cat([sample.x0 for sample in members])
        weight = sampling.x0_error_weight(model.model.model_sampling, its_sigma)
        loss = objective.sample_losses(x0_pred, x0, weight).sum() / len(batch)
        (loss * scale).backward()
        total += loss.detach()
    return total
