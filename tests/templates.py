"""The example graphs that ComfyUI ships, run as far as the conditioning that their samplers get."""
import asyncio
import importlib
import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import nodes as comfy_nodes

BYPASSED = 4
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
POSITIVE = {"KSampler": "positive", "SamplerCustom": "positive", "CFGGuider": "positive", "BasicGuider": "conditioning",
            "DualCFGGuider": "cond1", "KSamplerAdvanced": "positive"}  # fmt: skip
NEGATIVE = {name: "negative" for name in POSITIVE} | {"DualCFGGuider": "cond2"}  # with the references


def find(name: str) -> dict | None:
    """The template of that name in ComfyUI's package of templates, if this host has it."""
    files = (f for folder in sys.path for f in Path(folder).glob(f"comfyui_workflow_templates*/**/{name}.json"))
    file = next(files, None)
    return file and json.loads(file.read_text(encoding="utf-8"))


def node_class(name: str):
    """A node of ComfyUI's own, as the server would load it."""
    if name in comfy_nodes.NODE_CLASS_MAPPINGS:
        return comfy_nodes.NODE_CLASS_MAPPINGS[name]
    for file in sorted(Path(importlib.import_module("comfy_extras").__path__[0]).glob("nodes_*.py")):
        if f'"{name}"' in file.read_text(encoding="utf-8"):
            module = importlib.import_module(f"comfy_extras.{file.stem}")
            found = getattr(module, "NODE_CLASS_MAPPINGS", {}).get(name)
            if found is None and hasattr(module, "comfy_entrypoint"):
                found = _of_extension(module, name)
            if found is not None:
                comfy_nodes.NODE_CLASS_MAPPINGS[name] = found
                return found
    raise LookupError(name)


def run(name: str, **arguments):
    """The outputs of a node of ComfyUI's own."""
    cls = node_class(name)
    if not hasattr(cls, "define_schema"):
        return getattr(cls(), cls.FUNCTION)(**arguments)
    return type(name, (cls,), {"hidden": SimpleNamespace(unique_id=None)}).execute(**arguments).args


def _of_extension(module, name: str):
    async def nodes():
        extension = module.comfy_entrypoint()
        extension = await extension if inspect.isawaitable(extension) else extension
        return await extension.get_node_list()

    return next((node for node in asyncio.run(nodes()) if node.define_schema().node_id == name), None)


class Template:
    """A graph of the editor with its subgraphs, in which loaders give what the test has: text encoder, VAE, pictures."""

    def __init__(self, graph: dict, clip, vae, caption: str, pictures: list, guiders: dict[str, str] = POSITIVE):
        self.graph, self.clip, self.vae, self.caption, self.pictures = graph, clip, vae, caption, pictures
        self.subgraphs = {sub["id"]: sub for sub in graph.get("definitions", {}).get("subgraphs", [])}
        self.guiders = guiders
        self.loaders: list[int] = []  # LoadImage nodes, in the order they were met

    def conditionings(self) -> list:
        """What every sampler that is not switched off gets as conditioning at the inputs of ``guiders``."""
        return [value for value in self._samplers(self.graph, ()) if value is not None]

    def _samplers(self, graph: dict, around: tuple):
        for node in graph["nodes"]:
            if node["type"] in self.subgraphs and not node.get("mode"):
                yield from self._samplers(self.subgraphs[node["type"]], ((graph, node), *around))
            elif (name := self.guiders.get(node["type"])) and not node.get("mode"):
                yield self._input(graph, node, name, around)

    def _input(self, graph: dict, node: dict, name: str, around: tuple):
        link = next((i.get("link") for i in node.get("inputs", []) if i["name"] == name), None)
        return None if link is None else self._output(graph, link, around)

    def _output(self, graph: dict, link: int, around: tuple):
        ends = (l if isinstance(l, list) else [l["id"], l["origin_id"], l["origin_slot"]] for l in graph["links"])
        _, origin, slot, *_ = next(end for end in ends if end[0] == link)
        if str(origin) == "-10":  # an input of the subgraph
            (outer, node), *rest = around
            return self._input(outer, node, graph["inputs"][slot]["name"], tuple(rest))
        node = next(n for n in graph["nodes"] if n["id"] == origin)
        if sub := self.subgraphs.get(node["type"]):
            return self._output(sub, sub["outputs"][slot]["linkIds"][0], ((graph, node), *around))
        if node.get("mode") == BYPASSED:
            kind = node["outputs"][slot]["type"]
            through = next((i["name"] for i in node.get("inputs", []) if i["type"] == kind), None)
            return through and self._input(graph, node, through, around)
        return self._run(graph, node, slot, around)

    def _run(self, graph: dict, node: dict, slot: int, around: tuple):
        if stand_in := {"CLIP": self.clip, "VAE": self.vae}.get(node["outputs"][slot]["type"]):
            return stand_in
        if node["type"] == "LoadImage":
            key = id(node)
            self.loaders += [] if key in self.loaders else [key]
            return self.pictures[self.loaders.index(key)] if self.loaders.index(key) < len(self.pictures) else None
        if node["type"] == "ImageStitch":  # beside nothing; its module needs the server
            return self._input(graph, node, "image1", around)
        arguments = self._arguments(node_class(node["type"]), graph, node, around)
        if node["type"] == "ReferenceLatent" and arguments.get("latent") is None:
            return arguments["conditioning"]  # a second picture that this test does not have
        if node["type"] == "VAEEncode" and arguments.get("pixels") is None:
            return None
        return run(node["type"], **arguments)[slot]

    def _arguments(self, cls, graph: dict, node: dict, around: tuple) -> dict:
        declared = {k: v for group in ("required", "optional") for k, v in cls.INPUT_TYPES().get(group, {}).items()}
        values, given = iter(node.get("widgets_values") or []), {}
        for name, spec in declared.items():
            if isinstance(spec[0], (list, tuple)) or spec[0] in WIDGETS:
                options = spec[1] if len(spec) > 1 else {}
                given[name] = next(values, options.get("default"))
        for entry in node.get("inputs", []):
            name = entry["name"]
            if name in ("prompt", "text"):
                continue
            if entry.get("link") is not None and (value := self._output(graph, entry["link"], around)) is not None:
                group, _, member = name.rpartition(".")
                if group:  # images.image_1
                    given.setdefault(group, {})[member] = value
                else:
                    given[name] = value
            elif name in declared and name not in given:
                given[name] = None
        given |= {name: self.caption for name in ("prompt", "text") if name in declared}
        required = cls.INPUT_TYPES().get("required", {})
        return {name: value for name, value in given.items() if value is not None or name in required}
