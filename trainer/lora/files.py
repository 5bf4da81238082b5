"""What a LoRA file says of itself, in the keys that other programs read."""
import json
import time
from dataclasses import asdict

import torch

from ..data.dataset import About


def metadata(
    name: str, key: str, family: str, about: About, settings, steps: int, learning_rate: float, seconds: float,
    base: str, base_file: str, graph: dict[str, object],
) -> dict[str, str]:  # fmt: skip
    """The header of a LoRA's .safetensors file, all values text.

    `modelspec.*` is Stability's model metadata standard (https://github.com/Stability-AI/ModelSpec); `ss_*` are kohya's
    keys, which Lora Manager and Civitai read; `prompt` and `workflow` are the graph, as in ComfyUI's own files.
    ``base`` is the fingerprint of the base model and ``base_file`` the name of its file, or "" where it is not known;
    ``graph`` is what ComfyUI hands to nodes that save files.
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
        "ss_seed": settings.seed,
        "ss_num_train_images": len(about.inputs),
        "ss_training_started_at": now - seconds,
        "ss_training_finished_at": now,
        "ss_tag_frequency": json.dumps({about.name: about.captions}),
        "pairlora_run": key,
        "pairlora_base": base,
        "pairlora_settings": json.dumps(asdict(settings)),
        "pairlora_dataset": json.dumps({"name": about.name, "samples": len(about.inputs), "inputs": about.inputs}),
    }
    if base_file:
        header |= {"ss_sd_model_name": base_file}
    if about.resolution:
        header |= {"modelspec.resolution": f"{about.resolution}x{about.resolution}"}
        header |= {"ss_resolution": f"({about.resolution}, {about.resolution})"}
    if about.trigger_word:
        header |= {"modelspec.trigger_phrase": about.trigger_word}
    header |= {name: json.dumps(value) for name, value in graph.items() if value}
    return {name: str(value) for name, value in header.items()}


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
