"""peft's LoRA layers beside a model that ComfyUI manages, not inside it.

peft put into the module tree breaks ComfyUI's patching, quantised layers and memory management. So peft gets a shadow
tree of proxies at the same dotted paths, whose base layers run the model's own forward; the model's Linears call their
shadows while the context is open.
"""
import contextlib
import re
import sys
import traceback
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from ..host.forward import ModelPatcher
from ..host.layers import blocks, is_linear
from ..host.own_forwards import followed
from ..host.patches import uncompiled

# Not the layers that turn the timestep into shifts and scales, nor norms and embeddings, nor a mixture's experts, of which
# a token sees few, so that most would hardly learn.
NOT_TRAINED = re.compile(r"mod(ulation)?\b|_mod\.|adaln|norm|emb|\bexperts\b", re.IGNORECASE)

# In a single block of Flux one Linear before and one behind do attention and MLP together.
ATTENTION = re.compile(r"attn|attention|single_blocks\.\d+\.linear[12]")
TEXT = re.compile(r"\btxt_|\badd_|_add_|\bcontext_|\binstruct_|_t\b")  # the stream of the caption's tokens
CHOICES = ("all", "attention only", "image stream only")


# What peft and transformers look for and a LoRA has no use for.
QUANTISERS = (
    "torchao", "bitsandbytes", "gptqmodel", "auto_gptq", "awq", "hqq", "eetq", "aqlm", "neural_compressor", "optimum",
    "transformer_engine", "torch_xla", "deepspeed",
)  # fmt: skip


@dataclass(frozen=True)
class Layers:
    """Which layers get a LoRA: ``which`` of CHOICES, and of these only those whose path has the regular expression
    ``pattern``."""

    which: str = "all"
    pattern: str = ""

    def has(self, path: str) -> bool:
        if self.which == "attention only" and not ATTENTION.search(path):
            return False
        if self.which == "image stream only" and TEXT.search(path):
            return False
        return re.search(self.pattern, path) is not None


ALL = Layers()


class Proxy(torch.nn.Linear):
    """What peft sees of a Linear of the model: its sizes and its output, but no storage of its own."""

    def __init__(self, module: torch.nn.Module):
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = module.in_features, module.out_features
        self.weight = torch.nn.Parameter(torch.zeros(()).expand(self.out_features, self.in_features), False)
        self.bias = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


def targets(model: torch.nn.Module, layers: Layers = ALL) -> dict[str, torch.nn.Module]:
    """The attention and MLP Linears inside the repeated blocks of a diffusion model, by their dotted paths; of these those
    that ``layers`` names."""
    model = getattr(model, "_orig_mod", model)
    with uncompiled(model):
        inside = {id(module) for block in blocks(model) for module in block.modules()}
        return {
            path: module
            for path, module in model.named_modules()
            if id(module) in inside and is_linear(module) and not NOT_TRAINED.search(path) and layers.has(path)
        }


def trainable(model: torch.nn.Module, rank: int, layers: Layers = ALL) -> int:
    """How many numbers a LoRA of this rank trains."""
    return sum(rank * (m.in_features + m.out_features) for m in targets(model, layers).values())


def check(model: torch.nn.Module, rank: int, layers: Layers = ALL) -> None:
    """Raise ValueError when no layer of ``model`` can be trained, ``layers`` chooses none or does not choose at all, or a
    layer has fewer dimensions than ``rank``."""
    every, name = targets(model), type(getattr(model, "_orig_mod", model)).__name__
    if not every:
        raise ValueError(f"{name} has no attention or MLP layers that a LoRA could train.")
    try:
        re.compile(layers.pattern)
    except re.error as error:
        raise ValueError(
            f"layer_pattern is {layers.pattern}, which is no regular expression ({error}). Leave it empty for all layers."
        ) from None
    if layers.which == "image stream only" and not any(map(TEXT.search, every)):
        raise ValueError(f"layers is image stream only, but {name} has no stream of its own for the caption. Choose all.")
    modules = targets(model, layers)
    if not modules:
        raise ValueError(
            f"No layer of {name} is among {layers.which} with layer_pattern {layers.pattern}; it has such as "
            f"{', '.join(_kinds(every))}. Leave it empty for all layers."
        )
    smallest, path = min((min(m.in_features, m.out_features), path) for path, m in modules.items())
    if rank > smallest:
        raise ValueError(f"rank is {rank}, but the layer {path} has only {smallest} dimensions. Start with 16.")


def _kinds(paths: Iterable[str]) -> list[str]:
    """A path for each kind of layer: those that differ by a block's number only are one."""
    return list({re.sub(r"\d+", "", path): path for path in reversed(list(paths))}.values())[::-1]


def _peft() -> tuple[type, type]:
    """peft's LoraConfig and its layer for a Linear. LoraModel would ask every quantiser that is installed whether the
    layer is its own, and fail with those that it does not support.

    Raises:
        RuntimeError: peft, or a package that it needs, is missing or broken; with the line that mends it.
    """
    try:
        return _imported()
    except Exception as error:
        with contextlib.suppress(Exception), _without_quantisers():
            return _imported()
        raise RuntimeError(_remedy(error)) from error


def _imported() -> tuple[type, type]:
    from peft import LoraConfig  # costs seconds, so only when training starts
    from peft.tuners.lora import Linear

    return LoraConfig, Linear


@contextlib.contextmanager
def _without_quantisers() -> Iterator[None]:
    """To peft and transformers none is installed while this is open, since one that is broken takes them down."""
    from transformers import utils

    for name in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        del sys.modules[name]  # it may have seen them
    imported = {name: sys.modules.pop(name) for name in QUANTISERS if name in sys.modules}
    names = [f"is_{package}_available" for package in QUANTISERS]
    places = [(place, name) for place in (utils, utils.import_utils) for name in names if hasattr(place, name)]
    checks = [getattr(place, name) for place, name in places]
    try:
        sys.modules.update(dict.fromkeys(QUANTISERS))
        for place, name in places:
            setattr(place, name, lambda *_, **__: False)
        yield
    finally:
        for (place, name), check in zip(places, checks):
            setattr(place, name, check)
        for name in QUANTISERS:
            del sys.modules[name]
        sys.modules.update(imported)


def _remedy(error: Exception) -> str:
    while error.__cause__:  # transformers hides it behind a message of its own
        error = error.__cause__
    frames = [frame.f_globals["__name__"].partition(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)]
    package, why = [name for name in frames if name not in sys.stdlib_module_names][-1], f"cannot be loaded ({error})"
    if isinstance(error, ModuleNotFoundError) and error.name:
        package, why = error.name.partition(".")[0], "is not installed"
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    return (
        f"Training needs peft, but {package} {why}. Run this line and start ComfyUI again: "
        f"{python} -m pip install --upgrade {package}"
    )


class AddLora(torch.autograd.Function):
    """``y + x @ A.T @ B.T`` for activations ``y`` (..., out) and ``x`` (..., in), computed in their dtype, with ``A`` (rank,
    in) and ``B`` (out, rank) and their gradients in float32.

    Nothing is kept for the backward pass but ``x``, which layers that read the same share. peft's own layer keeps a copy
    of x in float32, and of what it adds: 59 of the 73 GB of a step of FLUX.1 Kontext at 1024 pixels.
    """

    @staticmethod
    def forward(ctx, y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, a, b)
        inside = x.flatten(0, -2) @ a.to(x.dtype).T
        out = y.new_empty(y.shape)  # no view of anything: models may update it in place
        torch.addmm(y.flatten(0, -2), inside.to(y.dtype), b.to(y.dtype).T, out=out.view(-1, y.shape[-1]))
        return out

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        x, a, b = ctx.saved_tensors
        rows, x_rows = grad.flatten(0, -2), x.flatten(0, -2)
        a_there = a.to(x.dtype)
        inside = rows @ b.to(grad.dtype)  # the gradient of what lies between A and B
        grad_b = (rows.T @ (x_rows @ a_there.T).to(grad.dtype)).to(b.dtype)
        grad_a = (inside.to(x.dtype).T @ x_rows).to(a.dtype)
        grad_x = (inside.to(x.dtype) @ a_there).view(x.shape) if ctx.needs_input_grad[1] else None
        return grad, grad_x, grad_a, grad_b


def with_lora(layer, x: torch.Tensor) -> torch.Tensor:
    """The forward of a peft layer whose scale is 1."""
    return AddLora.apply(layer.base_layer(x), x, layer.lora_A["default"].weight, layer.lora_B["default"].weight)


class LoraLayers:
    """Trainable LoRA layers (https://arxiv.org/abs/2106.09685) in float32 for a frozen diffusion model.

    The scale is 1 (alpha equals rank), and lora_B starts at zero, so that the first forward is the base's.
    """

    def __init__(self, model: torch.nn.Module, rank: int, seed: int, device: torch.device, layers: Layers = ALL):
        config_of, layer_of = _peft()
        config = config_of(r=rank, lora_alpha=rank)
        self.modules = targets(model, layers)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the devices too
            self.layers = {
                path: layer_of(Proxy(module), "default", config=config, r=rank, lora_alpha=rank)
                for path, module in self.modules.items()
            }
        for layer in self.layers.values():
            layer.lora_A.to(device, torch.float32)
            layer.lora_B.to(device, torch.float32)

    @contextlib.contextmanager
    def attached(self, loaded: ModelPatcher | None = None) -> Iterator[None]:
        """The model computes with the layers while this is open, in front of the forwards that it then has; also after it
        has been loaded anew, where it is that of ``loaded``."""
        theirs = {}

        def note() -> None:
            forwards = {module: vars(module).get("forward") for module in self.modules.values()}
            theirs.update({m: f for m, f in forwards.items() if getattr(f, "__func__", None) is not with_lora})

        def put() -> None:
            note()
            for path, layer in self.layers.items():
                module = self.modules[path]
                if getattr(module.forward, "__func__", None) is not with_lora:
                    layer.original_forward, layer.saves_ordinary_tensors = module.forward, True  # see own_forwards
                    layer.base_layer.run = lambda x, layer=layer: layer.original_forward(x)
                    module.forward = types.MethodType(with_lora, layer)

        put()
        try:
            with followed(loaded, put, note) if loaded else contextlib.nullcontext():
                yield
        finally:
            for module, forward in theirs.items():
                vars(module).pop("forward", None)
                if forward is not None:
                    module.forward = forward

    def parameters(self) -> list[torch.nn.Parameter]:
        return [p for layer in self.layers.values() for p in layer.parameters() if p.requires_grad]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """`diffusion_model.PATH.lora_A.weight` (rank, in) and `.lora_B.weight` (out, rank), on the CPU."""
        return {key: p.detach().cpu().clone() for key, p in self._named().items()}

    @torch.no_grad()
    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Put the tensors of a ``state_dict`` into the layers' parameters, which stay the same objects.

        Raises:
            ValueError: a tensor is missing, is of no layer, or has another shape; nothing is changed then.
        """
        own = self._named()
        shapes, given = ({key: tuple(t.shape) for key, t in named.items()} for named in (own, tensors))
        for key in shapes | given:
            if shapes.get(key) != given.get(key):
                raise ValueError(
                    f"{key}: the layers have {shapes.get(key, 'no such tensor')}, "
                    f"what is put into them has {given.get(key, 'no such tensor')}."
                )
        for key, p in own.items():
            p.copy_(tensors[key])

    def _named(self) -> dict[str, torch.nn.Parameter]:
        return {
            f"diffusion_model.{path}.{name}.weight": getattr(layer, name)["default"].weight
            for path, layer in self.layers.items()
            for name in ("lora_A", "lora_B")
        }


def untrained(model: torch.nn.Module, rank: int, layers: Layers = ALL) -> dict[str, torch.Tensor]:
    """A LoRA of no effect that has the shapes and keys of one trained on ``model``."""
    with torch.inference_mode(False):
        return LoraLayers(model, rank, 0, torch.device("cpu"), layers).state_dict()
