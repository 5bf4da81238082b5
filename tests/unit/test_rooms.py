"""Which room of the pack may import what; CONTRIBUTING.md shows the same as a map."""
import ast
import re
from collections.abc import Iterator

import pytest

from host import ROOT

COMFYUI = {"comfy", "comfy_aimdo", "comfy_api", "comfy_execution", "comfy_extras", "comfy_kitchen", "comfyui_version",
           "folder_paths", "nodes", "server"}  # fmt: skip
TENSORS = {"torch", "safetensors", "peft", "transformers"}
DANGEROUS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "subprocess", "pty", "runpy", "code"}
NETWORK = {"asyncore", "ftplib", "http", "httpx", "huggingface_hub", "imaplib", "requests", "smtplib", "socket", "socketserver",
           "ssl", "telnetlib", "urllib3", "websocket", "websockets", "xmlrpc"}  # fmt: skip
FETCHING = {"trainer/lora/fetch.py": {"http", "socket", "ssl"}, "trainer/run/folder.py": {"socket"}}  # the latter: gethostname
OPENING = re.compile(r"aiohttp$|aiohttp\.(Client\w+|request|TCPConnector)|urllib\.request|os\.(system|popen|exec|spawn)")
CALLS = re.compile(r"(eval|exec|__import__|os\.(system|popen|exec\w+|spawn\w+|posix_spawnp?|startfile)|"
                   r"asyncio\.create_subprocess_\w+|socket\.(socket|create_connection))")  # fmt: skip

# Rooms, and modules that lie beside them, with all of the pack that they import. Nothing below imports what is above it.
MAY = {
    "nodes": {"trainer.run", "trainer.plan", "trainer.loop", "trainer.similarity", "trainer.lora", "trainer.host", "trainer.data"},
    "trainer.run": {"trainer.encoding", "trainer.loop", "trainer.watch", "trainer.scores", "trainer.similarity", "trainer.state",
                    "trainer.plan", "trainer.lora", "trainer.host", "trainer.data"},
    "trainer.loop": {"trainer.lora", "trainer.watch", "trainer.plan", "trainer.state", "trainer.step", "trainer.host"},
    "trainer.watch": {"trainer.plan"},
    "trainer.plan": {"trainer.step", "trainer.lora", "trainer.host"},
    "trainer.state": {"trainer.step", "trainer.loss_scale", "trainer.lora", "trainer.host"},
    "trainer.step": {"trainer.loss_scale", "trainer.objective", "trainer.host"},
    "trainer.scores": {"trainer.objective", "trainer.host"},
    "trainer.encoding": {"trainer.host", "trainer.data"},
    "trainer.lora": {"trainer.host", "trainer.data"},
    "trainer.host": {"trainer.objective", "trainer.data"},
    "trainer.data": set(),
    "trainer.similarity": set(),
    "trainer.loss_scale": set(),
    "trainer.objective": set(),
}  # fmt: skip
FILES = sorted([*ROOT.glob("nodes/*.py"), *ROOT.glob("trainer/**/*.py")])


def room(module: tuple[str, ...]) -> str:
    return ".".join(module[: 2 if module[0] == "trainer" else 1])


def imports(path) -> Iterator[tuple[str, ...]]:
    """Of each import of a file the parts of its name, those inside of the pack from its root on, others after an ""."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            outer = package[: len(package) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((*outer, *name.split(".")) for name in names)
        elif isinstance(node, ast.ImportFrom):
            yield "", *node.module.split(".")
        elif isinstance(node, ast.Import):
            yield from (("", *alias.name.split(".")) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_room_may(path):
    here = room(path.relative_to(ROOT).with_suffix("").parts)
    for outer, *names in imports(path):
        if outer:
            there = room((outer, *names))
            assert there == here or there in MAY[here], f"{here} may not import {there}"
        else:
            assert names[0] not in COMFYUI or here in ("nodes", "trainer.host"), f"{here} may not import ComfyUI's {names[0]}"
            assert names[0] != "server" or here == "nodes", "the library knows no server"
            assert names[0] not in TENSORS or here != "trainer.data", "the pair doctor runs without torch"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_code_or_uses_the_network_but_the_one_place_that_fetches(path):
    name = path.relative_to(ROOT).as_posix()
    used = {names[0] for outer, *names in imports(path) if not outer}
    assert not used & DANGEROUS and used & NETWORK == FETCHING.get(name, set())
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            outer = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            taken = {outer + alias.name for alias in node.names}
            assert not any(OPENING.match(one) for one in taken), f"line {node.lineno}: {taken}"
        if isinstance(node, ast.Call) and CALLS.fullmatch(called := ast.unparse(node.func)):
            assert name == "trainer/lora/fetch.py" and called == "socket.create_connection", f"line {node.lineno}: {called}"


def test_imports_go_one_way():
    rooms = list(MAY)
    assert all(rooms.index(below) > rooms.index(above) for above, allowed in MAY.items() for below in allowed)


def test_the_map_shows_the_same():
    """Each line of the map in CONTRIBUTING.md is `room  -> room room ...`."""
    lines = re.findall(r"^(nodes|trainer[.\w]*) +-> *(.*)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: set(others.split()) for name, others in lines} == MAY
