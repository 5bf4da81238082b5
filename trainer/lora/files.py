"""What a LoRA file says of itself, in the keys that other programs read."""
import json
import time
from collections import Counter
from dataclasses import asdict


def metadata(
    name: str, key: str, family: str, dataset, settings, steps: int, learning_rate: float, seconds: float,
    base: str, graph: dict[str, object],
) -> dict[str, str]:  # fmt: skip
    """The header of a LoRA's .safetensors file, all values text.

    `modelspec.*` is Stability's model metadata standard (https://github.com/Stability-AI/ModelSpec); `ss_*` are kohya's
    keys, which Lora Manager and Civitai read; `prompt` and `workflow` are the graph, as in ComfyUI's own files.
    ``base`` is the fingerprint of the base model, ``graph`` what ComfyUI hands to nodes that save files.
    """
    now, samples, reading = time.time(), dataset.samples, dataset.reading
    captions = Counter(dataset.caption(sample) for sample in samples)
    size = f"{reading.resolution}x{reading.resolution}"
    header = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{family}/lora",
        "modelspec.implementation": "https://github.com/comfyanonymous/ComfyUI",
        "modelspec.title": name,
        "modelspec.date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "modelspec.resolution": size,
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
        "ss_num_train_images": len(samples),
        "ss_resolution": f"({reading.resolution}, {reading.resolution})",
        "ss_training_started_at": now - seconds,
        "ss_training_finished_at": now,
        "ss_tag_frequency": json.dumps({dataset.folder.name: dict(captions)}),
        "pairlora_run": key,
        "pairlora_base": base,
        "pairlora_settings": json.dumps(asdict(settings)),
        "pairlora_dataset": json.dumps(
            {"name": dataset.folder.name, "samples": len(samples), "inputs": [len(sample.starts) for sample in samples]}
        ),
    }
    if reading.trigger_word:
        header |= {"modelspec.trigger_phrase": reading.trigger_word}
    header |= {name: json.dumps(value) for name, value in graph.items() if value}
    return {name: str(value) for name, value in header.items()}
