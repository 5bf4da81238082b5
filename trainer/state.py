"""What a training is between two steps: everything that going on later needs to be as if it had never stopped."""
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .host import compat
from .host.forward import ModelPatcher
from .lora.inject import LoraLayers
from .lora.start import Start
from .loss_scale import LossScale
from .step import update

AVERAGED = 10  # steps between two updates of the average
NEWEST = 0.1  # weight of the newest in it, so that it spans about a hundred steps


@dataclass(frozen=True)
class Saved:
    """A state on the CPU: the ``step`` it was saved after, the ``lora`` as of LoraLayers.state_dict, further ``tensors``
    and ``numbers``, which JSON can hold."""

    step: int
    lora: dict[str, torch.Tensor]
    tensors: dict[str, torch.Tensor]
    numbers: dict[str, float]


class State:
    """LoRA layers of a model with their optimizer, the random numbers to come, and after how many steps this is."""

    @torch.inference_mode(False)
    def __init__(self, model: ModelPatcher, settings, learning_rate: float, averaged: bool = False):
        """``settings`` as of loop.Settings; if ``averaged``, an average of the LoRA is kept as well."""
        device = model.load_device
        self.lora = LoraLayers(model.model.diffusion_model, settings.rank, settings.seed, device, settings.trained)
        self.parameters = self.lora.parameters()
        fused = device.type in ("cpu", "cuda") or None  # a quarter of the time, and no room for what lies between its operations
        self.optimizer = torch.optim.AdamW(self.parameters, learning_rate, fused=fused)  # https://arxiv.org/abs/1711.05101
        self.scale = LossScale(compat.compute_dtype(model.model))
        self.generator = torch.Generator().manual_seed(settings.seed)  # on the CPU: the same noise on every device
        self.random = self.generator.get_state()  # before the draws of the step to come
        self.average = Average(self.parameters) if averaged else None
        self.step = 0
        self.is_whole = True  # but while the optimizer changes it

    @torch.inference_mode(False)
    def begin_with(self, start: Start) -> None:
        self.lora.load(start.over(self.lora.state_dict()))

    def advance(self, learning_rate: float) -> None:
        """Update the LoRA by the gradient that is in its parameters."""
        self.is_whole = False
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        update(self.optimizer)
        self.optimizer.zero_grad()
        self.step, self.random = self.step + 1, self.generator.get_state()
        if self.average and self.step % AVERAGED == 0:
            self.average.update(self.parameters)
        self.is_whole = True

    def saved(self) -> Saved:
        tensors = {"random": self.random}
        for i, of_parameter in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value.cpu() for name, value in of_parameter.items()}
        numbers = {"loss_scale": self.scale.value, "loss_scale_steps": self.scale.steps}
        if self.average:
            tensors |= {f"average.{i}": mean for i, mean in enumerate(self.average.means)}
            numbers["averaged"] = self.average.updates
        return Saved(self.step, self.lora.state_dict(), tensors, numbers)

    @torch.inference_mode(False)
    def load(self, saved: Saved) -> None:
        """Go on from where another state of the same training was."""
        self.lora.load(saved.lora)
        of_parameters = {}
        for key, value in saved.tensors.items():
            kind, *rest = key.split(".")
            if kind == "optimizer":
                of_parameters.setdefault(int(rest[0]), {})[rest[1]] = value.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": of_parameters, "param_groups": groups})
        self.random = saved.tensors["random"].clone()
        self.generator.set_state(self.random)
        self.scale.value, self.scale.steps = saved.numbers["loss_scale"], saved.numbers["loss_scale_steps"]
        if self.average and "averaged" in saved.numbers:  # not where nothing was held out before
            self.average.means = [saved.tensors[f"average.{i}"].clone() for i in range(len(self.parameters))]
            self.average.updates = saved.numbers["averaged"]
        self.step = saved.step


class Average:
    """An exponential moving average of the parameters, which is often better than each of them (Polyak and Juditsky
    1992, https://doi.org/10.1137/0330046), in float32 in system memory; of the first ten updates the plain mean."""

    def __init__(self, parameters: list[torch.nn.Parameter]):
        self.parameters, self.updates = parameters, 0
        self.means = [p.detach().cpu().clone() for p in parameters]

    @torch.no_grad()
    def update(self, parameters: list[torch.nn.Parameter]) -> None:
        self.updates += 1
        for mean, p in zip(self.means, parameters):
            mean.lerp_(p.detach().cpu(), max(NEWEST, 1 / self.updates))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The parameters are the average's while this is open."""
        own = [p.data for p in self.parameters]
        try:
            for p, mean in zip(self.parameters, self.means):
                p.data = mean.to(p.device)
            yield
        finally:
            for p, data in zip(self.parameters, own):
                p.data = data
