"""Before / After in a real browser, on the canvas renderer and on Nodes 2.0."""
import base64
import copy
import io
import json
import uuid
from urllib.parse import parse_qs, urlsplit

import pytest
from graphs import load, queue, wait_until_compared, wait_until_ready
from PIL import Image, ImageChops

FOLDER = "samples/try-on-held-out"
SIDES = ["input", "input 2", "input 3", "before", "after", "target"]
OFFLINE = "ERR_NAME_NOT_RESOLVED"  # ComfyUI's page asks the network for things of its own
LINKS = {"before": 0, "after": 3, "input": 0, "target": 3, "input1": 1, "input2": 2, "names": 5}  # input: output of Samples


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "vue"])
def renderer(request, page):
    page.problems = []
    page.on("console", lambda message: message.type == "error" and OFFLINE not in message.text and page.problems.append(message.text))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.evaluate("vue => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)", request.param)
    return request.param


@pytest.fixture(scope="module")
def shown(page, renderer):
    """The node after a run, at the natural size of the page."""
    load(page, {"version": 0.4, "nodes": [], "links": [], "last_node_id": 0, "last_link_id": 0})
    page.evaluate("""([folder, links]) => {
        const make = (type, x) => {
            const node = LiteGraph.createNode(type);
            node.pos = [x, 90];
            app.graph.add(node);
            return node;
        };
        const [data, samples, compare] = [["PairLoRADataset", -900], ["PairLoRASample", -420], ["PairLoRABeforeAfter", 60]]
            .map(args => make(...args));
        data.widgets.find(({name}) => name === "folder").value = folder;
        data.widgets.find(({name}) => name === "resolution").value = 256;
        data.connect(0, samples, 0);
        for (const [name, output] of Object.entries(links)) {
            samples.connect(output, compare, compare.inputs.findIndex(input => input.name === name));
        }
        compare.setSize([700, 760]);
        app.canvas.ds.scale = 1;
        app.canvas.ds.offset = [20, -20];
        app.graph.setDirtyCanvas(true, true);
    }""", [FOLDER, LINKS])
    widget = page.locator(".pairlora-compare")
    widget.get_by_text("Queue to compare").wait_for()
    queue(page)
    wait_for_pictures(page, widget)
    return widget


def wait_for_pictures(page, widget):
    widget.locator(".pairlora-title").get_by_text("1 of 6").wait_for(timeout=60_000)
    wait_until_compared(page)


@pytest.fixture
def widget(page, shown):
    """At its first sample, under the slider."""
    shown.locator(".pairlora-film button").first.click()
    choose(shown, "slider", "before", "after")
    stage = shown.locator(".pairlora-stage")
    stage.focus()
    page.keyboard.press("0")
    return shown


def choose(widget, mode, left, right):
    widget.get_by_label("How to compare").select_option(mode)
    widget.get_by_label("Picture on the left").select_option(left)
    widget.get_by_label("Picture on the right").select_option(right)


def position(widget):
    return int(widget.locator(".pairlora-stage").get_attribute("aria-valuenow"))


def view(page):
    return page.evaluate("app.graph.nodes.find(({type}) => type === 'PairLoRABeforeAfter').properties.pairlora_view")


def seen(page, widget):
    """The stage as (r, g, b) pixels, without what lies over the pictures."""
    page.add_style_tag(content=".pairlora-bare :is(.pairlora-line, .pairlora-side) { visibility: hidden }")
    stage = widget.locator(".pairlora-stage")
    stage.evaluate("stage => stage.classList.add('pairlora-bare')")
    picture = Image.open(io.BytesIO(stage.screenshot())).convert("RGB")
    stage.evaluate("stage => stage.classList.remove('pairlora-bare')")
    return picture


def test_it_shows_every_side_of_every_sample_with_scores(page, widget, screenshot):
    assert widget.get_by_label("Picture on the left").locator("option").all_inner_texts() == SIDES
    assert widget.locator(".pairlora-film button").count() == 6
    assert widget.locator(".pairlora-scores").get_by_text("PSNR kept").is_visible()
    assert widget.locator("img").evaluate_all("all => all.every(image => image.alt)")
    assert page.locator(".image-preview:visible").count() == 0
    screenshot("before and after")


def test_the_slider_follows_pointer_and_keys(page, widget):
    box = widget.locator(".pairlora-stage").bounding_box()
    middle = box["y"] + box["height"] / 3
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, middle, steps=4)
    page.mouse.up()
    assert position(widget) == 25
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert position(widget) == 37
    assert round(view(page)["position"]) == 37, "it is saved with the workflow"


def test_equal_pictures_show_no_seam_at_any_zoom(page, widget):
    choose(widget, "slider", "after", "target")
    stage = widget.locator(".pairlora-stage")
    for zooms in (0, 3, 6):
        for _ in range(zooms):
            stage.press("+")
        stage.press("Home")
        one = seen(page, widget)
        for _ in range(7):
            stage.press("Shift+ArrowRight")
        assert ImageChops.difference(seen(page, widget), one).getbbox() is None


def test_space_flips_and_zoom_stays_between_samples(page, widget):
    stage = widget.locator(".pairlora-stage")
    stage.press("Home")
    after = seen(page, widget)
    page.keyboard.down(" ")
    flipped = seen(page, widget)
    page.keyboard.up(" ")
    stage.press("End")
    assert after.tobytes() == flipped.tobytes() != seen(page, widget).tobytes()
    stage.press("+")
    width = stage.locator("img").first.evaluate("image => image.style.width")
    stage.press("PageDown")
    widget.get_by_text("2 of 6").wait_for()
    assert stage.locator("img").first.evaluate("image => image.style.width") == width
    stage.dblclick()
    assert stage.locator("img").first.evaluate("image => image.style.width") != width


def test_side_by_side_and_difference(page, widget, screenshot):
    choose(widget, "difference", "after", "target")
    widget.get_by_text("Mean difference 0.00 of 255").wait_for()
    choose(widget, "difference", "before", "target")
    assert float(widget.locator(".pairlora-sizes").inner_text().split()[2]) > 1
    screenshot("difference")
    choose(widget, "side", "before", "target")
    boxes = [image.bounding_box() for image in widget.locator(".pairlora-layer img").all()]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] + 1 and boxes[0]["y"] == boxes[1]["y"]
    screenshot("side by side")


def test_what_is_chosen_is_in_no_prompt(page, widget):
    asked = "app.graphToPrompt().then(({output}) => JSON.stringify(output))"
    before = page.evaluate(asked)
    choose(widget, "side", "input", "target")
    assert page.evaluate(asked) == before and "pairlora_" not in before


def test_it_opens_large_and_closes_by_escape(page, widget, screenshot):
    widget.get_by_label("Open large").click()
    dialog = page.locator("dialog.pairlora-large")
    assert dialog.locator(".pairlora-stage").bounding_box()["height"] > 400
    screenshot("large")
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def test_the_pictures_come_back_and_missing_ones_say_what_to_do(page, widget, server):
    saved = page.evaluate("JSON.parse(JSON.stringify(app.graph.serialize()))")
    load(page, saved)
    again = page.locator(".pairlora-compare")
    wait_for_pictures(page, again)
    files = page.evaluate("""() => app.graph.nodes.find(({type}) => type === "PairLoRABeforeAfter").properties
        .pairlora_pictures.map(({subfolder, filename}) => `${subfolder}/${filename}`)""")
    assert len(files) == 36
    problems = list(page.problems)
    gone = copy.deepcopy(saved)
    for node in gone["nodes"]:
        for image in node["properties"].get("pairlora_pictures", []):
            image["filename"] = f"gone {image['filename']}"
    load(page, gone)
    page.get_by_text("Queue this node to make it again").first.wait_for()
    load(page, saved)
    wait_for_pictures(page, again)
    assert not problems


def stripped(graph):
    """The graph as it was before the first run."""
    for node in [*graph["nodes"], *(n for sub in graph.get("definitions", {}).get("subgraphs", []) for n in sub["nodes"])]:
        node["properties"] = {name: value for name, value in node["properties"].items() if not name.startswith("pairlora_")}
    return graph


INSIDE = """() => [app.graph, ...app.graph.subgraphs.values()].flatMap(({nodes}) => nodes)
    .find(({type}) => type === "PairLoRABeforeAfter").widgets.find(({name}) => name === "comparison").element"""
SEEN = f"() => [...({INSIDE})().querySelectorAll('.pairlora-film img')].map(image => image.getAttribute('src'))"


def run_again(page, captions):
    """With another widget, so that it is not cached; what is seen then."""
    before = page.evaluate(SEEN)
    page.evaluate("""captions => {
        const graphs = [app.graph, ...app.graph.subgraphs.values()];
        const node = graphs.flatMap(({nodes}) => nodes).find(({type}) => type === "PairLoRABeforeAfter");
        node.widgets.find(({name}) => name === "captions").value = captions;
    }""", captions)
    queue(page)
    page.wait_for_function(f"before => JSON.stringify(({SEEN})()) !== before && ({SEEN})().length === 6", arg=json.dumps(before, separators=(",", ":")))
    return page.evaluate(SEEN)


def wait_until_seen(page, sources):
    page.wait_for_function(f"sources => JSON.stringify(({SEEN})()) === sources", arg=json.dumps(sources, separators=(",", ":")))


OPEN_HISTORY = """async back => {
    const {$pinia} = document.querySelector("#vue-app").__vue_app__.config.globalProperties;
    const store = $pinia._s.get("queue");
    await store.update();
    await store.historyTasks[back].loadWorkflow(app);
}"""


@pytest.mark.parametrize("inside", [False, True], ids=["", "in a subgraph"])
def test_it_comes_back_from_history_undo_and_a_picture_dropped_on_any_page(page, widget, browser, server, inside):
    saved = page.evaluate("JSON.parse(JSON.stringify(app.graph.serialize()))")
    load(page, stripped(json.loads(json.dumps(saved)) | {"id": str(uuid.uuid4())}))
    assert page.evaluate(SEEN) == []
    if inside:
        page.evaluate("app.graph.convertToSubgraph(new Set(app.graph.nodes.filter(({type}) => type === 'PairLoRABeforeAfter')))")
    page.wait_for_timeout(500)
    graph = stripped(page.evaluate("JSON.parse(JSON.stringify(app.graph.serialize()))"))
    first, second = run_again(page, False), run_again(page, True)
    assert set(first).isdisjoint(second)
    load(page, graph)
    wait_until_seen(page, second)
    page.evaluate(OPEN_HISTORY, 1)
    wait_until_seen(page, first)
    page.wait_for_timeout(1000)
    wait_until_seen(page, first)  # what came later does not take its place
    page.evaluate(OPEN_HISTORY, 0)
    wait_until_seen(page, second)

    drop = """async url => {
        const blob = await (await fetch(url)).blob();
        await app.handleFile(new File([blob], "dropped.png", {type: "image/png"}));
    }"""
    load(page, {"version": 0.4, "nodes": [], "links": [], "last_node_id": 0, "last_link_id": 0})
    page.evaluate(drop, second[0])
    wait_until_seen(page, second)
    other = browser.new_context().new_page()  # another browser
    other.goto(server.url)
    wait_until_ready(other)
    other.evaluate(drop, second[0])
    wait_until_seen(other, second)
    other.context.close()
    load(page, saved)


def touch(page, kind, *points):
    """One event of so many fingers, as (x, y)."""
    points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    page.touches = getattr(page, "touches", None) or page.context.new_cdp_session(page)
    page.touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_timeout(50)  # moves are told once a frame


def test_a_finger_moves_the_slider_and_two_zoom_and_pan(page, widget):
    stage = widget.locator(".pairlora-stage")
    box, scale = stage.bounding_box(), page.evaluate("app.canvas.ds.scale")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch(page, "touchStart", (x, y))
    touch(page, "touchMove", (x - box["width"] / 8, y))
    touch(page, "touchMove", (x - box["width"] / 4, y))
    touch(page, "touchEnd")
    assert position(widget) == 25
    choose(widget, "side", "before", "after")
    image = stage.locator("img").first
    x = box["x"] + box["width"] / 4  # the middle of the left one
    before = image.bounding_box()
    touch(page, "touchStart", (x - 20, y), (x + 20, y))
    for apart in (30, 40, 50, 60):
        touch(page, "touchMove", (x - apart, y), (x + apart, y))
    larger = image.bounding_box()
    assert larger["width"] == pytest.approx(3 * before["width"], rel=0.05)
    assert larger["x"] + larger["width"] / 2 == pytest.approx(x, abs=4), "what is between the fingers stays there"
    touch(page, "touchMove", (x - 40, y + 10), (x + 80, y + 10))
    touch(page, "touchEnd")
    moved = image.bounding_box()
    assert (moved["x"] - larger["x"], moved["y"] - larger["y"]) == (pytest.approx(20, abs=3), pytest.approx(10, abs=3))
    assert page.evaluate("app.canvas.ds.scale") == scale, "the canvas stays"


def test_each_side_is_copied_saved_and_opened(page, widget, server):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(widget, "slider", "input", "target")
    page.bring_to_front()
    shown = [image.get_attribute("src") for image in widget.locator(".pairlora-layer img").all()]
    left, right = [server.base / "output/pairlora/before_after" / parse_qs(urlsplit(src).query)["filename"][0] for src in shown]
    widget.get_by_label("Copy the right picture").click()
    widget.get_by_text("Copied target.").wait_for()
    copied = page.evaluate("""async () => {
        const [item] = await navigator.clipboard.read(), blob = await item.getType("image/png");
        return [...new Uint8Array(await blob.arrayBuffer())];
    }""")
    assert ImageChops.difference(Image.open(io.BytesIO(bytes(copied))).convert("RGB"), Image.open(right)).getbbox() is None
    with page.expect_download() as download:
        widget.get_by_label("Save the left picture").click()
    assert download.value.suggested_filename == left.name
    assert download.value.path().read_bytes() == left.read_bytes(), "with the workflow inside"
    with page.context.expect_page() as opened:
        widget.get_by_label("Open the left picture").click()
    opened.value.wait_for_load_state()
    assert left.name in opened.value.url
    opened.value.close()


def test_pictures_of_other_sizes_are_fitted_and_said(page, widget, server):
    saved = page.evaluate("JSON.parse(JSON.stringify(app.graph.serialize()))")
    Image.new("RGB", (200, 100), "red").save(server.base / "output/wide.png")
    other = copy.deepcopy(saved)
    for node in other["nodes"]:
        for image in node["properties"].get("pairlora_pictures", []):
            if image["side"] == "target":
                image |= {"filename": "wide.png", "subfolder": ""}
    load(page, other)
    wait_for_pictures(page, page.locator(".pairlora-compare"))
    choose(page.locator(".pairlora-compare"), "slider", "before", "target")
    size = page.evaluate("(() => { const {naturalWidth: w, naturalHeight: h} = document.querySelector('.pairlora-left img'); return `${w} × ${h}`; })()")
    page.get_by_text(f"before is {size}, target 200 × 100: fitted to each other.").wait_for()
    boxes = [image.bounding_box() for image in page.locator(".pairlora-compare .pairlora-layer img").all()]
    assert boxes[0] == boxes[1]
    load(page, saved)
    wait_for_pictures(page, page.locator(".pairlora-compare"))
    assert not page.get_by_text("fitted to each other").is_visible()


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)], ids=lambda size: "x".join(map(str, size)))
def test_at_200_percent_all_of_it_can_be_reached(page, widget, size, request):
    """A page that is enlarged twice has half as many pixels of its own, each of two."""
    session, (width, height) = page.context.new_cdp_session(page), size
    metrics = {"width": width // 2, "height": height // 2, "deviceScaleFactor": 2, "mobile": False}
    widget.get_by_label("Open large").click()
    session.send("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.wait_for_timeout(500)
        assert page.evaluate("[innerWidth, devicePixelRatio]") == [width // 2, 2]
        dialog = page.locator("dialog.pairlora-large")
        hidden = dialog.evaluate("""dialog => [...dialog.querySelectorAll("button, select, .pairlora-stage")].filter(control => {
            const {left, top, width, height} = control.getBoundingClientRect();
            return !control.contains(document.elementFromPoint(left + width / 2, top + height / 2)) ||
                left < 0 || top < 0 || left + width > innerWidth || top + height > innerHeight;
        }).map(({outerHTML}) => outerHTML)""")
        box = dialog.locator(".pairlora-stage").bounding_box()
        page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
        at = dialog.locator(".pairlora-stage").get_attribute("aria-valuenow")
        if folder := request.config.getoption("screenshots"):
            picture = session.send("Page.captureScreenshot")["data"]  # page.screenshot has metrics of its own
            (folder / f"large at 200 percent {width}x{height}.png").write_bytes(base64.b64decode(picture))
    finally:
        session.send("Emulation.clearDeviceMetricsOverride")
        page.keyboard.press("Escape")
    assert not hidden
    assert box["height"] > 150 and at == "25"


def test_nothing_moves_for_whoever_wants_reduced_motion(page, widget):
    page.emulate_media(reduced_motion="reduce")
    try:
        widget.get_by_label("Open large").click()
        moving = page.evaluate("""[...document.querySelectorAll("[class*=pairlora], [class*=pairlora] *")].filter(element => {
            const {transitionDuration, animationName, scrollBehavior} = getComputedStyle(element);
            return transitionDuration !== "0s" || animationName !== "none" || scrollBehavior !== "auto";
        }).map(({outerHTML}) => outerHTML.slice(0, 200))""")
        page.keyboard.press("Escape")
    finally:
        page.emulate_media(reduced_motion="no-preference")
    assert not moving


def test_checkpoints_are_a_grid_whose_cells_open_and_can_be_kept(page, widget, screenshot):
    saved = page.evaluate("JSON.parse(JSON.stringify(app.graph.serialize()))")
    kept = next(node["properties"] for node in saved["nodes"] if node["type"] == "PairLoRABeforeAfter")
    for image in kept["pairlora_pictures"]:
        step, strength = divmod(image["sample"], 2)
        image["name"] = f"gone step {250 * step + 250} at {(0.5, 1)[strength]}"
    load(page, saved)
    grid = page.locator(".pairlora-grid")
    assert grid.locator("th[scope=col]").all_inner_texts() == ["strength", "step 250", "step 500", "step 750"]
    assert grid.locator("th[scope=row]").all_inner_texts() == ["0.5", "1"]
    screenshot("grid")
    grid.get_by_label("Compare gone step 500 at 1").click()
    page.locator("dialog.pairlora-large").get_by_role("heading", name="gone step 500 at 1").wait_for()
    page.keyboard.press("Escape")
    with page.expect_response("**/pairlora/keep") as answer:
        grid.get_by_label("Use step 750 at 0.5").click()
    assert answer.value.request.post_data_json == {"lora": "gone", "step": 750}
    page.get_by_text("There is no LoRA 'gone' in ComfyUI's loras folder.").wait_for()
    page.get_by_role("button", name="Grid").click()
    page.locator(".pairlora-compare .pairlora-stage").wait_for()
    assert not grid.is_visible()
