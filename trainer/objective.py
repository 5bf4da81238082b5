"""What is minimised: sigmas, noise and the loss. Pure functions of tensors."""
import torch

HUBER = 0.1  # where pseudo-Huber turns from the square to the absolute error; kohya's default


def stratified(n: int, generator: torch.Generator) -> torch.Tensor:
    """``n`` numbers in (0, 1), one from each n-th of the interval, in random order.

    Stratified sampling halves the variance of the loss at no cost (Kingma et al. 2021, https://arxiv.org/abs/2107.00630,
    appendix I.1).
    """
    t = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    return t[torch.randperm(n, generator=generator)].clamp(1e-3, 1 - 1e-3)


def logit_normal(u: torch.Tensor) -> torch.Tensor:
    """Uniform numbers as timesteps that favour the middle, where there is most to learn (Esser et al. 2024,
    https://arxiv.org/abs/2403.03206, section 3.1)."""
    return torch.special.ndtri(u).sigmoid()


def shifted(t: torch.Tensor, mu: torch.Tensor) -> torch.Tensor:
    """Timesteps moved towards noise by ``mu``, as larger pictures need (the same paper, section 5.3.2)."""
    return mu.exp() / (mu.exp() + 1 / t - 1)


def sample_losses(x0_pred: torch.Tensor, x0: torch.Tensor, weight: torch.Tensor, loss: str = "squared") -> torch.Tensor:
    """The loss of each sample (n,): the error of the predicted clean latent, weighted by its sigma.

    ``x0_pred`` and ``x0`` are (n, channels, ..., height, width); ``weight`` (n,) turns the error of x0 into that of what
    the model itself predicts: 1 / sigma^2 gives the velocity loss of flow matching (https://arxiv.org/abs/2210.02747)
    and the epsilon loss of DDPM (https://arxiv.org/abs/2006.11239). ``loss`` is "squared", or "huber", which grows no
    faster than the error where that is large, so that what is wrong in a few pairs counts less (pseudo-Huber,
    https://arxiv.org/abs/2403.16728).
    """
    squared = (x0_pred - x0).square().flatten(1)
    if loss == "huber":
        return 2 * HUBER * ((weight[:, None] * squared + HUBER**2).sqrt() - HUBER).mean(1)
    return weight * squared.mean(1)
