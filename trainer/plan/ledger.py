"""Counting what a piece of work does to a device's memory: every storage that is made and let go, whatever makes it."""
import weakref
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

ROUNDED_TO = 512  # bytes, by CUDA's allocators


@dataclass
class Phase:
    """A part of the work: bytes alive when it began and at most, bytes read and written by operations, bytes brought from
    another device, and floating-point operations of matrix products and attention."""

    begun: int
    peak: int
    moved: int = 0
    fetched: int = 0
    flops: int = 0


class Ledger(TorchDispatchMode):
    """While it is entered, counts the storages on ``device`` ("cuda", "cpu", "meta") that are made, by phases.

    On the meta device nothing is computed, but the numbers are as if it were.
    """

    def __init__(self, device: str, rounded_to: int = ROUNDED_TO):
        super().__init__()
        self.device, self.rounded_to, self.live = device, rounded_to, 0
        self.operations = 0
        self.phases: dict[Hashable, Phase] = {}
        self.enter("start")
        self._sizes: dict[int, tuple[int, weakref.ref]] = {}  # by the address of the storage's C++ object

    def enter(self, phase: Hashable) -> None:
        """Everything from now on belongs to ``phase``, which may be gone on with."""
        self.now = self.phases.setdefault(phase, Phase(self.live, self.live))

    @property
    def peak(self) -> int:
        return max(phase.peak for phase in self.phases.values())

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        made = [t for t in _tensors(result) if t.device.type == self.device]
        for t in made:
            self._see(t)
        if made and not operation.is_view and not any(word in operation.name() for word in ("empty", "_unsafe_view")):
            self.operations += 1
            given = list(_tensors((args, kwargs)))
            self.now.moved += sum(t.nbytes for t in (*made, *given))
            self.now.fetched += sum(t.nbytes for t in given if t.ndim and t.device.type != self.device)
            if (formula := flop_registry.get(operation._overloadpacket)) is not None:
                self.now.flops += formula(*args, **kwargs, out_val=result)
        return result

    def there_before(self, tensors: Iterable[torch.Tensor]) -> None:
        """Storages that are not counted, nor what views them."""
        for t in tensors:
            if t.device.type == self.device:
                self._enter(t.untyped_storage(), 0)

    def _see(self, t: torch.Tensor) -> None:
        storage = t.untyped_storage()
        if storage._cdata not in self._sizes and (size := storage.nbytes()):
            self._enter(storage, -(-size // self.rounded_to) * self.rounded_to)

    def _enter(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        self._sizes[key] = size, weakref.ref(storage, lambda _: self._leave(key))
        self.live += size
        self.now.peak = max(self.now.peak, self.live)

    def _leave(self, key: int) -> None:
        self.live -= self._sizes.pop(key)[0]


def _tensors(value) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for child in value:
            yield from _tensors(child)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
