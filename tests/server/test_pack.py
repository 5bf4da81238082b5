"""What a running ComfyUI knows of the pack."""
import io

import pytest
from PIL import Image

from host import ROOT
from make_workflows import WORKFLOWS, template

NODES = {
    "PairLoRADataset", "PairLoRASample", "PairLoRACollect", "PairLoRASavePair", "PairLoRASettings", "PairLoRATrain",
    "PairLoRALoad", "PairLoRABeforeAfter", "PairLoRACheckpoints", "PairLoRADemoModel",
}  # fmt: skip


def test_every_node_is_there_with_its_help_page(client):
    known = {name for name in client.get("/object_info") if name.startswith("PairLoRA") and "Test" not in name}
    assert known == NODES == {page.stem for page in (ROOT / "web/docs").glob("*.md")}
    assert b"# Train Edit LoRA" in client.get("/extensions/pairlora/docs/PairLoRATrain.md")


def test_inputs_keep_their_order(client):
    """Saved workflows store the values of widgets by position, so inputs are only ever appended."""
    info = client.get("/object_info")

    def inputs(node):
        return [name for part in ("required", "optional") for name in info[node]["input_order"].get(part, [])]

    assert inputs("PairLoRATrain")[:8] == [
        "model", "clip", "vae", "dataset", "steps", "learning_rate", "name", "settings"]  # fmt: skip
    assert inputs("PairLoRADataset")[:7] == [
        "folder", "default_caption", "trigger_word", "resolution", "background", "strict", "path"]  # fmt: skip
    assert inputs("PairLoRASavePair")[:6] == ["folder", "inputs", "target", "caption", "inputs1", "inputs2"]
    assert inputs("PairLoRACollect")[:2] == ["conditioning", "latent"]
    assert inputs("PairLoRASettings")[:17] == [
        "rank", "batch_size", "seed", "timesteps", "save_as", "accumulation", "warmup", "cooldown", "hold_out", "hand_on", "previews",
        "checkpoint_steps", "checkpoint_minutes", "bias", "loss", "layers", "layer_pattern"]  # fmt: skip
    assert inputs("PairLoRABeforeAfter")[:8] == [
        "before", "after", "input", "target", "input1", "input2", "names", "captions"]  # fmt: skip
    assert inputs("PairLoRACheckpoints")[:6] == ["model", "lora", "strengths", "most", "lora2", "lora3"]
    assert info["PairLoRABeforeAfter"]["output_name"] == ["contact_sheet", "before", "after"]
    assert info["PairLoRATrain"]["output_name"] == ["model", "lora", "lora_name", "report"]
    assert info["PairLoRASample"]["output_name"] == ["start", "start1", "start2", "target", "caption", "name"]


def test_tooltips_give_the_numbers_to_start_from(client):
    train = client.get("/object_info")["PairLoRATrain"]["input"]["required"]
    assert "balloon" in train["steps"][1]["tooltip"] and "1000 for 20 pairs" in train["steps"][1]["tooltip"]
    assert "balloon" in train["learning_rate"][1]["tooltip"] and "0.0001" in train["learning_rate"][1]["tooltip"]


def test_the_sample_datasets_are_in_the_dropdown(client):
    folders = client.get("/object_info")["PairLoRADataset"]["input"]["required"]["folder"]
    options = folders[0] if isinstance(folders[0], list) else folders[1]["options"]
    assert options[:4] == ["samples/background-removal", "samples/background-removal-held-out", "samples/try-on",
                           "samples/try-on-held-out"]  # fmt: skip


def test_the_template_browser_lists_the_examples_with_their_pictures(client):
    found = client.get("/workflow_templates")
    pack, names = next((pack, names) for pack, names in found.items() if "pairlora" in pack.lower())
    assert sorted(names) == sorted(template(slug).stem for slug in WORKFLOWS)
    for name in names:
        with Image.open(io.BytesIO(client.get(f"/api/workflow_templates/{pack}/{name}.jpg"))) as picture:
            assert picture.width / picture.height > 1.5


def test_nodes_are_found_by_what_people_call_them(client):
    info = client.get("/object_info")
    if "search_aliases" not in info["KSampler"]:
        pytest.skip("this ComfyUI searches by names only")
    assert {"compare", "slider"} <= set(info["PairLoRABeforeAfter"]["search_aliases"])
    assert {"finetune", "lora trainer"} <= set(info["PairLoRATrain"]["search_aliases"])


def test_only_the_first_of_the_settings_are_shown_at_once(client):
    settings = client.get("/object_info")["PairLoRASettings"]["input"]
    shown = [name for part in settings.values() for name, (_, options) in part.items() if not options.get("advanced")]
    assert shown == ["rank", "batch_size", "seed", "timesteps"]
