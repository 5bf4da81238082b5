"""What Train Edit LoRA shows of its training in a real browser, on the canvas renderer and on Nodes 2.0."""
import re
import time

import pytest
from graphs import load, queue, set_widget, switch, training, wait_until_ready

ENDLESS = 100_000  # steps; cancelled by the test
SEEN = 200  # steps that take the seconds a page needs to see one of them
NOTHING = "The loss, pictures of held-out pairs and the report appear here."
REPORT = re.compile(r"\.safetensors: \d+ samples?[, ]")


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "vue"])
def renderer(request, page):
    page.evaluate("vue => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)", request.param)
    return request.param


@pytest.fixture
def panel(page, renderer):
    yield page.locator(".pairlora-train")
    page.keyboard.press("Escape")  # ComfyUI's dialog of what went wrong
    page.evaluate("fetch('/api/queue', {method: 'POST', body: '{\"clear\": true}'})")
    page.evaluate("fetch('/api/interrupt', {method: 'POST'})")


def wait_for(panel, text):
    panel.get_by_text(text).first.wait_for(timeout=120_000)


def unique(name):
    return f"{name}_{time.time_ns()}"


def texts_of_nodes(page):
    """What any node of the graph says of progress, drawn by the pack or by ComfyUI."""
    return page.evaluate("""[
        ...[...document.querySelectorAll(".pairlora-text")].map(element => element.innerText),
        ...app.graph.nodes.flatMap(node => node.widgets ?? []).filter(({name}) => name === "$$node-text-preview")
            .map(({value}) => value),
    ].join("\\n")""")


def test_progress_and_report_are_shown_and_come_back(page, panel):
    load(page, training(unique("shown"), SEEN))
    wait_for(panel, NOTHING)
    queue(page)
    wait_for(panel, re.compile(rf"step \d+/{SEEN}  loss \d"))
    wait_for(panel, REPORT)
    text = panel.locator(".pairlora-text")
    report = text.inner_text()
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
    assert text.inner_text() == report

    load(page, training(unique("reloaded"), 3))
    queue(page)
    wait_for(panel, REPORT)
    report = text.inner_text()
    page.wait_for_timeout(2000)  # until the page has kept its workflow
    page.reload()
    wait_until_ready(page)
    wait_for(panel, REPORT)
    assert text.inner_text() == report
    assert page.evaluate("Object.keys(app.graph.getNodeById(4).properties).filter(name => name.startsWith('pairlora'))") == ["pairlora_run"]


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
    assert texts_of_nodes(page) == NOTHING
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
        .widgets.find(({name}) => name === "progress").element.querySelector(".pairlora-text").textContent"""
    assert page.evaluate(text) == NOTHING
    queue(page)
    page.wait_for_function(f"({text})().includes('.safetensors: 6 samples')", timeout=120_000)


def keys(page):
    return page.evaluate("app.graph.nodes.filter(({type}) => type === 'PairLoRATrain').map(node => node.properties.pairlora_run ?? null)")


def test_it_is_watched_asked_and_comes_back(page, panel, browser, server, screenshot):
    """The chart grows, pictures and copies are made when asked for, the training is stopped, and all of it is seen after
    a reload, in a second tab and after an undo; a pasted node has trained nothing."""
    name = unique("watched")
    load(page, training(name, ENDLESS, "samples/background-removal"))
    queue(page)
    wait_for(panel, re.compile(r"step \d+/"))
    panel.locator(".pairlora-plot canvas").wait_for()
    points = "() => app.graph.getNodeById(4).widgets.find(({name}) => name === 'progress').element.querySelectorAll('.u-over').length"
    assert page.evaluate(points) == 1
    panel.get_by_text(re.compile(r"step \d+ of 100000 · .* s a step")).wait_for(timeout=60_000)
    panel.locator(".pairlora-strip img").first.wait_for(timeout=60_000)
    assert panel.locator(".pairlora-strip figcaption").all_inner_texts()[:4] == ["input", "before", "now", "target"]
    scrubber = panel.get_by_label("Step of the pictures")
    rounds = int(scrubber.get_attribute("max"))
    panel.get_by_text("Preview now").click()
    page.wait_for_function("([input, rounds]) => Number(input.max) > rounds", arg=[scrubber.element_handle(), rounds], timeout=60_000)
    assert scrubber.input_value() == scrubber.get_attribute("max"), "the newest is shown"
    scrubber.press("ArrowLeft")
    assert int(scrubber.input_value()) < int(scrubber.get_attribute("max"))
    panel.get_by_text("Save a copy now").click()
    panel.get_by_text(re.compile(rf"Saved as {name}_step\d+\.safetensors")).wait_for(timeout=60_000)
    screenshot("a training")
    panel.locator(".pairlora-strip button").first.click()
    page.locator("dialog.pairlora-large").wait_for()
    page.keyboard.press("Escape")
    panel.get_by_text("Stop and use this").click()
    wait_for(panel, REPORT)
    screenshot("a finished training")
    [key] = keys(page)
    assert re.fullmatch("[0-9a-f]{10}", key)

    page.wait_for_timeout(2000)  # until the page has kept its workflow
    saved = page.evaluate("app.graph.serialize()")
    page.reload()
    wait_until_ready(page)
    wait_for(panel, REPORT)
    panel.locator(".pairlora-plot canvas").wait_for()
    panel.locator(".pairlora-strip img").first.wait_for()
    tab = browser.new_page()
    tab.goto(server.url)
    wait_until_ready(tab)
    load(tab, saved)
    tab.locator(".pairlora-plot canvas").wait_for()
    tab.locator(".pairlora-strip img").first.wait_for()
    tab.close()

    page.evaluate("""() => {
        app.canvas.selectItems([app.graph.getNodeById(4)]);
        app.canvas.copyToClipboard();
        app.canvas.pasteFromClipboard();
    }""")
    assert sorted(keys(page), key=str) == sorted([key, None], key=str)

    page.evaluate("""() => {
        const graph = app.graph.serialize();
        delete graph.nodes.find(({id}) => id === 4).properties.pairlora_run; // as an undo to before the run
        graph.nodes = graph.nodes.filter(({id}) => id <= 4);
        return app.loadGraphData(graph, true, false, app.extensionManager.workflow.activeWorkflow);
    }""")
    assert keys(page) == [key]
    panel.locator(".pairlora-plot canvas").wait_for()

    load(page, {**saved, "id": "00000000-0000-4000-8000-000000000001", "nodes": [
        {**node, "properties": {**node["properties"], **({"pairlora_run": "ffffffffff"} if node["id"] == 4 else {})}}
        for node in saved["nodes"]
    ]})  # fmt: skip
    wait_for(panel, "The run ffffffffff is not on this machine. Queue to train it here.")


def test_the_preview_that_comfyui_shows_too_is_not_drawn_again_in_the_node(page, panel, screenshot):
    load(page, training(unique("once"), 3, "samples/background-removal"))
    page.evaluate("""window.shown = new Set();
        app.api.addEventListener("b_preview_with_metadata", ({detail}) => window.shown.add(detail.blob));""")
    before = page.evaluate("[...app.graph.getNodeById(4).size]")
    queue(page)
    page.wait_for_function("window.shown.size", timeout=60_000)
    page.wait_for_timeout(500)  # until it would be drawn
    screenshot("a preview")
    wait_for(panel, REPORT)
    page.wait_for_function("window.shown.size === 3")
    assert page.evaluate("app.graph.getNodeById(4).widgets.map(({name}) => name).filter(name => name.startsWith('$$'))") == []
    assert page.evaluate("""[...document.querySelectorAll('[data-node-id="4"] img')]
        .filter(image => image.checkVisibility() && !image.closest(".pairlora-panel")).length""") == 0
    assert page.evaluate("[...app.graph.getNodeById(4).size]") == before


def test_app_mode_shows_the_previews_and_the_report(page, renderer, browser, server, screenshot):
    version = [int(part) for part in page.evaluate("window.__COMFYUI_FRONTEND_VERSION__").split(".")]
    if not renderer or version < [1, 42]:
        pytest.skip("App mode draws Nodes 2.0, on newer pages")
    name = unique("app")
    graph = {**training(name, 30, "samples/background-removal"), "extra": {"linearMode": True, "linearData": {"inputs": [], "outputs": [4]}}}
    tab = browser.new_page()
    tab.goto(server.url)
    wait_until_ready(tab)
    load(tab, graph)
    tab.get_by_text("Skip", exact=True).click()  # ComfyUI's tour
    queue(tab)
    tab.locator("img[src^=blob]:visible").first.wait_for(timeout=60_000)
    screenshot("App mode while it trains", tab)
    tab.locator("article", has_text=f"{name}.safetensors: 22 samples").wait_for(timeout=60_000)
    screenshot("App mode with the report", tab)
    tab.close()


def test_two_trainings_never_mix_and_an_undo_keeps_them(page, panel):
    """Two Train nodes of one workflow, with a run each that the server tells of."""
    steps = {"aaaaaaaaaa": 30, "bbbbbbbbbb": 70}

    def answer(route):
        key, begin = re.search(r"key=(\w+)&from=(\d+)", route.request.url).groups()
        lines = [{"step": step, "loss": 1 / step, "rate": 1e-4, "seconds": step * 0.1} for step in range(int(begin) + 1, steps[key] + 1)]
        route.fulfill(json={
            "key": key, "subfolder": f"pairlora/x-{key}", "next": steps[key], "lines": lines, "previews": [], "inputs": [],
            "checkpoints": [], "finished": [], "copies": [], "training": True, "size": 1,
        })  # fmt: skip

    def told(key, first, second):
        page.wait_for_function(
            """([first, second]) => [first, second].every((step, i) => {
                const [node] = app.graph.nodes.filter(({type}) => type === "PairLoRATrain").sort((a, b) => a.id - b.id).slice(i);
                return node?.widgets.find(({name}) => name === "progress").element.querySelector(".pairlora-numbers")
                    .textContent.includes(`step ${step} `);
            })""",
            arg=[first, second], timeout=20_000,
        )  # fmt: skip
        assert keys(page) == [*steps], key

    page.route("**/pairlora/run?*", answer)
    graph = training(unique("two"), ENDLESS)
    train = next(node for node in graph["nodes"] if node["type"] == "PairLoRATrain")
    second = {**train, "id": 5, "pos": [train["pos"][0], train["pos"][1] + 700], "inputs": [{**given, "link": None} for given in train["inputs"]]}
    graph["nodes"].append({**second, "outputs": [{**output, "links": []} for output in train["outputs"]]})
    for node, key in zip([train, graph["nodes"][-1]], steps, strict=True):
        node["properties"] = {**node["properties"], "pairlora_run": key}
    load(page, graph)
    page.evaluate("app.canvas.ds.scale = 0.5, app.canvas.ds.offset = [100, 100], app.graph.setDirtyCanvas(true, true)")
    told("loaded", 30, 70)
    plot = panel.first.locator(".pairlora-plot canvas")
    plot.wait_for()
    before = plot.evaluate("canvas => canvas.toDataURL()")
    steps["aaaaaaaaaa"] = 60
    told("grown", 60, 70)
    page.wait_for_function("([canvas, before]) => canvas.toDataURL() !== before", arg=[plot.element_handle(), before])

    page.evaluate("app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")
    set_widget(page, 4, "steps", 123)
    page.evaluate("app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")
    page.evaluate("app.extensionManager.workflow.activeWorkflow.changeTracker.undo()")
    page.wait_for_function("value => app.graph.getNodeById(4).widgets[0].value === value", arg=ENDLESS)
    told("undone", 60, 70)
    page.wait_for_function("""() => app.graph.nodes.filter(({type}) => type === "PairLoRATrain")
        .every(({widgets}) => widgets.find(({name}) => name === "progress").element.isConnected)""")
    assert page.locator(".pairlora-train").count() == 2
    page.unroute("**/pairlora/run?*")


def test_a_click_takes_the_advice_and_a_run_can_be_removed(page, panel):
    name = unique("advised")
    load(page, training(name, 3))
    panel.get_by_text("about 300 for these 6 pairs").click()
    assert page.evaluate("app.graph.getNodeById(4).widgets[0].value") == 300
    panel.get_by_text("about 300 for these 6 pairs").wait_for(state="detached")
    set_widget(page, 4, "steps", 3)
    queue(page)
    wait_for(panel, REPORT)
    [key] = keys(page)
    panel.get_by_text("Runs", exact=True).click()
    remove = panel.get_by_label(f"Remove the run {name} {key}")
    remove.click()
    page.get_by_role("dialog").get_by_text("the LoRAs in the loras folder stay").wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Delete").evaluate("button => button.click()")  # a toast may lie over it
    remove.wait_for(state="detached")
    assert page.evaluate("key => fetch(`/api/pairlora/run?key=${key}&from=0`).then(({status}) => status)", key) == 404


def test_20000_steps_leave_memory_flat_and_frames_quick(page, panel):
    """A run that is told by the server in 400 parts, while events come, as in hours of training."""
    key, parts = "0123456789", []

    def answer(route):
        begin = int(re.search(r"from=(\d+)", route.request.url)[1])
        told = begin // 50
        lines = [] if told >= len(parts) else [
            {"step": step, "loss": 1 / step + 0.01 * (step % 7), "norm": 1, "rate": 1e-4, "seconds": step * 0.1,
             **({"held_out": 0.5} if step % 50 == 0 else {})}
            for step in range(told * 50 + 1, told * 50 + 51)
        ]  # fmt: skip
        route.fulfill(json={
            "key": key, "subfolder": "pairlora/x", "next": begin + len(lines), "lines": lines, "previews": [], "inputs": [],
            "checkpoints": [*range(250, begin + 1, 250)], "finished": [], "copies": [], "training": True, "size": 1,
        })  # fmt: skip

    page.route("**/pairlora/run?*", answer)
    parts.extend(range(40))
    load(page, training(unique("long"), ENDLESS))
    cdp = page.context.new_cdp_session(page)
    cdp.send("Performance.enable")

    def heap():
        cdp.send("HeapProfiler.collectGarbage")
        return {metric["name"]: metric["value"] for metric in cdp.send("Performance.getMetrics")["metrics"]}["JSHeapUsedSize"]

    page.evaluate("""key => {
        const node = app.graph.getNodeById(4);
        node.properties.pairlora_run = key;
        node.onConfigure(node.serialize());
        window.frames = [];
        let before = performance.now();
        const frame = now => (frames.push(now - before), before = now, window.counting !== false && requestAnimationFrame(frame));
        window.counting = true, requestAnimationFrame(frame);
    }""", key)
    reached = "step => document.querySelector('.pairlora-numbers').textContent.includes(`step ${step} `)"
    page.wait_for_function(reached, arg=2000, timeout=60_000)
    page.wait_for_timeout(1000)
    early = heap()
    page.evaluate("window.frames.length = 0")
    parts.extend(range(40, 400))
    page.wait_for_function(reached, arg=20_000, timeout=120_000)
    page.wait_for_timeout(1000)
    frames = sorted(page.evaluate("(window.counting = false, window.frames)"))
    late = heap()
    page.unroute("**/pairlora/run?*")
    assert late - early < 8e6, f"{early / 1e6:.0f} MB became {late / 1e6:.0f} MB"
    assert frames[len(frames) * 95 // 100] < 50, frames[-10:]
