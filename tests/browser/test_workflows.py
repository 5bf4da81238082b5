"""The example workflows in a real browser: no missing node, and the very prompt that the demo queues."""
import json

import pytest

from host import ROOT

EXAMPLES = {"background_removal": "background-removal", "try_on": "try-on"}


CONVERT = """async workflow => {
    await app.loadGraphData(workflow);
    const types = app.graph.nodes.map(node => node.type);
    const red = types.filter(type => !(type in LiteGraph.registered_node_types));
    return {output: (await app.graphToPrompt()).output, red};
}"""


def normal(prompt):
    """A prompt without the titles that the page adds."""
    return {node: {"class_type": c["class_type"], "inputs": c["inputs"]} for node, c in prompt.items()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_converts_the_example_to_the_demos_prompt(page, name):
    workflow = json.loads((ROOT / f"example_workflows/{name}.json").read_text(encoding="utf-8"))
    twin = json.loads((ROOT / f"demo/workflows/{EXAMPLES[name]}.api.json").read_text(encoding="utf-8"))
    converted = page.evaluate(CONVERT, workflow)
    assert converted["red"] == []
    assert normal(converted["output"]) == normal(twin)
    # the comparison can fail: a changed widget shows
    train = next(node for node in workflow["nodes"] if node["type"] == "PairLoRATrain")
    train["widgets_values"][0] += 1
    assert normal(page.evaluate(CONVERT, workflow)["output"]) != normal(twin)


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_node_of_an_example_covers_another(page, name):
    workflow = json.loads((ROOT / f"example_workflows/{name}.json").read_text(encoding="utf-8"))
    boxes = page.evaluate("""async workflow => {
        await app.loadGraphData(workflow);
        await new Promise(done => setTimeout(done, 500)); // until widgets have their height
        return app.graph.nodes.map(({id, pos, size}) => [id, pos[0], pos[1] - 30, pos[0] + size[0], pos[1] + size[1]]);
    }""", workflow)
    overlap = [
        (a[0], b[0]) for i, a in enumerate(boxes) for b in boxes[i + 1 :]
        if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
    ]  # fmt: skip
    assert overlap == []
