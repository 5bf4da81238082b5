"""Which room of the pack may import what; CONTRIBUTING.md shows the same as a map."""
import ast
import re
from collections.abc import Iterator

import pytest

from host import ROOT

COMFYUI = {"comfy", "comfy_aimdo", "comfy_api", "comfy_execution", "comfy_extras", "comfy_kitchen", "comfyui_version",
           "folder_paths", "nodes", "server"}  # fmt: skip
TENSORS = {"torch", "safetensors", "peft", "transformers"}
RUNNING = {"_posixsubprocess", "builtins", "cffi", "cloudpickle", "code", "codeop", "ctypes", "dill", "ensurepip", "imp", "importlib",
           "joblib", "marshal", "multiprocessing", "pickle", "pip", "pkgutil", "pty", "runpy", "shelve", "subprocess", "venv",
           "webbrowser", "zipimport"}  # fmt: skip
NETWORK = {"asyncore", "ftplib", "http", "httpx", "huggingface_hub", "imaplib", "requests", "smtplib", "socket", "socketserver",
           "ssl", "telnetlib", "urllib3", "websocket", "websockets", "xmlrpc"}  # fmt: skip
FETCHING = {"trainer/lora/fetch.py": {"http", "socket", "ssl"}, "trainer/run/folder.py": {"socket"}}  # the latter: gethostname
OPENING = re.compile(r"aiohttp$|aiohttp\.(Client\w+|request|TCPConnector)|urllib\.request|os\.(system|popen|exec|spawn|fork|posix_spawn)")
# Whatever is called so, or handed on to be called, from whichever module.
USES = re.compile(r"eval|exec|compile|__import__|__builtins__|breakpoint|os\.(system|popen|exec\w+|spawn\w+|posix_spawnp?|fork\w*|startfile)|"
                  r"asyncio\.create_subprocess_\w+|socket\.(socket|create_connection)|torch\.(load|hub|package|jit)|(np|numpy)\.load|"
                  r"sys\.meta_path")  # fmt: skip
ALLOWED = {"trainer/lora/fetch.py": {"socket.create_connection"}}

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


def dangers(tree: ast.AST, name: str) -> list[str]:
    """What of a file runs code or uses the network; to import it from another module's name is seen as well."""
    found = []
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0):
            outer = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for taken in (outer + alias.name for alias in node.names):
                top = taken.split(".")[0]
                if top in RUNNING or (top in NETWORK - FETCHING.get(name, set())) or OPENING.match(taken) or USES.fullmatch(taken):
                    found.append(f"line {node.lineno}: import {taken}")
        elif isinstance(node, (ast.Name, ast.Attribute)):
            text = ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "vars") and node.args:
            text = "eval" if ast.unparse(node.args[0]) in ("os", "sys", "torch", "builtins", "socket") else ""  # any of theirs
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("load_torch_file"):
            safe = [keyword for keyword in node.keywords if keyword.arg == "safe_load" and ast.unparse(keyword.value) == "True"]
            text = "" if safe else "torch.load"
        if USES.fullmatch(text) and text not in ALLOWED.get(name, ()):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", [ROOT / "__init__.py", *FILES], ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_code_or_uses_the_network_but_the_one_place_that_fetches(path):
    assert dangers(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize("code", [
    "import pickle", "from pickle import loads", "import importlib.util", "import ctypes", "from multiprocessing import Process",
    "import requests", "import urllib.request", "from urllib import request", "from aiohttp import ClientSession", "import socket",
    "from os import system", "import os; os.system('x')", "import os; run = os.popen", "getattr(os, 'sys' + 'tem')('x')", "eval('1')",
    "map(exec, texts)", "compile(text, '', 'exec')", "__import__('x')", "torch.load(file)", "from torch import load", "torch.hub.load('x')",
    "np.load(file, allow_pickle=True)", "comfy.utils.load_torch_file(file)", "load_torch_file(file, safe_load=False)",
    "asyncio.create_subprocess_exec('x')", "import os; os.fork()",
])  # fmt: skip
def test_what_would_run_code_is_seen(code):
    assert dangers(ast.parse(code), "trainer/x.py")


def test_imports_go_one_way():
    rooms = list(MAY)
    assert all(rooms.index(below) > rooms.index(above) for above, allowed in MAY.items() for below in allowed)


def test_the_map_shows_the_same():
    """Each line of the map in CONTRIBUTING.md is `room  -> room room ...`."""
    lines = re.findall(r"^(nodes|trainer[.\w]*) +-> *(.*)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: set(others.split()) for name, others in lines} == MAY
