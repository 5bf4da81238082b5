"""Load LoRA in a real browser, on the canvas renderer and on Nodes 2.0: its strength as a slider."""
import pytest
from graphs import alone


@pytest.fixture(params=[False, True], ids=["canvas", "vue"])
def slider(page, request):
    page.evaluate("vue => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)", request.param)
    alone(page, "PairLoRALoad")
    return page.locator(".pairlora-strength")


def strength(page):
    return page.evaluate("app.graph.nodes[0].widgets.find(widget => widget.name === 'strength').value")


def test_the_strength_is_a_slider_and_what_is_typed_may_lie_beyond(page, slider, screenshot):
    assert slider.input_value() == "1"
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert strength(page) == pytest.approx(0.95)
    box = slider.bounding_box()
    assert box["width"] > 100 and box["height"] >= 16
    page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
    assert strength(page) == -2
    screenshot("the strength")
    slider.dblclick()
    assert strength(page) == 1
    page.evaluate("""() => {
        const widget = app.graph.nodes[0].widgets.find(widget => widget.name === 'strength');
        widget.value = 3.5;
        widget.callback?.(3.5);
    }""")
    assert (strength(page), slider.input_value()) == (3.5, "2")
    saved = page.evaluate("app.graph.serialize()")
    assert saved["nodes"][0]["widgets_values"] == ["", 3.5]
    (queued,) = page.evaluate("async () => (await app.graphToPrompt()).output").values()
    assert queued["inputs"] == {"lora": "", "strength": 3.5}
    saved["nodes"][0]["widgets_values"] = ["", 0.5]
    page.evaluate("async saved => await app.loadGraphData(saved)", saved)
    page.wait_for_function("document.querySelector('.pairlora-strength')?.value === '0.5'")
