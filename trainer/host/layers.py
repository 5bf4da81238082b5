"""Which modules of a diffusion model are what: its Linears, and its repeated blocks."""
import contextlib
from collections.abc import Iterator

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel


def is_linear(module: torch.nn.Module) -> bool:
    """Also for the Linear of ComfyUI's mixed-precision operations, which is no torch.nn.Linear."""
    return isinstance(module, torch.nn.Linear) or (
        type(module).__name__ == "Linear" and hasattr(module, "in_features") and hasattr(module, "out_features")
    )


def is_block(module: torch.nn.Module) -> bool:
    """Whether a member of a ModuleList is a block, not a mere projection."""
    return sum(map(is_linear, module.modules())) > 1


def blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The repeated blocks of a diffusion model, in the order in which they run: what is recomputed one at a time."""
    if isinstance(model, UNetModel):
        return [module for module in model.modules() if isinstance(module, (BasicTransformerBlock, ResBlock))]
    children = [block for child in model.children() if isinstance(child, torch.nn.ModuleList) for block in child]
    return list(filter(is_block, children))


def alike(model: torch.nn.Module) -> dict[torch.nn.ModuleList, bool]:
    """The lists that ``blocks`` come from, in their order, and whether all of a list are alike: what one takes, each takes.
    A UNet has none."""

    def kind(block: torch.nn.Module) -> tuple:
        return type(block), [(name, p.shape) for name, p in block.named_parameters()]

    if isinstance(model, UNetModel):
        return {}
    lists = [child for child in model.children() if isinstance(child, torch.nn.ModuleList) and any(map(is_block, child))]
    return {child: all(kind(block) == kind(child[0]) for block in child) for child in lists}


@contextlib.contextmanager
def replaced_forwards(forwards: dict[torch.nn.Module, object]) -> Iterator[None]:
    """Give modules another ``forward``, and their own back on the way out, in whatever order that happens."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, forward in before.items():
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.forward = forward
