"""What the README quotes is what the code says."""
import ast
import re

import pytest

from host import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
ORDER = ["Models", "Install into ComfyUI", "Try it", "Your own edit", "Training", "Nodes", "Troubleshooting", "How it works"]


def texts() -> list[str]:
    """Every text in the pack's Python, with NUL for what is put into it."""
    found = []
    for path in (*ROOT.glob("nodes/*.py"), *ROOT.glob("trainer/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in parts))
    return found


def quoted() -> list[str]:
    table = README.split("## Troubleshooting\n")[1].split("\n## ")[0]
    return [message for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for message in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("message", quoted())
def test_a_message_is_one_of_the_code(message):
    parts = [re.escape(part.strip()) for part in message.split("...") if part.strip()]
    pattern = re.compile(r"[^\n]*\0[^\n]*".join(parts))
    assert parts and any(pattern.search(text) for text in texts())


def test_it_stands_in_the_order_that_users_look_for():
    assert re.findall(r"^## (.*)$", README, re.MULTILINE) == ORDER
    assert README.index("![") < README.index("## Models")


def test_files_and_folders_that_it_names_are_there():
    for path in re.findall(r"`?(?:python3 |\]\()((?:tests|demo|benchmarks|example_workflows)/[\w./-]+)", README):
        assert (ROOT / path).exists(), path


def test_no_command_needs_a_virtual_environment():
    commands = "\n".join(re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    assert not re.search(r"activate|\.?venv|virtualenv", commands) and "python_embeded\\python.exe -m pip install -r" in commands
