"""What Train Edit LoRA shows of its training in a real browser, on the canvas renderer and on Nodes 2.0."""
import re
import time

import pytest
from graphs import load, queue, set_widget, switch, training, wait_until_ready

ENDLESS = 100_000  # steps; cancelled by the test
SEEN = 200  # steps that take the seconds a page needs to see one of them
REPORT = re.compile(r"\.safetensors: \d+ samples?, ")


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "vue"])
def renderer(request, page):
    page.evaluate("vue => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)", request.param)
    return request.param


@pytest.fixture
def panel(page, renderer):
    yield page.locator(".pairlora-train")
    page.evaluate("fetch('/api/queue', {method: 'POST', body: '{\"clear\": true}'})")
    page.evaluate("fetch('/api/interrupt', {method: 'POST'})")


def wait_for(panel, text):
    panel.get_by_text(text).first.wait_for(timeout=120_000)


def unique(name):
    return f"{name}_{time.time_ns()}"


def texts_of_nodes(page):
    """What any node of the graph says of progress, drawn by the pack or by ComfyUI."""
    return page.evaluate("""[
        ...[...document.querySelectorAll(".pairlora-train")].map(element => element.innerText),
        ...app.graph.nodes.flatMap(node => node.widgets ?? []).filter(({name}) => name === "$$node-text-preview")
            .map(({value}) => value),
    ].join("\\n")""")


def test_progress_and_report_are_shown_and_come_back(page, panel):
    load(page, training(unique("shown"), SEEN))
    wait_for(panel, "Progress and the report appear here.")
    queue(page)
    wait_for(panel, re.compile(rf"step \d+/{SEEN}  loss \d"))
    wait_for(panel, REPORT)
    report = panel.inner_text()
    assert page.evaluate("app.graph.getNodeById(4).widgets.map(({name}) => name)") == [
        "steps", "learning_rate", "name", "continue_from", "progress",
    ]  # fmt: skip
    assert page.evaluate("app.graph.serialize().nodes.find(({type}) => type == 'PairLoRATrain').widgets_values.length") == 4

    set_widget(page, 4, "steps", ENDLESS)
    queue(page)
    wait_for(panel, re.compile(r"step \d+/"))
    page.evaluate("fetch('/api/interrupt', {method: 'POST'})")
    wait_for(panel, re.compile(rf"^Cancelled \(step \d+/{ENDLESS}\)$"))
    set_widget(page, 4, "steps", SEEN)
    queue(page)  # found
    wait_for(panel, REPORT)
    without_size = re.compile(r"\nRun: .*")
    assert without_size.sub("", panel.inner_text()) == without_size.sub("", report)

    load(page, training(unique("reloaded"), 3))
    queue(page)
    wait_for(panel, REPORT)
    report = panel.inner_text()
    page.wait_for_timeout(2000)  # until the page has kept its workflow
    page.reload()
    wait_until_ready(page)
    wait_for(panel, REPORT)
    assert panel.inner_text() == report


def test_no_other_workflow_and_no_other_tab_shows_it(page, panel, browser, server):
    other = training(unique("other"), 3)
    sampler = {"id": 5, "type": "KSampler", "pos": [900, 0], "size": [300, 260], "flags": {}, "order": 4, "mode": 0, "inputs": [],
               "outputs": [], "properties": {}, "widgets_values": [0, "fixed", 20, 8, "euler", "simple", 1]}  # fmt: skip
    with_sampler = {**other, "nodes": [*other["nodes"][:3], {**sampler, "id": 4}], "links": []}

    tab = browser.new_page()
    tab.goto(server.url)
    wait_until_ready(tab)
    load(tab, with_sampler)

    load(page, training(unique("mine"), ENDLESS))
    queue(page)
    wait_for(panel, re.compile(r"step \d+/"))
    for graph in (other, with_sampler):
        load(page, graph)
        page.wait_for_timeout(1500)
        assert "step" not in texts_of_nodes(page)
    switch(page, "Previous")
    switch(page, "Previous")
    wait_for(panel, re.compile(r"step \d+/"))

    load(page, other)
    page.evaluate("fetch('/api/interrupt', {method: 'POST'})")
    page.wait_for_timeout(1500)
    assert texts_of_nodes(page) == "Progress and the report appear here."
    for _ in range(3):
        switch(page, "Previous")
    wait_for(panel, re.compile(r"^Cancelled \(step"))
    assert "step" not in texts_of_nodes(tab)
    tab.close()


def test_what_stopped_it_is_shown(page, panel):
    graph = training(unique("failed"), 3)
    model = {"name": "MODEL", "type": "MODEL", "links": [99]}
    graph["nodes"].append({"id": 5, "type": "PairLoRATestNoReferences", "pos": [0, 500], "size": [200, 50], "flags": {},
                           "order": 0, "mode": 0, "inputs": [], "outputs": [model], "properties": {}})  # fmt: skip
    train = next(node for node in graph["nodes"] if node["type"] == "PairLoRATrain")
    graph["links"] = [link for link in graph["links"] if link[0] != train["inputs"][0]["link"]] + [[99, 5, 0, 4, 0, "MODEL"]]
    train["inputs"][0]["link"] = 99
    load(page, graph)
    queue(page)
    wait_for(panel, re.compile(r"^Failed( \((captions|pictures) 1/6\))?: This model \(SD3\) takes no reference images"))


def test_every_dropdown_knows_the_new_lora(page, panel):
    graph, name = training(unique("listed"), 3), unique("listed")
    load(page, training(name, 3))
    page.evaluate("app.graph.add(LiteGraph.createNode('LoraLoaderModelOnly'))")
    page.evaluate("""() => {
        const node = LiteGraph.createNode("LoraLoaderModelOnly");
        app.graph.add(node);
        app.graph.convertToSubgraph(new Set([node]));
    }""")
    queue(page)
    wait_for(panel, REPORT)
    page.wait_for_function("""name => {
        const graphs = [app.graph, ...app.graph.subgraphs.values()];
        const loaders = graphs.flatMap(({nodes}) => nodes).filter(({type}) => type === "LoraLoaderModelOnly");
        return loaders.length === 2 && loaders.every(({widgets}) => widgets[0].options.values.includes(`${name}.safetensors`));
    }""", arg=name)
    load(page, graph)
    new = page.evaluate("LiteGraph.createNode('LoraLoaderModelOnly').widgets[0].options.values")
    assert f"{name}.safetensors" in new, "nodes of later workflows know it too"


def test_a_training_in_a_subgraph_is_shown_on_its_node(page, renderer):
    load(page, training(unique("inside"), 3))
    page.evaluate("app.graph.convertToSubgraph(new Set(app.graph.nodes.filter(({type}) => type === 'PairLoRATrain')))")
    text = """() => [...app.graph.subgraphs.values()].flatMap(({nodes}) => nodes).find(({type}) => type === "PairLoRATrain")
        .widgets.find(({name}) => name === "progress").element.textContent"""
    assert page.evaluate(text) == "Progress and the report appear here."
    queue(page)
    page.wait_for_function(f"({text})().includes('.safetensors: 6 samples')", timeout=120_000)
