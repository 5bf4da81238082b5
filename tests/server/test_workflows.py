"""Each example workflow from queue to before and after, as the page queues it: its model files are there under their names,
with tiny random models of the real classes in them (tests/tiny_files.py). Only steps, size, length
and how many pictures a slow one makes are less."""
import json
import shutil
import sys
from pathlib import Path

import pytest

from host import ROOT
from make_workflows import WORKFLOWS, prompt, template

LESS = {"steps": 1, "resolution": 64, "max_length": 8}
SLOW = {"qwen-2509", "qwen-2511", "longcat"}  # their nodes make references of a megapixel of whatever they get
WITHOUT_TRAINING = {"build": "restoration_pairs", "caption": "captioned_pairs"}  # the folders that they write


@pytest.fixture(scope="module")
def files(comfy, server):
    from tiny_files import Writer

    return Writer(server.base / "models")


def missing(known: dict, prompt: dict) -> str | None:
    """What of it this ComfyUI does not have: a node, or what is to be chosen in one."""
    for node in prompt.values():
        if node["class_type"] not in known:
            return f"the node {node['class_type']}"
        for part in known[node["class_type"]]["input"].values():
            for name, (kind, *options) in part.items() if isinstance(part, dict) else ():
                choices = kind if isinstance(kind, list) else (options[0].get("options") if options and kind == "COMBO" else None)
                value = node["inputs"].get(name)
                if choices is not None and isinstance(value, str) and not value.endswith(".safetensors") and name != "folder":
                    if value not in choices:
                        return f"{name} {value} in {node['class_type']}"
    return None


def small(slug: str) -> dict:
    graph = json.loads(prompt(slug).read_text(encoding="utf-8"))
    for node in graph.values():
        node["inputs"] |= {name: value for name, value in LESS.items() if isinstance(node["inputs"].get(name), int)}
        if node["class_type"] == "PairLoRATrain":
            node["inputs"]["steps"] = 2
        if slug in SLOW and "which" in node["inputs"]:
            node["inputs"]["which"] = "photo001"
    return graph


@pytest.fixture(scope="module")
def style(server):
    """Twelve captioned pictures without a before."""
    folder = server.base / "input/my_style"
    folder.mkdir()
    for i in range(1, 13):
        shutil.copy(ROOT / f"samples/try-on/photo{i:03}_end.png", folder / f"style{i:02}.png")
        (folder / f"style{i:02}.txt").write_text(f"picture {i}")


@pytest.mark.parametrize("slug", [
    pytest.param(slug, marks=pytest.mark.slow) if slug in SLOW else slug for slug in WORKFLOWS if slug not in WITHOUT_TRAINING
])  # fmt: skip
def test_it_trains_and_compares(client, server, files, style, slug):
    graph = small(slug)
    if what := missing(client.get("/object_info"), graph):
        pytest.skip(f"this ComfyUI has no {what}")
    if slug == "flux2-klein":
        import comfy.text_encoders.flux

        if not hasattr(comfy.text_encoders.flux, "klein_te"):
            pytest.skip("this ComfyUI does not know klein's text encoder")
    files.base_model(slug)
    if slug == "continue":  # goes on from what that one makes
        client.run(small("background-removal"))
    before = set((server.base / "models/loras").rglob("*.safetensors"))
    outcome = client.run(graph)
    (train,) = (id for id, node in graph.items() if node["class_type"] == "PairLoRATrain")
    (compare,) = (id for id, node in graph.items() if node["class_type"] == "PairLoRABeforeAfter")
    assert train in outcome.ran and set((server.base / "models/loras").rglob("*.safetensors")) - before
    report = outcome.outputs[train]["text"][0]
    assert "distilled" not in report, "the training adapter is known"
    sides = [image["side"] for image in outcome.outputs[compare]["images"]]
    assert sides.count("after") >= 1 and sides.count("before") in (1, sides.count("after"))
    assert ("input" in sides) == (slug not in ("style", "training-adapter"))


@pytest.mark.parametrize("slug, folder", WITHOUT_TRAINING.items())
def test_it_writes_pairs(client, server, files, slug, folder):
    graph = small(slug)
    if what := missing(client.get("/object_info"), graph):
        pytest.skip(f"this ComfyUI has no {what}")
    files.base_model(slug)
    client.run(graph)
    written = server.base / "input" / folder
    names = {file.stem.rpartition("_")[0] for file in written.glob("*_end.png")}
    assert len(names) == 6
    for name in names:
        assert (written / f"{name}_start.png").read_bytes() != (written / f"{name}_end.png").read_bytes()
        assert slug == "caption" or (written / f"{name}.txt").read_text() == "restore the picture"


def model_files(node_or_graph) -> set[tuple[str, str, str]]:
    """Name, directory and address of every model file that a workflow asks for."""
    if isinstance(node_or_graph, list):
        return set().union(*map(model_files, node_or_graph))
    if not isinstance(node_or_graph, dict):
        return set()
    own = node_or_graph.get("properties", {}).get("models", []) if "type" in node_or_graph else []
    return {(m["name"], m["directory"], m["url"]) for m in own} | model_files(list(node_or_graph.values()))


def test_model_files_are_asked_for_as_comfyuis_own_templates_do():
    theirs = set()
    for folder in sys.path:
        for file in Path(folder).glob("comfyui_workflow_templates*/templates/*.json"):
            if not file.name.startswith("index"):
                theirs |= model_files(json.loads(file.read_text(encoding="utf-8")))
    known, checked = {name for name, *_ in theirs}, 0
    for slug in WORKFLOWS:
        ours = model_files(json.loads(template(slug).read_text(encoding="utf-8")))
        files = {value for node in json.loads(prompt(slug).read_text(encoding="utf-8")).values()
                 for name, value in node["inputs"].items() if str(value).endswith(".safetensors") and name != "continue_from"}  # fmt: skip
        assert {name for name, *_ in ours} == files, "each file that is loaded has its address"
        assert {file for file in ours if file[0] in known} <= theirs
        checked += len({name for name, *_ in ours} & known)
    assert checked > 10
