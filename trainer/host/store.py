"""Encoded samples on disk, so that no picture or caption is encoded twice, and few of them in memory."""
import contextlib
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from ..data.moving import replace
from .encode import Encoded, tensors
from .memory import GIB


class Store:
    """A folder of one .safetensors file a sample; everything in it can be computed again."""

    def __init__(self, folder: Path, limit: int = 32 * GIB):
        self.folder, self.limit = folder, limit

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        """Whether the sample is there, whole."""
        try:
            with safetensors.safe_open(self._file(key), "pt") as opened:
                return "sample" in (opened.metadata() or {})
        except (OSError, safetensors.SafetensorError):
            return False

    def get(self, key: str, name: str) -> Encoded:
        """The sample, under the name that it has now."""
        file = self._file(key)
        with safetensors.safe_open(file, "pt") as opened:
            found = {name: opened.get_tensor(name) for name in opened.keys()}
            sample = Encoded(name, *_joined(json.loads(opened.metadata()["sample"]), found))
        with contextlib.suppress(OSError):
            os.utime(file)  # the least recently used go first
        return sample

    def put(self, key: str, sample: Encoded) -> None:
        """Keep a sample. Raises ValueError when its conditioning cannot be kept, OSError when there is no room."""
        found: dict[str, torch.Tensor] = {}
        try:
            structure = _split([sample.latent, sample.conditioning], found)
        except TypeError as error:
            raise ValueError(
                f"The conditioning of {sample.name} holds {error}, which training would ignore. Take out what the graph "
                "puts on the text encoder, such as hooks."
            ) from error
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, unfinished = tempfile.mkstemp(dir=self.folder)
            os.close(handle)
            try:
                safetensors.torch.save_file(found, unfinished, {"sample": json.dumps(structure)})
                replace(unfinished, self._file(key))
            except BaseException:
                os.unlink(unfinished)
                raise
        except (OSError, safetensors.SafetensorError) as error:
            raise OSError(f"{sample.name} cannot be kept in {self.folder}: {error}. Make room there.") from error

    def drop(self, key: str) -> None:
        with contextlib.suppress(OSError):
            self._file(key).unlink(missing_ok=True)

    def make_room(self, wanted: Collection[str]) -> None:
        """Delete the files that were used least recently, but for the ``wanted`` keys, until the folder is within its
        limit. Another ComfyUI may do the same at the same time."""
        files, spared = [], {self._file(key) for key in wanted}
        for file in self.folder.glob("*"):
            with contextlib.suppress(OSError):
                files.append((file.stat().st_mtime, file.stat().st_size, file))
        excess = sum(size for _, size, _ in files) - self.limit
        for _, size, file in sorted(files):
            if excess > 0 and file not in spared:
                with contextlib.suppress(OSError):
                    file.unlink()
                    excess -= size


def _split(value, found: dict[str, torch.Tensor]):
    """``value`` for JSON, its tensors collected in ``found``; raises TypeError that names what neither can hold."""
    if isinstance(value, torch.Tensor):
        name = str(len(found))
        found[name] = value.clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": {key: _split(v, found) for key, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_split(v, found) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(type(value).__name__)


def _joined(value, found: dict[str, torch.Tensor]):
    if isinstance(value, list):
        return [_joined(v, found) for v in value]
    if not isinstance(value, dict):
        return value
    return found[value["tensor"]] if "tensor" in value else {k: _joined(v, found) for k, v in value["dict"].items()}


class Stored(Sequence):
    """Samples of a store, read when asked for; the last used, of ``limit`` bytes together, stay in memory."""

    def __init__(self, store: Store, keys: dict[str, str], limit: int = 2 * GIB):
        """``keys`` are those of the store, by the names of the samples."""
        self.store, self.keys, self.limit = store, list(keys.items()), limit
        self._kept: OrderedDict[int, Encoded] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, names: Collection[str]) -> "Stored":
        """Some of the samples."""
        return Stored(self.store, {name: key for name, key in self.keys if name in names}, self.limit)

    def __getitem__(self, i: int) -> Encoded:
        if i not in self._kept:
            name, key = self.keys[i]
            self._kept[i] = self.store.get(key, name)
            self._bytes += _size(self._kept[i])
        self._kept.move_to_end(i)
        while self._bytes > self.limit and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return self._kept[i]


def _size(sample: Encoded) -> int:
    return sum(t.nbytes for t in tensors([sample.latent, sample.conditioning]))
