"""The pack in a page whose language is Chinese, on the canvas renderer and on Nodes 2.0."""
import json
import re
import uuid

import pytest
from graphs import alone, load, queue, training, wait_until_compared, wait_until_ready

from host import ROOT

NODES, SAID = (json.loads((ROOT / f"locales/zh/{name}.json").read_text(encoding="utf-8")) for name in ("nodeDefs", "main"))
SAID = SAID["pairlora"]
CHINESE = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def page(browser, server):
    """A page that is Chinese by the user's setting; other tests find English again."""
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.goto(server.url)
    wait_until_ready(page)
    page.evaluate("app.extensionManager.setting.set('Comfy.Locale', 'zh')")
    page.reload()
    wait_until_ready(page)
    yield page
    page.evaluate("app.extensionManager.setting.set('Comfy.Locale', 'en')")
    page.close()


@pytest.fixture(params=[False, True], ids=["canvas", "vue"])
def renderer(request, page):
    page.evaluate("vue => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)", request.param)
    return request.param


def left_in_english(page) -> list[str]:
    """What the pack's widgets show, or say to a screen reader, of the texts that have a translation."""
    shown = page.evaluate("""[...document.querySelectorAll(".pairlora-panel, .pairlora-panel *, .pairlora-large *, .pairlora-strength")]
        .filter(element => !element.closest("pre"))
        .flatMap(element => [
            ...[...element.childNodes].filter(({nodeType}) => nodeType === Node.TEXT_NODE).map(({data}) => data),
            element.title, element.ariaLabel, element.alt, element.ariaValueText,
        ]).filter(Boolean)""")
    assert any(CHINESE.search(text) for text in shown)
    english = [form for text in SAID if re.search("[a-z]{3}", re.sub(r"\{\w+\}", "", text)) for form in text.split(" | ")]
    patterns = [re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(text))) for text in english]
    return [text for text in shown if any(pattern.fullmatch(text.strip()) for pattern in patterns)]


@pytest.mark.parametrize("type", NODES)
def test_a_node_is_called_as_in_its_translation(page, renderer, type):
    page.evaluate("""async () => {  // Nodes 2.0 of newer hosts hides them, and only these know the setting
        try { await app.extensionManager.setting.set("Comfy.Node.AlwaysShowAdvancedWidgets", true); } catch { /* older */ }
    }""")
    alone(page, type)
    said = page.evaluate("""() => {
        const [node] = app.graph.nodes, names = slots => slots.map(slot => slot.label ?? slot.localized_name);
        return {
            title: node.title, description: node.constructor.nodeData.description,
            inputs: names(node.inputs), widgets: (node.widgets ?? []).filter(({serialize}) => serialize !== false).map(({label}) => label),
            outputs: names(node.outputs),
        };
    }""")
    wanted = NODES[type]
    assert (said["title"], said["description"]) == (wanted["display_name"], wanted["description"])
    assert sorted(said["inputs"]) == sorted(given["name"] for given in wanted["inputs"].values())
    assert set(filter(None, said["widgets"])) <= set(said["inputs"])
    assert said["outputs"] == [output["name"] for output in wanted["outputs"].values()]
    if renderer:
        drawn = page.locator("[data-node-id]").first
        for text in (wanted["display_name"], *said["inputs"], *said["outputs"]):
            drawn.get_by_text(text, exact=True).first.wait_for(state="attached")
    if page.locator(".pairlora-panel, .pairlora-strength").count():
        assert left_in_english(page) == []


def test_the_panels_speak_chinese_while_it_trains_and_after(page, renderer, screenshot):
    load(page, {**training(f"chinese_{renderer}", 3), "id": str(uuid.uuid4())})  # the page remembers what a node of a workflow has trained
    panel, dataset = page.locator(".pairlora-train"), page.locator(".pairlora-dataset")
    panel.get_by_text(SAID["The loss, pictures of held-out pairs and the report appear here."]).wait_for()
    panel.get_by_text(SAID["Steps:"]).wait_for()
    dataset.get_by_text("6 个图对").wait_for()
    queue(page)
    panel.get_by_text(SAID["Report"], exact=True).wait_for(timeout=120_000)
    panel.get_by_text("第 3 步 · ").wait_for()
    panel.get_by_text(SAID["held-out loss"]).wait_for()
    panel.get_by_text(SAID["Runs"], exact=True).dispatch_event("click")  # ComfyUI's notices may lie over it
    panel.get_by_text("已在第 3 步完成").first.wait_for()
    assert left_in_english(page) == []
    screenshot("in Chinese, a training")


def test_pictures_are_compared_in_chinese(page, renderer, screenshot):
    alone(page, "PairLoRADataset")
    dataset = page.locator(".pairlora-dataset")
    page.evaluate("""() => {
        const folder = app.graph.nodes[0].widgets.find(({name}) => name === "folder");
        folder.value = "samples/try-on";
        folder.callback(folder.value);
    }""")
    dataset.get_by_text("每个 3 张输入图").wait_for()
    dataset.locator(".pairlora-enlarge").first.click()
    large = page.locator(".pairlora-large")
    large.get_by_text("目标图", exact=True).last.wait_for()
    for picture in large.locator(".pairlora-layer img").all():
        picture.wait_for()
    assert large.locator(".pairlora-side").all_inner_texts() == ["输入图", "目标图"]
    options = large.get_by_label("左边的图像").locator("option").all_inner_texts()
    assert options[:4] == ["输入图", "输入图 2", "输入图 3", "目标图"]
    large.locator("select").nth(1).select_option("difference")
    large.get_by_text("平均差异").wait_for()
    assert left_in_english(page) == []
    screenshot("in Chinese, pictures compared")
    large.get_by_text("关闭").click()

    load(page, compared())
    widget = page.locator(".pairlora-compare")
    queue(page)
    widget.get_by_text("（1/6）").wait_for(timeout=60_000)
    wait_until_compared(page)
    assert widget.locator(".pairlora-side").all_inner_texts() == ["训练前", "训练后"]
    assert widget.locator(".pairlora-scores th").all_inner_texts()[1:4] == ["PSNR", "SSIM", "PSNR 编辑区域"]
    assert left_in_english(page) == []
    # what is saved is the same in all languages
    page.evaluate("app.graph.nodes.find(({type}) => type === 'PairLoRABeforeAfter').properties.pairlora_view = {left: 'input'}")
    saved = page.evaluate("app.graph.serialize()")
    load(page, saved)
    page.wait_for_function("document.querySelector('.pairlora-compare .pairlora-side')?.textContent === '输入图'")


def compared() -> dict:
    """Samples of a dataset, whose inputs are compared with their targets."""
    links = [[1, 1, 0, 2, 0, "PAIRLORA_DATASET"], [2, 2, 0, 3, 0, "IMAGE"], [3, 2, 3, 3, 1, "IMAGE"], [4, 2, 0, 3, 2, "IMAGE"],
             [5, 2, 3, 3, 3, "IMAGE"]]  # fmt: skip
    inputs = {2: ["dataset"], 3: ["before", "after", "input", "target"]}
    outputs = {1: ["dataset", "report"], 2: ["start", "start1", "start2", "target", "caption", "name"], 3: ["contact_sheet", "before", "after"]}
    values = {1: ["samples/background-removal-held-out", "", "", 128, "as LoadImage", False, ""], 2: ["all"], 3: [True]}
    types = {1: "PairLoRADataset", 2: "PairLoRASample", 3: "PairLoRABeforeAfter"}
    nodes = [
        {
            "id": id, "type": type, "pos": [id * 500 - 1400, 90], "size": [460, 700], "flags": {}, "order": id, "mode": 0, "properties": {},
            "inputs": [
                {"name": name, "type": "*", "link": next(link[0] for link in links if link[3:5] == [id, slot])}
                for slot, name in enumerate(inputs.get(id, []))
            ],
            "outputs": [
                {"name": name, "type": "*", "links": [link[0] for link in links if link[1:3] == [id, slot]]}
                for slot, name in enumerate(outputs[id])
            ],
            "widgets_values": values[id],
        }
        for id, type in types.items()
    ]  # fmt: skip
    return {"version": 0.4, "nodes": nodes, "links": links, "last_node_id": 3, "last_link_id": 5}


def test_the_help_page_is_chinese(page, screenshot):
    alone(page, "PairLoRATrain")
    page.evaluate("() => { app.canvas.ds.offset = [20, 200]; app.canvas.selectNode(app.graph.nodes[0]); }")  # its tools are above it
    page.get_by_test_id("info-button").dispatch_event("click")
    page.locator(".node-help-content").get_by_text("好比吹气球").wait_for()
    screenshot("in Chinese, the help page")


def test_another_language_is_taken_at_once(page, renderer):
    alone(page, "PairLoRADataset")
    page.evaluate("app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")  # ComfyUI loads it anew
    for language, text in (("en", "Upload folder"), ("zh", "上传文件夹"), ("ja", "Upload folder"), ("zh", "上传文件夹")):
        page.evaluate("language => app.extensionManager.setting.set('Comfy.Locale', language)", language)
        page.wait_for_function("text => document.querySelector('.pairlora-dataset button')?.textContent === text", arg=text)
