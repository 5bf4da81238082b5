"""Which files a model in the graph was loaded from, as far as its object and the prompt tell."""
import re
from collections.abc import Callable, Iterator
from pathlib import PureWindowsPath

WEIGHTS = re.compile(r"\.(safetensors|sft|gguf|ckpt|pth?|bin)$", re.IGNORECASE)
OTHER_FILES = re.compile(r"lora|vae|clip|text_enc", re.IGNORECASE)  # beside the model, in a loader of several files
ALTERNATIVE = re.compile(r"model_?(\d+|[a-z])?$", re.IGNORECASE)
STRENGTH = re.compile(r"strength|weight|_wt|_str", re.IGNORECASE)
OF_CLIP = re.compile(r"clip|two", re.IGNORECASE)  # rgthree's strengthTwo
TOGGLE = re.compile(r"(^|_)(on|active|enabled?|toggle|switch)_?\d*$", re.IGNORECASE)
ANY = ("*", "COMFY_MATCHTYPE_V3")  # types of what can be a MODEL
PLAIN = ("STRING", "INT", "FLOAT", "BOOLEAN", "COMBO")


def files(
    prompt: dict | None, node: str, name: str = "model", model=None,
    output_type: Callable[[str, int], str | None] = lambda class_type, slot: None,
) -> tuple[str, list[str]]:  # fmt: skip
    """The file of the model at the input ``name`` of ``node``, "" where it cannot be known, and the LoRA files on it.

    Newer ComfyUI keeps the file on the ``model``. The prompt is believed along nodes that take one model or show which
    of several they pass on; ``output_type(class_type, slot)`` is the type of what a node gives, None if not known.
    """
    file, loras = _Prompt(prompt or {}, output_type).behind(_Prompt.inputs_of(prompt or {}, node).get(name), ())
    return _file_of(model) or file, loras


def _file_of(model) -> str:
    """What newer ComfyUI would load the model from again."""
    _, arguments, *_ = getattr(model, "cached_patcher_init", None) or (None, ())
    file = arguments[0] if arguments and isinstance(arguments[0], str) else ""
    return PureWindowsPath(file).name if WEIGHTS.search(file) else ""


class _Prompt:
    def __init__(self, prompt: dict, output_type: Callable[[str, int], str | None]):
        self.prompt, self.output_type = prompt, output_type

    @staticmethod
    def inputs_of(prompt: dict, node: str) -> dict:
        return prompt.get(node, {}).get("inputs", {})

    def type_of(self, link: list) -> str | None:
        return self.output_type(self.prompt.get(link[0], {}).get("class_type", ""), link[1])

    def behind(self, link, passed: tuple[str, ...]) -> tuple[str, list[str]]:
        """File and LoRAs of the model that comes along a link."""
        if not _is_link(link) or link[0] in passed or link[0] not in self.prompt:
            return "", []
        node, passed = self.prompt[link[0]], (*passed, link[0])
        inputs, links = node["inputs"], {key: value for key, value in node["inputs"].items() if _is_link(value)}
        chosen = _chosen(node.get("class_type", ""), inputs)
        ways = [chosen] if chosen in links else self.models(links, self.type_of(link) in ANY)
        if not ways:
            if any(self.type_of(other) not in PLAIN for other in links.values()):  # such as a pipe: the way is lost
                return "", list(self.loras(inputs, passed))
            named = (file for key in inputs if not OTHER_FILES.search(key) for file in self.texts(inputs[key]))
            loras = {key: value for key, value in inputs.items() if "lora" in key.lower()}
            return next(filter(WEIGHTS.search, named), ""), list(self.loras(loras, passed))
        (file, loras), *others = [self.behind(links[way], passed) for way in ways]
        for other_file, other_loras in others:  # what is the same on all of them is known
            file, loras = file if file == other_file else "", [lora for lora in loras if lora in other_loras]
        return file, [*self.loras({key: value for key, value in inputs.items() if key not in ways}, passed), *loras]

    def models(self, links: dict[str, list], gives_any: bool) -> list[str]:
        """The inputs that take a model; where types are not known, by their names."""
        types = {key: self.type_of(link) for key, link in links.items()}
        like = [key for key, kind in types.items() if "model" in key.lower() and (kind is None or kind in ANY)]
        if "model" in like:
            like = [key for key in like if ALTERNATIVE.fullmatch(key)]
        return [k for k in links if k in like or types[k] == "MODEL" or (gives_any and types[k] in ANY)]

    def texts(self, value) -> Iterator[str]:
        """A text, also one that is linked from a node that holds no other."""
        if isinstance(value, str):
            yield value
        elif _is_link(value):
            texts = [text for text in self.inputs_of(self.prompt, value[0]).values() if isinstance(text, str)]
            yield from texts if len(texts) == 1 else ()

    def loras(self, inputs: dict, passed: tuple[str, ...]) -> Iterator[str]:
        """The files that inputs, or entries of a list among them, name and use; those before them on linked lists."""
        for key, value in inputs.items():
            if not _is_used(inputs, key):
                continue
            if _is_link(value):
                if "lora" in key.lower() and value[0] not in passed:
                    yield from self.loras(self.inputs_of(self.prompt, value[0]), (*passed, value[0]))
            elif isinstance(value, dict):
                yield from self.loras(value, passed)
            elif isinstance(value, list):
                yield from self.loras(dict(zip(map(str, range(len(value))), value)), passed)
            elif isinstance(value, str) and (WEIGHTS.search(value) or (key == "name" and "active" in inputs)):
                yield value  # Lora Manager leaves the suffix out


def _is_link(value) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def _chosen(class_type: str, inputs: dict) -> str | None:
    """The input that a node of several passes on, where the prompt shows it."""
    if "on_true" in inputs or "on_false" in inputs:  # ComfyUI's If/Else Switch and its like in packs
        switches = [value for value in inputs.values() if isinstance(value, bool)]
        return ("on_true" if switches[0] else "on_false") if len(switches) == 1 else None
    if class_type == "ImpactSwitch":
        return f"input{inputs.get('select')}"
    if class_type == "CR Model Input Switch":
        return f"model{inputs.get('Input')}"
    return "model1" if "merge" in class_type.lower() else None  # it is what the others are merged into


def _is_used(inputs: dict, key: str) -> bool:
    """Whether the switch and the strength beside an input, of the same number, let it through."""
    number = re.findall(r"\d+", key)
    beside = {k: value for k, value in inputs.items() if k != key and re.findall(r"\d+", k) == number}
    if any(TOGGLE.search(k) and str(value).lower() in ("false", "off") for k, value in beside.items()):
        return False
    strengths = [str(value) for k, value in beside.items() if STRENGTH.search(k) and not OF_CLIP.search(k)]
    strengths = [float(text) for text in strengths if re.fullmatch(r"[-+]?\d+(\.\d*)?(e-?\d+)?", text)]
    return not strengths or any(strengths)
