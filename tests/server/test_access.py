"""Who may look where: on a server that listens for others only ComfyUI's own folders, and what its operator lists."""
import asyncio
import json
import re
import shutil

import aiohttp
import pytest
from running import node

from client import Client, GraphError
from host import ROOT, Server

PAIRS, SECRET = ROOT / "samples/try-on-held-out", "the secret caption"
FIELDS = ("folder", "path", "sample", "which", "key", "lora", "workflow", "node", "client", "caption", "hash", "name", "step")
DECLARED = re.compile(r'routes\.(get|post)\("(/pairlora[^"]*)"|answer\("(/pairlora[^"]*)", routes\.(get|post)')


def routes():
    """Every route of the pack, as (method, path)."""
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob("nodes/*.py")]
    found = {(a or d, b or c) for source in sources for a, b, c, d in DECLARED.findall(source)}
    named = {path for source in sources for path in re.findall(r'"(/pairlora/[^"]*)"', source)}
    assert named == {path for _, path in found}, "one is declared in another way: let DECLARED find it"
    return sorted((method, path.replace("{what:stop|preview|copy}", "copy")) for method, path in found)


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """Pairs outside of ComfyUI's folders."""
    folder = shutil.copytree(PAIRS, tmp_path_factory.mktemp("private") / "pairs")
    for file in folder.glob("*.txt"):
        file.write_text(SECRET)
    return folder


@pytest.fixture(scope="module")
def shared(host, base):
    """A server that listens for others."""
    with Server(host, "--listen", "0.0.0.0", base=base) as server:
        yield Client(server.url)


def test_only_its_own_folders_and_those_that_are_listed(shared, base, private, client):
    def found(client, path):
        return client.post("/pairlora/preview", {"folder": "", "path": path, "resolution": 64})

    assert "listens for others" in found(shared, str(private))["error"]
    assert "listens for others" in found(shared, "../../" + str(private))["error"]
    assert found(shared, "samples/try-on-held-out")["counts"]["pairs"] == 6
    assert found(client, str(private))["counts"]["pairs"] == 6, "listening on loopback only, it is the user's own machine"
    roots = base / "user/__pairlora/roots.txt"
    roots.parent.mkdir(parents=True, exist_ok=True)
    roots.write_text(f"# shared pairs\n{private.parent}\n", encoding="utf-8")
    try:
        assert found(shared, str(private))["counts"]["pairs"] == 6
        assert "listens for others" in found(shared, str(private.parent) + "-more")["error"], "the whole name counts"
    finally:
        roots.unlink()


def test_a_link_of_the_operator_leads_into_its_folder_and_not_beside_it(shared, base, private):
    """The system takes `link/..` for what lies around the folder that the link leads to."""
    shutil.copytree(private, private.parent / "beside")
    (base / "input/linked").symlink_to(private)
    try:
        found = [shared.post("/pairlora/preview", {"folder": folder, "resolution": 64}) for folder in ("linked", "linked/../beside")]
        assert found[0]["counts"]["pairs"] == 6 and "listens for others" in found[1]["error"]
    finally:
        (base / "input/linked").unlink()


def test_the_pack_s_own_files_of_the_user_are_no_dataset(shared, base, private):
    folder = base / "user/__pairlora"
    shutil.copytree(private, folder / "pairs")
    try:
        for path in (folder, folder / "pairs"):
            assert "listens for others" in shared.post("/pairlora/preview", {"folder": "", "path": str(path)})["error"]
    finally:
        shutil.rmtree(folder / "pairs")


def test_pairs_are_saved_in_its_own_folders_only(shared, base, private):
    def save(folder):
        return shared.run({"1": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
                           "2": node("PairLoRASavePair", folder=folder, inputs=["1", 0], target=["1", 0], caption="")})  # fmt: skip

    for folder in (private, private / "new", base / "user/__pairlora"):
        with pytest.raises(GraphError, match="listens for others"):
            save(str(folder))
    assert not list(private.glob("pair0*")) and not (private / "new").exists()
    for folder in ("saved by others", str(base / "output/saved by others")):
        save(folder)
    assert (base / "output/saved by others/pair0001_end.png").exists()


def test_a_lora_that_is_not_there_is_not_called_forbidden(shared):
    with pytest.raises(GraphError, match="There is no LoRA 'no.safetensors'"):
        shared.run({"1": node("PairLoRADemoModel"), "2": node("PairLoRALoad", model=["1", 0], lora="no.safetensors", strength=1.0),
                    "3": node("PreviewAny", source=["2", 0])})  # fmt: skip


def test_nodes_refuse_what_is_outside(shared, private):
    with pytest.raises(GraphError, match="listens for others"):
        shared.run({"1": node("PairLoRADataset", folder="", default_caption="", trigger_word="", resolution=64, path=str(private))})
    lora = private / "other.safetensors"
    lora.write_bytes(b"")
    with pytest.raises(GraphError, match="listens for others"):
        shared.run({
            "1": node("PairLoRADemoModel"),
            "2": node("PairLoRALoad", model=["1", 0], lora=str(lora), strength=1.0),
            "3": node("ModelSave", model=["2", 0], filename_prefix="never"),
        })  # fmt: skip


def test_addresses_are_only_fetched_from_servers_that_are_listed(shared, base):
    def load(url):
        with pytest.raises(GraphError) as error:
            shared.run({"1": node("PairLoRADemoModel"), "2": node("PairLoRALoad", model=["1", 0], lora=url, strength=1.0),
                        "3": node("PreviewAny", source=["2", 0])})  # fmt: skip
        return str(error.value)

    assert "so it only fetches from servers that its operator lists" in load("https://lora.invalid/a.safetensors")
    roots = base / "user/__pairlora/roots.txt"
    roots.parent.mkdir(parents=True, exist_ok=True)
    roots.write_text("https://lora.invalid/\n", encoding="utf-8")
    try:
        assert "There is no lora.invalid" in load("https://lora.invalid/a.safetensors")
        assert "its operator lists" in load("https://lora.invalid:444/a.safetensors")
        assert "its operator lists" in load("https://lora.invalid.example/a.safetensors")
    finally:
        roots.unlink()


def test_every_route_refuses_hostile_names(shared, base, private):
    inside = str(private.relative_to("/"))
    hostile = [str(private), f"../../../../../../{inside}", f"..\\..\\{inside}", f"x/../../../../../../{inside}", f"file://{private}",
               f"{private}/photo001.txt", "\0", "a" * 5000, "\u202e", "..", "/", "C:\\", "%2e%2e%2f", 7, None, ["x"], {"a": 1}]  # fmt: skip
    before = {file: file.read_bytes() for file in private.iterdir()}

    async def ask():
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
            for method, path in routes():
                for value in hostile:
                    asked = dict.fromkeys(FIELDS, value) | {"sample": "test001"}
                    options = {"json": asked} if method == "post" else {"params": {k: str(v)[:2000] for k, v in asked.items()}}
                    async with session.request(method, shared.url + path, **options) as response:
                        text = await response.read()
                        assert response.status < 500, (method, path, value, text)
                        assert SECRET.encode() not in text and b"\x89PNG" not in text, (method, path, value)
                for body in (b"", b"{", b"null", b"7", b"[[1]]", b'{"key": {}}', b"[" * 50_000) if method == "post" else ():
                    async with session.post(shared.url + path, data=body, headers={"Content-Type": "application/json"}) as response:
                        assert response.status < 500, (path, body[:20], await response.text())

    asyncio.run(ask())
    assert {file: file.read_bytes() for file in private.iterdir()} == before, "nothing is written there"


@pytest.mark.parametrize("headers", [
    {"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Host": "elsewhere.example"},
    {"Host": "elsewhere.example", "Origin": "https://other.example"},
], ids=json.dumps)  # fmt: skip
def test_other_origins_and_hosts_are_met_as_by_comfyui_itself(server, headers):
    async def statuses():
        async with aiohttp.ClientSession() as session:
            for method, path in [("post", "/queue"), *routes()]:
                async with session.request(method, server.url + path, headers=headers, json={}) as response:
                    yield path, response.status == 403

    async def collect():
        return {path: refused async for path, refused in statuses()}

    found = asyncio.run(collect())
    assert set(found.values()) == {found["/queue"]}
    assert found["/queue"] == (headers == {"Origin": "https://elsewhere.example"})
