"""What muting and bypassing Train Edit LoRA leave of a graph, as the page converts it."""
import json

import pytest

from make_workflows import template

CONVERT = """async ([workflow, mode]) => {
    await app.loadGraphData(workflow);
    app.graph.nodes.find(node => node.type === 'PairLoRATrain').mode = mode;
    return (await app.graphToPrompt()).output;
}"""
MUTED, BYPASSED = 2, 4


@pytest.fixture
def convert(page):
    workflow = json.loads(template("background-removal").read_text(encoding="utf-8"))

    def run(mode):
        prompt = page.evaluate(CONVERT, [workflow, mode])
        ids = {content["class_type"]: node for node, content in prompt.items()}
        samplers = [content["inputs"] for content in prompt.values() if content["class_type"] == "KSampler"]
        return ids, [sampler.get("model") for sampler in samplers]

    return run


def test_bypassed_the_model_passes_through(convert):
    ids, models = convert(0)
    assert sorted(models) == sorted([[ids["PairLoRADemoModel"], 0], [ids["PairLoRATrain"], 0]])
    ids, models = convert(BYPASSED)
    assert "PairLoRATrain" not in ids and models == [[ids["PairLoRADemoModel"], 0]] * 2


def test_muted_it_does_not_train_and_what_needs_its_model_has_none(convert):
    ids, models = convert(MUTED)
    assert "PairLoRATrain" not in ids and sorted(models, key=bool) == [None, [ids["PairLoRADemoModel"], 0]]
