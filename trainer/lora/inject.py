"""peft's LoRA layers beside a model that ComfyUI manages, not inside it.

peft put into the module tree breaks ComfyUI's patching, quantised layers and memory management. So peft gets a shadow
tree of proxies at the same dotted paths, whose base layers run the model's own forward; the model's Linears call their
shadows while the context is open.
"""
import contextlib
import re
from collections.abc import Iterator

import torch

from ..host.autograd import blocks, frozen, is_linear, replaced_forwards

# Not the layers that turn the timestep into shifts and scales, nor norms and embeddings.
NOT_TRAINED = re.compile(r"mod(ulation)?\b|_mod\.|adaln|norm|emb", re.IGNORECASE)


class Proxy(torch.nn.Linear):
    """What peft sees of a Linear of the model: its sizes and its output, but no storage of its own."""

    def __init__(self, module: torch.nn.Module):
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = module.in_features, module.out_features
        self.weight = torch.nn.Parameter(torch.zeros(()).expand(self.out_features, self.in_features), False)
        self.bias = None
        self.run = frozen(module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


def target_paths(model: torch.nn.Module) -> list[str]:
    """The dotted paths of the attention and MLP Linears inside the repeated blocks of a diffusion model."""
    inside = {id(module) for block in blocks(model) for module in block.modules()}
    return [
        path
        for path, module in model.named_modules()
        if id(module) in inside and is_linear(module) and not NOT_TRAINED.search(path)
    ]


def check_rank(model: torch.nn.Module, rank: int) -> None:
    """Raise ValueError when no layer of ``model`` can be trained, or one has fewer dimensions than ``rank``."""
    modules = {path: model.get_submodule(path) for path in target_paths(model)}
    if not modules:
        raise ValueError(f"{type(model).__name__} has no attention or MLP layers that a LoRA could train.")
    smallest, path = min((min(m.in_features, m.out_features), path) for path, m in modules.items())
    if rank > smallest:
        raise ValueError(f"rank is {rank}, but the layer {path} has only {smallest} dimensions. Start with 16.")


class LoraLayers:
    """Trainable LoRA layers (https://arxiv.org/abs/2106.09685) in float32 for a frozen diffusion model.

    The scale is 1 (alpha equals rank), and lora_B starts at zero, so that the first forward is the base's.
    """

    def __init__(self, model: torch.nn.Module, rank: int, seed: int, device: torch.device):
        import peft  # costs seconds, so only when training starts

        self.modules = {path: model.get_submodule(path) for path in target_paths(model)}
        root = torch.nn.Module()
        for path, module in self.modules.items():
            *parents, name = path.split(".")
            node = root
            for parent in parents:
                if not hasattr(node, parent):
                    node.add_module(parent, torch.nn.Module())
                node = getattr(node, parent)
            node.add_module(name, Proxy(module))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(self.modules))
            peft.LoraModel(root, config, "default")
        self.layers = {path: root.get_submodule(path) for path in self.modules}
        for layer in self.layers.values():
            layer.lora_A.to(device, torch.float32)
            layer.lora_B.to(device, torch.float32)

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """The model computes with the layers while this is open."""
        with replaced_forwards({module: self.layers[path].forward for path, module in self.modules.items()}):
            yield

    def parameters(self) -> list[torch.nn.Parameter]:
        return [p for layer in self.layers.values() for p in layer.parameters() if p.requires_grad]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """`diffusion_model.PATH.lora_A.weight` (rank, in) and `.lora_B.weight` (out, rank), on the CPU."""
        return {
            f"diffusion_model.{path}.{name}.weight": getattr(layer, name)["default"].weight.detach().cpu().clone()
            for path, layer in self.layers.items()
            for name in ("lora_A", "lora_B")
        }
