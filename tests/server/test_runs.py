"""The panel's routes: what a run has, and asking for things of it."""
import asyncio

import aiohttp
import pytest

SMALL = {"folder": "samples/background-removal-held-out", "resolution": 64}
HOSTILE = ["", "*", "..", "../../models", "0123456789", "01234567??", "0123456789/..", "a" * 10_000, "\0" * 10, "ABCDEF0123"]


def status(client, method, path, **options):
    async def ask():
        async with aiohttp.ClientSession() as session, session.request(method, client.url + path, **options) as response:
            return response.status, await response.json()

    return asyncio.run(ask())


def all_lines(client, key):
    lines, begin = [], 0
    while (got := client.get("/pairlora/run", key=key, **{"from": str(begin)}))["lines"]:
        lines, begin = lines + got["lines"], got["next"]
    return lines


def folder_of(server, name):
    (folder,) = (server.base / "output/pairlora").glob(f"{name}-*")
    return folder


def test_a_run_is_given_and_removed_and_its_lora_stays(client, server, training):
    client.run(training(SMALL, name="given").prompt)
    folder = folder_of(server, "given")
    key = folder.name[-10:]
    seen = client.get("/pairlora/run", key=key)
    assert seen["subfolder"] == f"pairlora/{folder.name}" and not seen["training"] and seen["checkpoints"] == [3]
    assert [values["step"] for values in all_lines(client, key) if "loss" in values] == [1, 2, 3]
    (finished,) = seen["finished"]
    assert finished["step"] == 3 and finished["loras"] == ["given.safetensors"] and "6 samples" in finished["report"]
    assert seen["size"] > 0
    (listed,) = [run for run in client.get("/pairlora/runs")["runs"] if run["key"] == key]
    assert listed == {"key": key, "name": "given", "size": seen["size"], "step": 3, "finished": [3]}
    for what in ("stop", "preview", "copy"):
        code, answer = status(client, "POST", f"/pairlora/run/{what}", json={"key": key})
        assert code == 400 and "Nobody trains" in answer["error"] and not (folder / what).exists()
    assert client.post("/pairlora/run/remove", {"key": key}) == {"removed": folder.name, "size": seen["size"]}
    assert not folder.exists() and (server.base / "models/loras/given.safetensors").exists()
    assert status(client, "GET", "/pairlora/run", params={"key": key})[0] == 404


@pytest.mark.parametrize("key", HOSTILE)
def test_a_key_that_is_none_is_refused(client, server, key):
    before = {*(server.base / "output").rglob("*")}
    if len(key) < 1000:
        assert status(client, "GET", "/pairlora/run", params={"key": key})[0] == 404
    for what in ("stop", "preview", "copy", "remove"):
        for body in ({"key": key}, [key], {"key": [key]}):
            code, answer = status(client, "POST", f"/pairlora/run/{what}", json=body)
            assert code == 404 and answer["error"]
    assert {*(server.base / "output").rglob("*")} == before


@pytest.mark.parametrize("begin", ["-1", "x", "1.5", "9" * 30, "\u0663"])
def test_a_byte_that_is_none_is_refused(client, begin):
    assert status(client, "GET", "/pairlora/run", params={"key": "0123456789", "from": begin})[0] == 400
