"""Tensors as autograd wants them."""
import torch


def is_plain(tensor: torch.Tensor | None) -> bool:
    """Whether it is an ordinary tensor, not one of a class that stores its numbers in a way of its own."""
    return type(tensor) in (torch.Tensor, torch.nn.Parameter)


def ordinary(t: torch.Tensor) -> torch.Tensor:
    """A tensor on the storage of ``t`` that autograd can save, also where ``t`` was made in inference mode."""
    return torch.empty(0, dtype=t.dtype, device=t.device).set_(
        t.untyped_storage(), t.storage_offset(), t.size(), t.stride()
    )
