"""One step of training: what is drawn, the loss, its gradient, and the update."""
import math
from collections.abc import Iterator

import torch

from . import objective
from .host import forward, sampling
from .host.forward import Conditioned, ModelPatcher
from .loss_scale import LossScale


def draw(
    model: ModelPatcher, batch: list[Conditioned], timesteps: str, generator: torch.Generator, bias: str = "balanced"
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A sigma (n,) and noise, n tensors shaped like the latents, for each sample of the batch."""
    sigma = sampling.sigmas(model, batch, objective.stratified(len(batch), generator), timesteps, sampling.BIASES[bias])
    noise = [torch.randn(sample.x0.shape, generator=generator).to(sample.x0) for sample in batch]
    return sigma.to(batch[0].x0.device), noise


def gradient(
    model: ModelPatcher, batch: list[Conditioned], sigma: torch.Tensor, noise: list[torch.Tensor], at_once: int,
    parameters: list[torch.nn.Parameter], scale: LossScale, loss: str = "squared",
) -> tuple[float, float]:  # fmt: skip
    """Leave the gradient of the mean loss of ``batch``, clipped to a norm of 1, in ``parameters``; at most ``at_once``
    samples go through the model together; ``loss`` as of loop.Settings.

    Returns the loss and the norm before clipping. If either is not finite, no optimizer may use the gradient; a gradient
    that only the ``scale`` has made overflow is computed again with a smaller one.
    """
    while True:
        value = backward(model, batch, sigma, noise, at_once, scale.value, loss).item()
        norm = torch.nn.utils.clip_grad_norm_(parameters, scale.value).item() / scale.value
        if math.isfinite(norm):
            scale.grow()
            break
        if not (math.isfinite(value) and scale.back_off()):
            break
        for p in parameters:
            p.grad = None
    if scale.value != 1:
        for p in parameters:
            if p.grad is not None:
                p.grad /= scale.value
    return value, norm


def backward(
    model: ModelPatcher, batch: list[Conditioned], sigma: torch.Tensor, noise: list[torch.Tensor],
    at_once: int | None = None, scale: float = 1.0, loss: str = "squared",
) -> torch.Tensor:  # fmt: skip
    """Add ``scale`` times the gradient of the mean loss of ``batch`` to the parameters; returns that loss, a scalar.

    Each sample has its own sigma, noise and conditioning; those whose shapes agree go through the model together, all or
    at most ``at_once``. The gradient is the same to rounding, and what the model keeps for it is that of ``at_once``.
    """
    total = torch.zeros((), device=sigma.device)
    for part in parts(batch, at_once):
        members, its_sigma = [batch[i] for i in part], torch.stack([sigma[i] for i in part])
        x0_pred = forward.predict_x0(model, members, torch.cat([noise[i] for i in part]), its_sigma)
        x0 = torch.cat([sample.x0 for sample in members])
        weight = sampling.x0_error_weight(model.model.model_sampling, its_sigma)
        if loss == "min-snr":
            weight = weight * sampling.min_snr(model.model.model_sampling, its_sigma)
        value = objective.sample_losses(x0_pred, x0, weight, loss).sum() / len(batch)
        (value * scale).backward()
        total += value.detach()
    return total


def parts(batch: list[Conditioned], at_once: int | None) -> Iterator[list[int]]:
    """Indices of the samples that go through the model together."""
    for group in forward.groups(batch):
        size = at_once or len(group)
        yield from (group[i : i + size] for i in range(0, len(group), size))


def update(optimizer: torch.optim.AdamW) -> None:
    """Take the optimizer's step. Where the memory runs out while it makes its moments, none is left half made, and the
    step can be taken again."""
    try:
        optimizer.step()
    finally:
        for p in [p for p, state in optimizer.state.items() if "exp_avg_sq" not in state]:
            del optimizer.state[p]
