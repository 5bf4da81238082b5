"""Checkpoints x strengths of a real training, sampled by a real graph and shown as a grid, on the canvas renderer and on
Nodes 2.0."""
import pytest
import safetensors
from graphs import grid, queue

STEPS, STRENGTHS = (20, 40, 60), ["0.5", "1"]
LORA = f"grid_{len(STEPS):02}"  # each training has saved its own


@pytest.fixture(scope="module", autouse=True)  # before the page, whose event loop would be in the way
def trained(client):
    """Each training ends with a checkpoint, and the next goes on from it."""
    for steps in STEPS[:-1]:
        client.run(grid("grid", steps, "1"))


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "vue"])
def renderer(request, page):
    page.evaluate("vue => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)", request.param)
    return request.param


def show(page, prompt):
    """The prompt as a graph, with its Before / After large on the screen, after a run."""
    page.evaluate("""async prompt => {
        await app.loadApiJson(prompt, "grid");
        const node = app.graph.nodes.find(({type}) => type === "PairLoRABeforeAfter");
        node.setSize([900, 700]);
        app.canvas.ds.scale = 1;
        app.canvas.ds.offset = [60 - node.pos[0], 90 - node.pos[1]];
        app.graph.setDirtyCanvas(true, true);
    }""", prompt)
    queue(page)
    cells = page.locator(".pairlora-grid")
    cells.wait_for(timeout=240_000)
    return cells


@pytest.fixture
def cells(page, renderer):
    return show(page, grid("grid", STEPS[-1], ", ".join(STRENGTHS)))


def test_each_checkpoint_at_each_strength_opens_and_is_kept(page, cells, server, screenshot):
    assert cells.locator("th[scope=col]").all_inner_texts() == ["strength", *(f"step {step}" for step in STEPS)]
    assert cells.locator("th[scope=row]").all_inner_texts() == STRENGTHS
    pictures = cells.locator("img").evaluate_all("all => Promise.all(all.map(image => image.decode().then(() => image.src)))")
    assert len(set(pictures)) == len(STEPS) * len(STRENGTHS)
    screenshot("checkpoints and strengths")
    cells.get_by_label(f"Compare {LORA} step 20 at 1").click()
    dialog = page.locator("dialog.pairlora-large")
    dialog.get_by_role("heading", name=f"{LORA} step 20 at 1").wait_for()
    page.wait_for_function("[...document.querySelectorAll('dialog .pairlora-layer img')].every(image => image.naturalWidth === 64)")
    screenshot("a cell of the grid")
    page.keyboard.press("Escape")
    cells.get_by_label("Use step 20 at 0.5").click()
    page.get_by_text(f"Kept as {LORA}_step20").wait_for()
    with safetensors.safe_open(server.base / f"models/loras/{LORA}_step20.safetensors", "pt") as opened:
        assert opened.metadata()["ss_steps"] == "20"
