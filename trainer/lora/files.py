"""What a LoRA file says of itself, in the keys that other programs read."""
import json
import re
import time

import torch

from ..data.dataset import About

# Where a full path starts on any system. A whole value may have spaces in it; inside a text a space ends the path, and
# one that starts with a slash must have another, since people write and/or.
DRIVE, SLASH = r"(?:file:/{1,3}|~[\\/]|[a-z]:[\\/]+|\\{2,})(?=[\w.$%])", r"/(?=[\w.])"
WHOLE_PATH = re.compile(rf"[\s\"'\u202a]*(?:{DRIVE}|{SLASH})[^\n]*", re.IGNORECASE)
PATH = re.compile(rf"(?<![\w/.\\])(?:{DRIVE}|{SLASH}[^\s\"'<>|/]+/)[^\s\"'<>|]*", re.IGNORECASE)

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def metadata(
    name: str, key: str, family: str, about: About, settings, steps: int, learning_rate: float, seconds: float,
    base: str, base_file: str, graph: dict[str, object] | None, plan: str,
) -> dict[str, str]:  # fmt: skip
    """The header of a LoRA's .safetensors file, all values text.

    `modelspec.*` is Stability's model metadata standard (https://github.com/Stability-AI/ModelSpec); `ss_*` are kohya's
    keys, which Lora Manager and Civitai read; `prompt` and `workflow` are the graph, as in ComfyUI's own files.
    ``base`` is the fingerprint of the base model and ``base_file`` the name of its file, or "" where it is not known;
    ``graph`` is what ComfyUI hands to nodes that save files, ``plan`` how the memory was used, in words. No value has a
    full path. Without a graph, None, none has anything that the user has written or named but the LoRA.
    """
    now = time.time()
    header = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{family}/lora",
        "modelspec.implementation": "https://github.com/comfyanonymous/ComfyUI",
        "modelspec.title": name,
        "modelspec.date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "ss_output_name": name,
        "ss_base_model_version": family,
        "ss_network_module": "networks.lora",
        "ss_network_dim": settings.rank,
        "ss_network_alpha": settings.rank,
        "ss_learning_rate": learning_rate,
        "ss_steps": steps,
        "ss_max_train_steps": steps,
        "ss_batch_size_per_device": settings.batch_size,
        "ss_gradient_accumulation_steps": settings.accumulation,
        "ss_seed": settings.seed,
        "ss_num_train_images": len(about.inputs),
        "ss_training_started_at": now - seconds,
        "ss_training_finished_at": now,
        "pairlora_run": key,
        "pairlora_base": base,
        "pairlora_settings": json.dumps(settings.of_training()),
        "pairlora_memory": plan,
    }
    dataset = {"samples": len(about.inputs), "inputs": about.inputs}
    if about.resolution:
        header |= {"modelspec.resolution": f"{about.resolution}x{about.resolution}"}
        header |= {"ss_resolution": f"({about.resolution}, {about.resolution})"}
    if graph is not None:
        dataset |= {"name": about.name}
        header |= {"ss_tag_frequency": json.dumps({about.name: without_paths(about.captions)})}
        if base_file:
            header |= {"ss_sd_model_name": without_paths(base_file)}
        if about.trigger_word:
            header |= {"modelspec.trigger_phrase": without_paths(about.trigger_word)}
        header |= {name: json.dumps(without_paths(value)) for name, value in graph.items() if value}
    header |= {"pairlora_dataset": json.dumps(dataset)}
    return {name: str(value) for name, value in header.items()}


def without_paths(value):
    """``value``, as of JSON, with only the last part left of every full path, also inside a text."""
    if isinstance(value, dict):
        return {without_paths(key): without_paths(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(v) for v in value]
    if not isinstance(value, str):
        return value
    return _last_part(value) if WHOLE_PATH.fullmatch(value) else PATH.sub(lambda found: _last_part(found[0]), value)


def _last_part(path: str) -> str:
    return re.split(r"[\\/]", path.strip("\\/\"' "))[-1]


def rounded(lora: dict[str, torch.Tensor], save_as: str) -> dict[str, torch.Tensor]:
    """The LoRA in one of DTYPES. Raises ValueError where float16, which has no room for numbers that are very large or
    very small, would be further off than bfloat16 ever is."""
    if save_as == "float32":  # as it was trained
        return lora
    found, most = {key: value.to(DTYPES[save_as]) for key, value in lora.items()}, torch.finfo(torch.bfloat16).eps / 2
    for key, value in lora.items():
        if not (found[key].double() - value).norm() <= most * value.double().norm():
            raise ValueError(f"{key} has values too large or too small for {save_as}. Choose bf16 or float32 in Training Settings.")
    return found


def named(lora: dict[str, torch.Tensor], family: str) -> dict[str, torch.Tensor]:
    """The LoRA under the names that both ComfyUI and diffusers' converters take: for FLUX.1 kohya's lora_down and
    lora_up, for all others peft's lora_A and lora_B, with Z-Image's attention divided as diffusers has it."""
    if family == "FLUX.1":
        return {key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"): value for key, value in lora.items()}
    if family != "Z-Image":
        return lora
    divided = {}
    for key, value in lora.items():
        if ".attention.qkv." in key:  # lora_B has the rows of all three, one below the other
            parts = value.chunk(3) if "lora_B" in key else [value] * 3
            divided |= {key.replace("qkv", to): part.clone() for to, part in zip(("to_q", "to_k", "to_v"), parts)}
        else:
            divided[key.replace(".attention.out.", ".attention.to_out.0.")] = value
    return divided
