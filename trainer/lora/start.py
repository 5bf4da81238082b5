"""A LoRA file as the start of a training."""
import hashlib
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from ..data.text import counted
from ..host import apply
from .inject import targets


@dataclass(frozen=True)
class Start:
    """What a LoRA file holds for the layers that are trained, in float32 on the CPU, with its scale in lora_B.

    ``tensors`` are `diffusion_model.PATH.lora_A.weight` (r, in) and `.lora_B.weight` (out, r) of the layers that are in
    the file, each with an r of its own; ``rank`` is the largest. ``digest`` is a hash of the tensors, so that neither the
    file's name nor its metadata counts. ``warnings`` say what of the file is left out.
    """

    tensors: dict[str, torch.Tensor]
    rank: int
    digest: str
    warnings: list[str]

    def check(self, untrained: dict[str, torch.Tensor]) -> None:
        """Raise ValueError where it has a layer that is in none of the ``untrained``, so that its effect would be lost."""
        if left := [key for key in self.tensors if key not in untrained]:
            raise ValueError(
                f"The LoRA to continue from changes {left[0].rsplit('.', 2)[0]}, which the settings leave out. Set layers to all, "
                "without a layer_pattern."
            )

    def over(self, untrained: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The LoRA to train on from: ``untrained``, which is of the start's rank and without effect, with the start in it.

        Where the file has a smaller rank, or nothing, the random rows of lora_A stay, and so do the zeros of lora_B.
        """
        whole = dict(untrained)
        for key, value in self.tensors.items():
            dim = int(key.endswith(".lora_B.weight"))
            rest = untrained[key].narrow(dim, value.shape[dim], self.rank - value.shape[dim])
            whole[key] = torch.cat([value, rest], dim)
        return whole


def read(model, file: Path) -> Start:
    """What ComfyUI's loader makes of a LoRA ``file`` for the MODEL, of the layers that training trains.

    Raises:
        ValueError: the file cannot be read, is of another base, or is no plain LoRA; says what to do.
    """
    try:
        lora = safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{file} is damaged or not a .safetensors file ({error}). Choose another, or download it again.") from error
    text = apply.of_text_encoder(lora)
    for key in text:
        del lora[key]
    try:
        layers = apply.added(model, apply.with_lora(model, lora, 1.0))
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{file.name} is damaged: ComfyUI's loader stops at {error}. Choose another, or download it again.") from error
    _check_plain(file, layers)
    unfit = apply.unused(lora, layers)
    if not layers or 2 * len(unfit) > len(lora):
        raise ValueError(
            f"{file.name} is no LoRA that ComfyUI loads on this {type(model.model).__name__}: of its {counted(len(lora), 'key')} for the "
            f"model {len(unfit)} fit no layer, such as {', '.join(unfit[:3]) or 'none'}. Choose a LoRA of this base."
        )
    trained = {f"diffusion_model.{path}.weight": module for path, module in targets(model.model.diffusion_model).items()}
    tensors, other = {}, sorted(layers.keys() - trained.keys())
    for key in filter(layers.get, trained):
        b, a = _joined(file, key, layers[key], trained[key])
        path = key.removesuffix(".weight")
        tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    if not tensors:
        raise ValueError(f"{file.name} changes no layer that training does, only such as {other[0]}. Choose another LoRA.")
    warnings = [
        f"Left out of {file.name}: {counted(len(keys), noun)} {why}, first {keys[0]}."
        for noun, why, keys in (
            ("layer", "that training does not touch", other),
            ("key", "for the text encoder, which is not trained", text),
            ("key", "without a layer in this model", unfit),
        )
        if keys
    ]
    rank = max(len(a) for key, a in tensors.items() if key.endswith(".lora_A.weight"))
    smallest, key = min((min(m.in_features, m.out_features), key) for key, m in trained.items())
    if rank > smallest:
        raise ValueError(f"{file.name} has rank {rank}, but {key} only {smallest} dimensions. Choose a LoRA of a smaller rank.")
    return Start(tensors, rank, _digest(tensors), warnings)


def _check_plain(file: Path, layers: dict[str, list[tuple]]) -> None:
    for key, parts in layers.items():
        for _, patch, *_ in parts:
            if (kind := apply.kind(patch)) != "LoRA":
                raise ValueError(
                    f"{file.name} has {kind} for {key}, but training goes on from plain LoRA only: lora_down and lora_up, or "
                    "lora_A and lora_B. Choose another file, or load this one onto the model and train a new LoRA with it."
                )


def _joined(file: Path, key: str, parts: list[tuple], module: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """B (out, r) and A (r, in) of a layer. Where the file has several for its rows, such as to_q, to_k and to_v, their
    ranks add, but for those that share their A."""
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    for _, patch, _, offset, _ in parts:
        _, first, rows = offset or (0, 0, module.out_features)
        try:
            up, down = apply.factors(patch, rows, module.in_features)
        except ValueError as error:
            raise ValueError(f"{file.name} is of another model: for {key} it has {error}. Choose a LoRA of this base.") from error
        if not (up.isfinite().all() and down.isfinite().all()):
            raise ValueError(f"{file.name} is damaged: for {key} it has NaN or infinity. Choose another, or download it again.")
        b = torch.zeros(module.out_features, len(down))
        b[first : first + rows] = up
        same = next((other for other, a in pairs if torch.equal(a, down)), None)
        if same is not None:
            same += b
        else:
            pairs.append((b, down))
    return torch.cat([b for b, _ in pairs], 1), torch.cat([a for _, a in pairs])


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key, tensor in tensors.items():
        digest.update(f"{key} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
