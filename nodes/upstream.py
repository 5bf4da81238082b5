"""Which files a model in the graph was loaded from, as far as the prompt tells."""
import re

WEIGHTS = re.compile(r"\.(safetensors|sft|gguf|ckpt|pth?|bin)$", re.IGNORECASE)


def files(prompt: dict | None, node: str, name: str = "model") -> tuple[str, list[str]]:
    """The file of the model at the input ``name`` of ``node``, "" where the prompt does not tell, and the files of what
    was put on it on the way, such as LoRAs. What a model comes from has no links."""
    prompt, way = prompt or {}, []
    while (node := _link(_inputs(prompt, node), name)) and node not in way:
        way.append(node)
    found = [[v for v in _inputs(prompt, node).values() if isinstance(v, str) and WEIGHTS.search(v)] for node in way]
    if not way or _links(_inputs(prompt, way[-1])):
        return "", sum(found, [])
    return "".join(found[-1][:1]), sum(found[:-1], [])


def _inputs(prompt: dict, node: str) -> dict:
    return prompt.get(node, {}).get("inputs", {})


def _links(inputs: dict) -> dict[str, str]:
    """The linked nodes, by the inputs that they are linked to."""
    return {key: value[0] for key, value in inputs.items() if isinstance(value, list) and len(value) == 2}


def _link(inputs: dict, name: str) -> str | None:
    """The node that is linked to the input ``name`` or, where a node calls it otherwise, like it."""
    links = _links(inputs)
    return links.get(name) or next((node for key, node in links.items() if name in key), None)
