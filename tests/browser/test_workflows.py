"""The example workflows in a real browser, on the canvas renderer and on Nodes 2.0: no missing node, the very prompt that is
kept beside them, and a picture that a newcomer can read."""
import json

import pytest
from graphs import load

from make_workflows import BLUEPRINTS, WORKFLOWS, made, prompt, template

WIDEST = 1900  # pixels of all groups together


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "vue"])
def renderer(request, page):
    page.evaluate("vue => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)", request.param)
    return "vue" if request.param else "canvas"


@pytest.fixture(scope="module")
def known(page):
    """What this ComfyUI's nodes are."""
    return page.evaluate("() => fetch('/object_info').then(answer => answer.json())")


@pytest.fixture(params=WORKFLOWS)
def slug(request, known):
    nodes = {content["class_type"] for content in json.loads(prompt(request.param).read_text(encoding="utf-8")).values()}
    if missing := nodes - known.keys():
        pytest.skip(f"this ComfyUI has no {', '.join(sorted(missing))}")
    return request.param


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


CONVERT = """async workflow => {
    await app.loadGraphData(workflow);
    const types = app.graph.nodes.map(node => node.type);
    const red = types.filter(type => !(type in LiteGraph.registered_node_types));
    return {output: (await app.graphToPrompt()).output, red};
}"""


def normal(prompt):
    """A prompt without the titles that the page adds."""
    return {node: {"class_type": c["class_type"], "inputs": c["inputs"]} for node, c in prompt.items()}


def test_the_page_converts_it_to_its_prompt(page, renderer, slug):
    workflow, twin = read(template(slug)), read(prompt(slug))
    converted = page.evaluate(CONVERT, workflow)
    assert converted["red"] == []
    assert normal(converted["output"]) == twin
    # the comparison can fail: a changed widget shows
    node = next(node for node in workflow["nodes"] if node["type"] == "PairLoRADataset")
    node["widgets_values"][3] += 16
    assert normal(page.evaluate(CONVERT, workflow)["output"]) != twin


def test_the_files_are_those_of_the_recipe(slug, known):
    for file, content in made(slug, known).items():
        assert content == read(file), f"run demo/make_workflows.py for {file.name}"


BOXES = """async () => {
    await new Promise(done => setTimeout(done, 500)); // until widgets have their height
    return app.graph.nodes.map(({id, pos, size}) => [id, pos[0], pos[1] - 30, pos[0] + size[0], pos[1] + size[1]]);
}"""


def test_no_node_covers_another(page, renderer, slug, screenshot):
    load(page, read(template(slug)))
    boxes = page.evaluate(BOXES)
    overlap = [
        (a[0], b[0]) for i, a in enumerate(boxes) for b in boxes[i + 1 :]
        if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
    ]  # fmt: skip
    screenshot(f"workflow {slug}")
    assert overlap == []


# Of each link the drawn path, and whether it crosses the border of a node that it neither leaves nor comes to.
UNDER = """async () => {
    app.canvas.ds.scale = 0.3;
    app.canvas.ds.offset = [900, 1500];
    app.graph.setDirtyCanvas(true, true);
    app.canvas.draw(true, true);
    await new Promise(done => setTimeout(done, 500));
    const context = document.createElement("canvas").getContext("2d"), found = [];
    context.lineWidth = 3;
    const links = [...app.graph.links.values()];
    const paths = links.map(link => [link.path, [link]]);
    for (const reroute of app.graph.reroutes.values())
        paths.push([reroute.path, links.filter(link => reroute.linkIds.has(link.id))]);
    for (const [path, of] of paths) for (const node of app.graph.nodes) {
        if (!path || of.some(link => link.origin_id == node.id || link.target_id == node.id)) continue;
        const [x, y] = node.pos, [width, height] = node.size, points = [];
        for (let i = 0; i <= width; i += 2) points.push([x + i, y - 30], [x + i, y + height]);
        for (let i = -30; i <= height; i += 2) points.push([x, y + i], [x + width, y + i]);
        if (points.some(point => context.isPointInStroke(path, ...point))) found.push([of.map(link => link.id), node.type]);
    }
    return {found, drawn: paths.filter(([path]) => path).length, links: links.length};
}"""


def test_it_reads_from_left_to_right(page, renderer, slug):
    workflow = read(template(slug))
    (left, *_), *_ = boxes = [group["bounding"] for group in workflow["groups"]]
    assert [group["title"][:2] for group in workflow["groups"]] == ["1 ", "2 ", "3 "]
    assert max(x + width for x, _, width, _ in boxes) - left < WIDEST
    (note,) = (node for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    view = workflow["extra"]["ds"]
    x, y = ((at + offset) * view["scale"] for at, offset in zip(note["pos"], view["offset"]))
    assert 60 < x < 200 and 60 < y < 250 and view["scale"] > 0.6, "it opens on the note, and its text is drawn"
    assert "Run" in note["widgets_values"][0] and "Queue" not in note["widgets_values"][0]
    if renderer == "canvas":  # where links leave nodes is known there
        load(page, workflow)
        seen = page.evaluate(UNDER)
        assert seen["drawn"] >= seen["links"] and seen["found"] == []


CUT = """() => {
    const context = document.createElement("canvas").getContext("2d");
    context.font = "14px Inter, Arial, sans-serif";
    return app.graph.nodes.filter(node => {
        const icons = node.isSubgraphNode?.() ? 100 : 70; // the dot or triangle, and what opens a subgraph
        return context.measureText(node.getTitle()).width + icons > node.size[0];
    }).map(node => node.getTitle());
}"""


def test_no_title_is_cut(page, slug):
    load(page, read(template(slug)))
    assert page.evaluate(CUT) == []


@pytest.mark.parametrize("name", BLUEPRINTS.values())
def test_a_blueprint_is_offered_among_the_nodes(page, name):
    listed = page.evaluate("() => fetch('/api/global_subgraphs').then(answer => answer.json())")
    assert f"PairLoRA before and after ({name})" in {entry["name"] for entry in listed.values()}


LINKS = """() => [...app.graph.links.values()].filter(link => link.type.startsWith("PAIRLORA_")).map(link =>
    [link.type, LGraphCanvas.link_type_colors[link.type], app.canvas.default_connection_color_byType[link.type]])"""
SLOTS = """() => [...document.querySelectorAll("[data-node-id] [style*='--color-datatype-PAIRLORA_']")].map(
    slot => getComputedStyle(slot).backgroundColor)"""


def test_links_of_the_packs_own_kinds_have_colours(page, renderer):
    load(page, read(template("background-removal")))
    page.wait_for_timeout(1000)
    found = page.evaluate(LINKS)
    colours = {"PAIRLORA_DATASET": "#4dd0e1", "PAIRLORA_SETTINGS": "#d7b48c"}
    assert {kind: {link, slot} for kind, link, slot in found} == {kind: {colour} for kind, colour in colours.items()}
    if renderer == "vue":
        assert set(page.evaluate(SLOTS)) == {"rgb(77, 208, 225)", "rgb(215, 180, 140)"}
