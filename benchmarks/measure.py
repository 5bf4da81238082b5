"""How long the steps of a training loop take, and what they take: in turns, since a machine is not the same every minute."""
import gc
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tiny import module


@dataclass(frozen=True)
class Times:
    """Of each round: the median seconds of a step."""

    cpu: list[float]
    wall: list[float]

    def __str__(self) -> str:
        return f"{statistics.median(self.cpu):.3f} s ({statistics.median(self.wall):.3f} wall)"


@dataclass(frozen=True)
class Ratio:
    """The median over the rounds, and their spread."""

    value: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.least:.3f} to {self.most:.3f})"


def alternating(loops: dict[str, object], rounds: int, steps: int) -> dict[str, Times]:
    """The loops take turns; each time the first step, which has more to do, is not counted."""
    seen = {name: Times([], []) for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            ends = []
            loop.run(1 + steps, lambda ends=ends: ends.append((time.process_time(), time.perf_counter())))
            cpu, wall = ([b - a for a, b in zip(of, of[1:])] for of in zip(*ends))
            seen[name].cpu.append(statistics.median(cpu))
            seen[name].wall.append(statistics.median(wall))
    return seen


def ratio(of: Times, to: Times) -> Ratio:
    """Of CPU seconds, within each round."""
    each = [a / b for a, b in zip(of.cpu, to.cpu)]
    return Ratio(statistics.median(each), min(each), max(each))


@dataclass(frozen=True)
class Counts:
    """Of one step: ``launches``, operations that compute something, before the optimizer; the ``peak`` bytes of tensors
    that live beside those that lived before it; and those ``standing``, of adapter and optimizer."""

    launches: int
    peak: int
    standing: int


def counted(loop, device: str = "cpu") -> Counts:
    """The second step of the loop."""
    ledger, before = module("plan.ledger").Ledger(device), size(alive(device))
    ends, of_optimizer, standing = [], [], []

    def on_step() -> None:
        ends.append(None)
        if len(ends) == 1:
            there = alive(device)
            standing.append(size(there) - before)
            ledger.there_before(there)
            ledger.__enter__()
        elif len(ends) == 2:
            ledger.__exit__(None, None, None)

    hooks = [
        register_optimizer_step_pre_hook(lambda *_: of_optimizer.append(-ledger.operations)),
        register_optimizer_step_post_hook(lambda *_: of_optimizer.append(ledger.operations)),
    ]
    try:
        loop.run(2, on_step)
    finally:
        for hook in hooks:
            hook.remove()
    return Counts(ledger.operations - sum(of_optimizer), ledger.peak, standing[0])


def alive(device: str) -> list[torch.Tensor]:
    """Every tensor with storage on the device."""
    gc.collect()
    tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
    return [t for t in tensors if type(t) in (torch.Tensor, torch.nn.Parameter) and t.device.type == device]


def size(tensors: Iterable[torch.Tensor]) -> int:
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())
