"""The dataset node in a real browser, on the canvas renderer and on Nodes 2.0: contact sheet, table, upload."""
import json
import shutil
import time
import zipfile

import pytest
from graphs import alone
from PIL import Image

from host import ROOT

HOSTILE = "<img src=x onerror=alert(1)>"  # legal in a file name on Linux and macOS


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "vue"])
def renderer(request, page):
    page.alerts = []
    page.on("dialog", lambda dialog: (page.alerts.append(dialog.message), dialog.dismiss()))
    page.evaluate("vue => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)", request.param)
    return request.param


@pytest.fixture
def node(page, renderer):
    """A new dataset node on an empty canvas."""
    alone(page, "PairLoRADataset")
    return page.locator(".pairlora-dataset")


def choose(page, **values):
    page.evaluate(
        """values => {
            for (const widget of app.graph.nodes[0].widgets) {
                if (!(widget.name in values)) continue;
                widget.value = values[widget.name];
                widget.callback?.(widget.value);
            }
        }""",
        values,
    )


def wait_for(node, text):
    node.get_by_text(text).first.wait_for(timeout=60_000)


def strips(node):
    """Widths and heights in pixels of the contact sheet's pictures, once all of them have come."""
    images = node.locator("figure img")
    for image in images.all():
        image.scroll_into_view_if_needed()
    size = "all => all.map(image => [image.naturalWidth, image.naturalHeight])"
    for _ in range(100):
        sizes = images.evaluate_all(size)
        if sizes and all(width for width, _ in sizes):
            break
        time.sleep(0.1)
    return sizes


def pairs(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        for role, colour in (("start", "red"), ("end", "blue")):
            Image.new("RGB", (96, 64), colour).save(folder / f"{name}_{role}.png")
    return folder


def widget_values(page):
    return page.evaluate("app.graph.serialize().nodes[0].widgets_values")


def test_the_node_shows_counts_and_a_contact_sheet_of_the_folder(page, node, screenshot):
    choose(page, folder="samples/try-on", resolution=128)
    wait_for(node, "24 pairs, 3 inputs each, 24 captions")
    assert node.locator("figure").count() == 24
    assert "photo001 put on the glasses and the hat" in node.locator("figure").first.inner_text()
    assert all(width > 3 * height > 0 for width, height in strips(node)), "three inputs, an arrow and the target"
    screenshot("dataset")
    assert widget_values(page) == ["samples/try-on", "", "", 128, "as LoadImage", False, ""], "the sheet is saved nowhere"
    prompt = page.evaluate("app.graphToPrompt()")["output"]
    assert set(next(iter(prompt.values()))["inputs"]) == {
        "folder", "default_caption", "trigger_word", "resolution", "background", "strict", "path"
    }  # fmt: skip


def test_what_is_wrong_stands_in_the_table_and_names_are_never_markup(page, node, server):
    folder = pairs(server.base / "input" / f"hostile {time.time_ns()}", HOSTILE, "plain")
    (folder / f"{HOSTILE}.txt").write_text(HOSTILE)
    shutil.copy(folder / "plain_start.png", folder / f"alone{HOSTILE}_start.png")
    choose(page, path=str(folder), resolution=64)
    wait_for(node, "2 pairs, 1 input each, 1 caption")
    row = node.locator("tr", has_text="alone").first
    assert row.locator("td").all_inner_texts()[0] == "error"
    assert "alone" + HOSTILE in row.inner_text()
    assert HOSTILE in node.locator("figcaption", has_text="onerror").first.inner_text()
    assert strips(node) and not page.alerts and not node.locator("img[src=x]").count()


def test_a_queue_checks_the_pixels_and_shows_what_it_found(page, node, server):
    folder = pairs(server.base / "input" / f"same {time.time_ns()}", "a", "b")
    shutil.copy(folder / "a_start.png", folder / "a_end.png")
    choose(page, path=str(folder), resolution=64)
    wait_for(node, "queue to check the images")
    assert node.locator("td.pairlora-warning").count() == 1, "there are no captions"
    page.evaluate("app.queuePrompt(0)")
    wait_for(node, "the input and the target are the same picture")
    assert "queue to check the images" not in node.inner_text()
    assert "the same picture" in node.locator("figure", has_text="a no caption").inner_text()
    node.get_by_text("Report, advice and checklist").click()
    report = node.locator("pre").inner_text()
    assert "[ ] Captions are there, or are not needed" in report and "train about 100 steps" in report


def test_a_wrong_folder_is_said_in_the_node(page, node):
    choose(page, path="/no/such/folder")
    wait_for(node, "There is no folder /no/such/folder")
    assert not node.locator("figure").count()


def upload(page, node, label, path):
    """Choose ``path`` in the button's file dialog; `window.seen` is how full the progress bar was while it was there."""
    page.evaluate("""() => {
        window.seen = [];
        const bar = document.querySelector(".pairlora-dataset progress");
        const look = () => { if (bar.offsetParent) window.seen.push(bar.value); requestAnimationFrame(look); };
        look();
    }""")
    with page.expect_file_chooser() as chooser:
        node.get_by_role("button", name=label).click()
    chooser.value.set_files(path)


def test_a_folder_is_uploaded_with_a_progress_bar_and_chosen(page, node, server, tmp_path):
    folder = pairs(tmp_path / "my holiday", "a", "b", "c")
    (folder / "notes.docx").write_bytes(b"0" * 100)
    noise = Image.effect_noise((2400, 1600), 100)
    for role in ("start", "end"):
        noise.save(folder / f"large_{role}.bmp")  # some megabytes, so that the bar is seen
    upload(page, node, "Upload folder", folder)
    wait_for(node, "4 pairs, 1 input each, 0 captions")
    name = widget_values(page)[0]
    assert name.startswith("my holiday")
    assert {f.name for f in (server.base / "input" / name).iterdir()} == {f.name for f in folder.iterdir()} - {"notes.docx"}
    assert (server.base / "input" / name / "large_end.bmp").read_bytes() == (folder / "large_end.bmp").read_bytes()
    assert page.evaluate("window.seen.length"), "the progress bar was never there"
    assert node.locator("progress").is_hidden(), "it goes when the upload is done"
    assert node.get_by_text("1 file of the upload was left out").count()


def test_a_zip_is_uploaded_and_a_second_one_of_its_name_gets_another_folder(page, node, server, tmp_path):
    folder, archive = pairs(tmp_path / "pets", "cat", "dog"), tmp_path / "pets.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, path.name)
    chosen = []
    for _ in range(2):
        upload(page, node, "Upload zip", archive)
        wait_for(node, "2 pairs, 1 input each, 0 captions")
        page.wait_for_function("before => app.graph.nodes[0].widgets[0].value !== before", arg=chosen[-1] if chosen else "")
        chosen.append(widget_values(page)[0])
        assert chosen[-1] in page.evaluate("app.graph.nodes[0].widgets[0].options.values")
    assert len(set(chosen)) == 2 and all((server.base / "input" / name / "dog_end.png").is_file() for name in chosen)


def test_a_refused_upload_says_why_and_leaves_the_sheet_of_the_chosen_folder(page, node, tmp_path):
    choose(page, folder="samples/try-on", resolution=128)
    wait_for(node, "24 pairs, 3 inputs each, 24 captions")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 no zip at all")
    upload(page, node, "Upload zip", tmp_path / "broken.zip")
    wait_for(node, "broken.zip")
    page.wait_for_timeout(5000)  # it stays when the folder is looked at again
    assert node.locator(".pairlora-error", has_text="broken.zip").count()
    assert node.locator("figure").count() == 24


def test_every_dataset_node_knows_an_uploaded_folder(page, node, tmp_path):
    """Also one in a subgraph and one made later."""
    page.evaluate("""() => {
        for (const x of [560, 1040]) {
            const other = LiteGraph.createNode("PairLoRADataset");
            other.pos = [x, 90];
            app.graph.add(other);
        }
        app.graph.convertToSubgraph(new Set([app.graph.nodes.at(-1)]));
    }""")
    folder = pairs(tmp_path / f"known {time.time_ns()}", "a")
    upload(page, node.first, "Upload folder", folder)
    wait_for(node, "1 pair, 1 input each, 0 captions")
    known = page.evaluate("""() => [
        ...[app.graph, ...app.graph.subgraphs.values()].flatMap(({nodes}) => nodes), LiteGraph.createNode("PairLoRADataset"),
    ].filter(({type}) => type === "PairLoRADataset").map(({widgets}) => widgets[0].options.values)""")
    assert len(known) == 4 and all(widget_values(page)[0] in values for values in known)


def test_a_file_changed_on_disk_is_seen_without_a_queue(page, node, server):
    folder = pairs(server.base / "input" / f"edited {time.time_ns()}", "a", "b")
    (folder / "a.txt").write_text("first words")
    choose(page, path=str(folder), resolution=64)
    wait_for(node, "a first words")
    (folder / "a.txt").write_text("second words")
    wait_for(node, "a second words")
    page.evaluate("app.queuePrompt(0)")
    node.get_by_text("queue to check the images").wait_for(timeout=20_000, state="detached")
    page.wait_for_timeout(5000)
    assert "queue to check the images" not in node.inner_text(), "nothing has changed since"
    (folder / "b.txt").write_text("third words")
    wait_for(node, "b third words")
    assert "queue to check the images" in node.inner_text()


def test_what_strict_stops_at_stands_in_the_node(page, node, server):
    folder = pairs(server.base / "input" / f"strict {time.time_ns()}", "a", "b")
    (folder / "b_end.png").write_bytes(b"no image")
    choose(page, path=str(folder), resolution=64, strict=True)
    wait_for(node, "queue to check the images")
    page.evaluate("app.queuePrompt(0)")
    node.locator(".pairlora-error", has_text="b_end.png cannot be read as an image").first.wait_for(timeout=20_000)
    page.keyboard.press("Escape")  # ComfyUI's own dialog
    assert "queue to check the images" not in node.inner_text()
    assert node.locator("figure").count() == 2, "the sheet stays"
    choose(page, strict=False)
    wait_for(node, "queue to check the images")


def test_another_workflow_does_not_show_what_was_queued_before(page, node, server):
    folder = pairs(server.base / "input" / f"mine {time.time_ns()}", "a", "b")
    choose(page, path=str(folder), resolution=64)
    wait_for(node, "2 pairs")
    number = page.evaluate("app.graph.nodes[0].id")
    page.evaluate("app.queuePrompt(0)")
    page.evaluate("""async id => {
        const graph = app.graph.serialize();
        graph.nodes[0].widgets_values[6] = "";
        graph.nodes[0].widgets_values[0] = "samples/try-on";
        await app.loadGraphData(graph);
    }""", number)
    wait_for(node, "24 pairs, 3 inputs each")
    page.wait_for_timeout(3000)
    assert "2 pairs" not in node.inner_text() and node.locator("figure").count() == 24


THEMES = ("dark", "light", "arc", "nord", "solarized", "github")
CONTRAST = """root => {
    const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const over = colours => {  // what is seen of colours painted over each other
        context.clearRect(0, 0, 1, 1);
        for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const luminance = rgb => {
        const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const own = element => [...element.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    const found = {};
    for (const element of root.querySelectorAll("*")) {
        if (!own(element) || !element.checkVisibility()) continue;
        const layers = [];
        let opacity = 1;
        for (let at = element; at; at = at.parentElement) {
            layers.unshift(getComputedStyle(at).backgroundColor);
            if (root.contains(at)) opacity *= getComputedStyle(at).opacity;
        }
        const behind = over(layers), text = over([...layers, getComputedStyle(element).color]);
        const seen = text.map((v, i) => opacity * v + (1 - opacity) * behind[i]);
        const [dark, light] = [luminance(behind), luminance(seen)].sort((a, b) => a - b);
        found[`${element.tagName} ${element.className}`] = (light + 0.05) / (dark + 0.05);
    }
    return found;
}"""


@pytest.mark.parametrize("theme", THEMES)
def test_every_text_can_be_read_in_every_theme(page, node, server, theme):
    folder = server.base / "input/contrast"
    if not folder.exists():
        pairs(folder, "a", "b")
        shutil.copy(folder / "a_start.png", folder / "a_end.png")
        shutil.copy(folder / "a_start.png", folder / "alone_start.png")
        (folder / "a.txt").write_text("words")
    page.evaluate("app.graph.nodes[0].bgcolor = app.graph.nodes[0].color = '#888888'")  # as a user may have chosen
    page.evaluate("theme => app.extensionManager.setting.set('Comfy.ColorPalette', theme)", theme)
    try:
        choose(page, path=str(folder), resolution=64)
        page.evaluate("app.queuePrompt(0)")
        wait_for(node, "same picture")
        page.evaluate("root => root.append(Object.assign(document.createElement('p'), {className: 'pairlora-note', textContent: 'x'}))",
                      node.element_handle())  # fmt: skip
        page.wait_for_timeout(1000)
        contrast = page.evaluate(CONTRAST, node.element_handle())
        kinds = {level for level in ("error", "warning", "note") if any(f"pairlora-{level}" in key for key in contrast)}
        assert kinds == {"error", "warning", "note"} and len(contrast) > 8
        assert {key: value for key, value in contrast.items() if value < 4.5} == {}
    finally:
        page.evaluate("app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")


def test_a_loaded_workflow_fills_its_dataset_nodes_and_so_does_the_next(page, renderer):
    for name, each in (("background_removal", "1 input each"), ("try_on", "3 inputs each")):
        workflow = json.loads((ROOT / f"example_workflows/{name}.json").read_text(encoding="utf-8"))
        page.evaluate("async workflow => { await app.loadGraphData(workflow); }", workflow)
        for text in (f"24 pairs, {each}, 24 captions", f"6 pairs, {each}, 6 captions"):
            page.get_by_text(text).first.wait_for(timeout=20_000, state="attached")


def test_a_caption_is_edited_in_place_and_a_pair_is_left_out_and_back(page, server, node, screenshot, renderer):
    folder = pairs(server.base / "input" / f"editing {renderer}", "a", "b")
    (folder / "b_end.png").unlink()
    Image.new("RGB", (48, 64), "blue").save(folder / "b_end.png")
    choose(page, folder=folder.name)
    node.get_by_label("Caption of a").click()
    field = node.locator(".pairlora-editor textarea")
    field.fill("make it <b>blue</b>")
    screenshot("a caption edited")
    field.press("Control+Enter")
    node.locator("figcaption", has_text="make it <b>blue</b>").wait_for(timeout=20_000)
    assert (folder / "a.txt").read_text() == "make it <b>blue</b>"

    node.get_by_label("Caption of a").click()
    field = node.locator(".pairlora-editor textarea")
    field.fill("mine")
    (folder / "a.txt").write_text("of another program")
    node.get_by_text("Save", exact=True).click()
    wait_for(node, "a.txt has changed on disk meanwhile")
    assert (folder / "a.txt").read_text() == "of another program" and field.input_value() == "mine"
    field.press("Escape")
    node.locator("figcaption", has_text="of another program").wait_for(timeout=20_000)

    node.get_by_label("Leave out b").click()
    wait_for(node, "1 left out")
    assert (folder / "left_out.txt").read_text() == "b\n" and node.get_by_text("1 pair,").count() == 1
    node.get_by_text("1 left out", exact=True).click()
    screenshot("a pair left out")
    node.get_by_label("Use b").click()
    wait_for(node, "2 pairs")
    assert sorted(path.name for path in folder.glob("b_*")) == ["b_end.png", "b_start.png"]


def test_the_samples_of_the_pack_are_not_edited(page, node, renderer):
    choose(page, folder="samples/background-removal")
    wait_for(node, "The sample datasets of the pack are read-only")
    node.get_by_title("Compare photo001 large").wait_for()
    assert node.get_by_label("Leave out").count() == node.get_by_label("Caption of").count() == 0


def test_a_pair_is_compared_large(page, node, screenshot, renderer):
    choose(page, folder="samples/background-removal")
    node.get_by_title("Compare photo001 large").click()
    dialog = page.locator("dialog.pairlora-large")
    dialog.wait_for(timeout=20_000)
    loaded = "dialog => [...dialog.querySelectorAll('img')].filter(image => image.naturalWidth > 100).length >= 2"
    page.wait_for_function(f"() => ({loaded})(document.querySelector('dialog.pairlora-large'))", timeout=20_000)
    assert dialog.locator("option", has_text="what changes").count() >= 1
    dialog.locator("select").last.select_option(label="what changes")
    page.wait_for_timeout(500)
    screenshot("a pair compared large")
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def test_only_pairs_with_problems_are_shown_on_request(page, server, node, screenshot, renderer):
    folder = pairs(server.base / "input" / f"problems {renderer}", "good", "long")
    (folder / "good.txt").write_text("an edit")
    (folder / "long.txt").write_text("word " * 600)
    choose(page, folder=folder.name)
    node.get_by_label("Only pairs").check(timeout=20_000)
    assert [figure.locator("b").text_content() for figure in node.locator("figure:visible").all()] == ["long"]
    screenshot("only pairs with problems")
    node.get_by_label("Only pairs").uncheck()
    assert node.locator("figure:visible").count() == 2
