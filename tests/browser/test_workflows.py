"""The example workflows in a real browser: no missing node, and the very prompt that the demo queues."""
import json
import os

import pytest
from playwright.sync_api import sync_playwright

from host import ROOT

EXAMPLES = {"background_removal": "background-removal", "try_on": "try-on"}


@pytest.fixture(scope="module")  # its event loop would be in the way of other tests
def browser():
    with sync_playwright() as p:
        path = os.environ.get("PAIRLORA_CHROMIUM")
        browser = p.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.goto(server.url)
    page.wait_for_function("window.app?.graph && Object.keys(LiteGraph.registered_node_types).length > 100", timeout=90_000)
    yield page
    page.close()


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
