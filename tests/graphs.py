"""Small workflows in the editor's format, and what tests do with them in the page."""
import copy
import json
import zlib

from host import ROOT

DEMO = json.loads((ROOT / "demo/workflows/background-removal.api.json").read_text(encoding="utf-8"))
EXAMPLE = json.loads((ROOT / "example_workflows/background_removal.json").read_text(encoding="utf-8"))


def training(name: str, steps: int, folder="samples/background-removal-held-out") -> dict:
    """Nodes 1 to 4 of the example: demo model, dataset, settings and the training; under another name it is another
    training, by its seed."""
    graph = copy.deepcopy(EXAMPLE)
    graph["nodes"] = [node for node in graph["nodes"] if node["id"] <= 4]
    graph["links"] = [link for link in graph["links"] if link[1] <= 4 and link[3] <= 4]
    kept = {link[0] for link in graph["links"]}
    for node in graph["nodes"]:
        for given in node["inputs"]:
            given["link"] = given["link"] if given["link"] in kept else None
        for output in node["outputs"]:
            output["links"] = [link for link in output["links"] or [] if link in kept]
    values = {node["type"]: node.get("widgets_values") for node in graph["nodes"]}
    values["PairLoRADataset"][0], values["PairLoRADataset"][3] = folder, 64
    values["PairLoRASettings"][1:3] = [1, zlib.crc32(name.encode())]
    values["PairLoRATrain"][0], values["PairLoRATrain"][2] = steps, name
    return graph


def grid(name: str, steps: int, strengths: str) -> dict:
    """The demo's prompt, in the API format, with each checkpoint of its training at each of the strengths on one sample in
    place of one LoRA on all of them."""
    prompt = copy.deepcopy(DEMO)
    for inputs in (prompt["2"]["inputs"], prompt["5"]["inputs"]):
        inputs["resolution"] = 64
    prompt["3"]["inputs"] |= {"batch_size": 1, "seed": zlib.crc32(name.encode()), "hold_out": "none"}
    prompt["4"]["inputs"] |= {"steps": steps, "name": name}
    del prompt["4"]["inputs"]["held_out"]
    prompt["6"]["inputs"]["which"] = "test001"
    stages = {"model": ["1", 0], "lora": ["4", 2], "strengths": strengths}
    prompt["16"] = {"class_type": "PairLoRACheckpoints", "inputs": stages}
    prompt["12"]["inputs"]["model"] = ["16", 0]  # the sampler runs once for each
    prompt["15"]["inputs"]["names"] = ["16", 1]
    for sampler in ("11", "12"):
        prompt[sampler]["inputs"]["steps"] = 4
    return prompt


def load(page, graph: dict) -> None:
    page.evaluate("async graph => { await app.loadGraphData(graph); }", graph)


def alone(page, type: str) -> None:
    """A new node of a type on an empty canvas."""
    page.evaluate("""async type => {
        await app.loadGraphData({version: 0.4, nodes: [], links: [], last_node_id: app.graph.last_node_id, last_link_id: 0});
        const node = LiteGraph.createNode(type);
        node.pos = [60, 90];
        app.graph.add(node);
        app.canvas.ds.scale = 1;
        app.canvas.ds.offset = [20, 20];
        app.graph.setDirtyCanvas(true, true);
    }""", type)


def wait_until_compared(page, timeout: int = 30_000) -> None:
    """Until both pictures of a Before / After node are there."""
    page.wait_for_function("""() => {
        const images = [...document.querySelectorAll(".pairlora-compare .pairlora-layer img")];
        return images.length === 2 && images.every(image => image.naturalWidth);
    }""", timeout=timeout)


def queue(page) -> None:
    page.evaluate("app.queuePrompt(0)")


def set_widget(page, node: int, name: str, value) -> None:
    page.evaluate(
        """([id, name, value]) => {
            const widget = app.graph.getNodeById(id).widgets.find(widget => widget.name === name);
            widget.value = value;
            widget.callback?.(value);
        }""",
        [node, name, value],
    )


def switch(page, way: str) -> None:
    """Bring the "Next" or "Previous" open workflow up."""
    page.evaluate("way => app.extensionManager.command.execute(`Workspace.${way}OpenedWorkflow`)", way)


def wait_until_ready(page) -> None:
    page.wait_for_function("window.app?.graph && Object.keys(LiteGraph.registered_node_types).length > 100", timeout=90_000)
