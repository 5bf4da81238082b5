"""The archive that users get, unzipped into the custom_nodes of a fresh host: as the checkout, but for what is not theirs."""
import json
import os
import zipfile
from types import SimpleNamespace

import pytest
from published import files, pack

from client import Client
from figures import add_previews
from host import ROOT, Server

NODES = {page.stem for page in (ROOT / "web/docs").glob("*.md")}


@pytest.fixture(scope="module")
def installed(request, host, tmp_path_factory):
    base = host.make_base(tmp_path_factory.mktemp("fresh"))
    pack_folder = base / "custom_nodes/pairlora"
    pack_folder.rmdir() if os.name == "nt" else pack_folder.unlink()  # the link to the checkout
    archive = request.config.getoption("--archive") or pack(base / "node.zip")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(pack_folder)
        names = sorted(opened.namelist())
    with Server(host, base=base) as server:
        yield SimpleNamespace(client=Client(server.url), folder=pack_folder, names=names, base=base)


def test_it_holds_what_comfy_cli_packs(installed):
    assert installed.names == files()


def test_nodes_help_web_files_and_templates_are_served(installed):
    client = installed.client
    known = client.get("/object_info")
    assert {name for name in known if name.startswith("PairLoRA")} == NODES
    assert all(known[name]["python_module"] == "custom_nodes.pairlora" for name in NODES)
    for file in (ROOT / "web").rglob("*"):
        if file.is_file():
            assert client.get(f"/extensions/pairlora/{file.relative_to(ROOT / 'web').as_posix()}") == _as_served(file)
    templates = client.get("/workflow_templates")["pairlora"]
    assert sorted(templates) == sorted(file.stem for file in (ROOT / "example_workflows").glob("*.json")) and templates
    translated = client.get("/i18n")
    assert {folder.name for folder in (ROOT / "locales").glob("*") if folder.is_dir()} <= set(translated)


def _as_served(file):
    return json.loads(file.read_text(encoding="utf-8")) if file.suffix == ".json" else file.read_bytes()


def test_the_demo_trains_and_shows_before_and_after(installed):
    prompt = json.loads((ROOT / "demo/workflows/background-removal.api.json").read_text(encoding="utf-8"))
    ids = {content["class_type"]: node for node, content in prompt.items()}
    prompt[ids["PairLoRATrain"]]["inputs"] |= {"steps": 3, "name": "fresh"}
    previews = add_previews(prompt, ids["PairLoRABeforeAfter"])
    outcome = installed.client.run(prompt)
    assert len(installed.client.images(outcome, previews["after"])) == 6
    assert (installed.base / "models/loras/fresh.safetensors").is_file()
