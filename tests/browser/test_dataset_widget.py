"""The dataset node in a real browser, on the canvas renderer and on Nodes 2.0: contact sheet, table, upload."""
import json
import shutil
import time
import zipfile

import pytest
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
    page.evaluate("""async () => {
        await app.loadGraphData({version: 0.4, nodes: [], links: [], last_node_id: app.graph.last_node_id, last_link_id: 0});
        const node = LiteGraph.createNode("PairLoRADataset");
        node.pos = [60, 90];
        app.graph.add(node);
        app.canvas.ds.scale = 1;
        app.canvas.ds.offset = [20, 20];
        app.graph.setDirtyCanvas(true, true);
    }""")
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
    node.get_by_text(text).first.wait_for(timeout=20_000)


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


def test_the_node_shows_counts_and_a_contact_sheet_of_the_folder(page, node):
    choose(page, folder="samples/try-on", resolution=128)
    wait_for(node, "24 pairs, 3 inputs each, 24 captions")
    assert node.locator("figure").count() == 24
    assert "photo001 put on the glasses and the hat" in node.locator("figure").first.inner_text()
    assert all(width > 3 * height > 0 for width, height in strips(node)), "three inputs, an arrow and the target"
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
    assert node.get_by_text("1 files of the upload were left out").count()


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


def test_a_refused_upload_says_why(page, node, tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 no zip at all")
    upload(page, node, "Upload zip", tmp_path / "broken.zip")
    wait_for(node, "broken.zip")
    assert node.locator(".pairlora-error").count()


def test_a_loaded_workflow_fills_its_dataset_nodes_and_so_does_the_next(page, renderer):
    for name, each in (("background_removal", "1 input each"), ("try_on", "3 inputs each")):
        workflow = json.loads((ROOT / f"example_workflows/{name}.json").read_text(encoding="utf-8"))
        page.evaluate("async workflow => { await app.loadGraphData(workflow); }", workflow)
        for text in (f"24 pairs, {each}, 24 captions", f"6 pairs, {each}, 6 captions"):
            page.get_by_text(text).first.wait_for(timeout=20_000, state="attached")
