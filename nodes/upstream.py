"""Which files a model in the graph was loaded from, as far as the prompt tells."""
import re

WEIGHTS = re.compile(r"\.(safetensors|sft|gguf|ckpt|pth?|bin)$", re.IGNORECASE)


def files(prompt: dict | None, node: str, name: str = "model") -> list[str]:
    """The weight files on the way up from the input ``name`` of ``node``: of LoRAs, and last of the model itself."""
    found, seen = [], set()
    while node not in seen:
        seen.add(node)
        link = _links((prompt or {}).get(node, {}).get("inputs", {}), name)
        if link is None:
            break
        node = link
        inputs = prompt.get(node, {}).get("inputs", {})
        found += [value for value in inputs.values() if isinstance(value, str) and WEIGHTS.search(value)]
    return found


def _links(inputs: dict, name: str) -> str | None:
    """The node that is linked to the input ``name`` or, where a node calls it otherwise, like it."""
    links = {key: value[0] for key, value in inputs.items() if isinstance(value, list) and len(value) == 2}
    return links.get(name) or next((node for key, node in links.items() if name in key), None)
