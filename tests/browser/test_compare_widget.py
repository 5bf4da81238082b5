"""Before / After in a real browser, on the canvas renderer and on Nodes 2.0."""
import copy
import io

import pytest
from graphs import load, queue, wait_until_compared
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
