"""Which room of the pack may import what; CONTRIBUTING.md shows the same as a map."""
import ast
import re
from collections.abc import Iterator

import pytest

from host import ROOT

COMFYUI = {"comfy", "comfy_aimdo", "comfy_api", "comfy_execution", "comfy_extras", "comfy_kitchen", "comfyui_version",
           "folder_paths", "nodes", "server"}  # fmt: skip
TENSORS = {"torch", "safetensors", "peft", "transformers"}

# Rooms, and modules that lie beside them, with all of the pack that they import. Nothing below imports what is above it.
MAY = {
    "nodes": {"trainer.run", "trainer.loop", "trainer.similarity", "trainer.lora", "trainer.host", "trainer.data"},
    "trainer.run": {"trainer.encoding", "trainer.loop", "trainer.watch", "trainer.scores", "trainer.similarity", "trainer.state",
                    "trainer.plan", "trainer.lora", "trainer.host", "trainer.data"},
    "trainer.loop": {"trainer.watch", "trainer.plan", "trainer.state", "trainer.step", "trainer.host"},
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


def test_imports_go_one_way():
    rooms = list(MAY)
    assert all(rooms.index(below) > rooms.index(above) for above, allowed in MAY.items() for below in allowed)


def test_the_map_shows_the_same():
    """Each line of the map in CONTRIBUTING.md is `room  -> room room ...`."""
    lines = re.findall(r"^(nodes|trainer[.\w]*) +-> *(.*)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: set(others.split()) for name, others in lines} == MAY
