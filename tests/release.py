"""What is published, as the registry will have it: `python3 tests/release.py`, before a version is tagged.

Builds the archive with comfy-cli, runs tests/server/test_published.py on it, and has two scanners read it. What they find
must be answered in SECURITY.md, where ANSWERED is said in words; anything else fails. Needs git; the tools are installed
into an environment of their own in .host/ (400 MB).
"""
import ast
import json
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

from run import ROOT, main  # first: it finds demo/

from host import HOST, Host, SetupError

TOOLS = {"comfy-cli": "1.23.0", "nodesafe": "0.6.0", "bandit": "1.9.4"}
FOLDER = HOST / "release"
ANSWERED = [  # scanner, what it calls it, what the line holds then
    ("nodesafe", "code_execution", r"\bre\.compile\("),
    ("nodesafe", "network_call", r"http\.client|socket\.create_connection"),
    ("nodesafe", "dynamic_attribute_access", r"getattr\("),
    ("nodesafe", "obfuscation_chains", r"lambda _:|[rR]ecord\("),  # the latter for its ord(
    ("nodesafe", "info_gathering", r"socket\.gethostname\(\)"),
    ("nodesafe", "code_obfuscation_high_entropy", r"\A(?!(?s:.*)[\w+/=]{40})"),  # no 40 in a row, as an encoded payload has
    ("nodesafe", "code_obfuscation_suspicious_ident", r"_"),
    ("bandit", "B311", r"random\.Random\(seed\)"),
]


def tool(name: str, *args, **options) -> subprocess.CompletedProcess:
    home = {"HOME": str(FOLDER), "PATH": "/usr/bin:/bin", "DO_NOT_TRACK": "1"}  # neither looks for the user's settings
    return subprocess.run([str(FOLDER / "venv/bin" / name), *map(str, args)], capture_output=True, text=True, encoding="utf-8", env=home, **options)


def install() -> None:
    host = Host()
    host.folder = FOLDER
    host.venv, host.python = FOLDER / "venv", FOLDER / "venv/bin/python"
    if not (host.python.exists() and all((FOLDER / "venv/bin" / name).exists() for name in ("comfy", "nodesafe", "bandit"))):
        host.users_python = None
        host._make_venv()
        host._pip("installing " + ", ".join(TOOLS), "install", *(f"{name}=={version}" for name, version in TOOLS.items()))


def literals(file: Path, line: int) -> str:
    """The texts that begin on a line of a Python file; the scanner shows the first characters only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return "\n".join(node.value for node in ast.walk(tree)
                     if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.lineno == line)  # fmt: skip


def findings(unzipped: Path) -> list[tuple[str, str, str, str]]:
    """Of both scanners: scanner, category, place, the line."""
    found = []
    read = json.loads(tool("nodesafe", "scan", unzipped, "--format", "json", "--no-llm").stdout)
    for of in read["findings"]:
        text = of["snippet"] if "high_entropy" not in of["category"] else literals(unzipped / of["file"], of["line"])
        found.append(("nodesafe", of["category"], f"{of['file']}:{of['line']}", text))
    read = json.loads(tool("bandit", "--quiet", "--recursive", unzipped, "--format", "json").stdout)
    for of in read["results"]:
        found.append(("bandit", of["test_id"], f"{of['filename']}:{of['line_number']}", of["code"]))
    return found


def release() -> int:
    install()
    archive = FOLDER / "node.zip"
    packed = tool("comfy", "--skip-prompt", "node", "pack", cwd=ROOT)
    print(packed.stdout.strip())
    (ROOT / "node.zip").replace(archive)
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        opened.extractall(unzipped := FOLDER / f"pairlora-{archive.stat().st_mtime_ns}")
    print(f"{archive}: {len(names)} files, {archive.stat().st_size / 1e6:.1f} MB")
    found = findings(unzipped)
    for (scanner, category), count in sorted(Counter(of[:2] for of in found).items()):
        print(f"{scanner} {category}: {count}")
    unanswered = [of for of in found if not any(of[:2] == known[:2] and re.search(known[2], of[3]) for known in ANSWERED)]
    for of in unanswered:
        print("not answered:", *of)
    sys.argv[1:] = ["tests/server/test_published.py", "--archive", str(archive)]
    return main() or bool(unanswered)


if __name__ == "__main__":
    try:
        sys.exit(release())
    except SetupError as error:
        sys.exit(str(error))
