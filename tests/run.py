"""Sets up ComfyUI and the test tools inside the checkout, then checks style and runs the whole suite.

`python3 tests/run.py`; options go to pytest: `-m gpu` for the tests that need a device, `-k WORD`, a path, ...
`--torch VERSION` runs the tests that need no server on another torch, in an environment of its own (gigabytes).
`--least` runs those of the pack and of what it does with ComfyUI on the oldest packages that requirements.txt allows.
"""
import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from host import HOST, TORCH, Host, SetupError  # noqa: E402

PACKAGES = ("ruff==0.17.6", "pytest>=8", "pytest-timeout", "pytest-xdist", "hypothesis", "playwright", "diffusers==0.39.0")
APT, OLDEST = HOST / "chromium", HOST / "oldest"
LEAST = ("tests/unit", *(f"tests/host/test_{name}.py" for name in ("peft", "lora_layers", "gradients", "saving", "record", "encoding",
         "load_image", "previews", "files", "continue", "run")))  # fmt: skip


def chromium() -> dict[str, str]:
    """Environment variables that let the browser tests find a Chromium; fetched into the checkout where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    if path := next(filter(None, map(shutil.which, names)), None):
        return {"PAIRLORA_CHROMIUM": path}
    binary = APT / "root/usr/lib/chromium/chromium"
    if not binary.exists() and shutil.which("apt-get"):
        _unpack_debian_chromium()
    if binary.exists():
        libraries = {str(file.parent) for file in (APT / "root").rglob("*.so*") if file.parent != binary.parent}
        return {"PAIRLORA_CHROMIUM": str(binary), "LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries))}
    return {}  # playwright's own


def _unpack_debian_chromium() -> None:
    """Debian's chromium with the libraries it needs, unpacked but not installed: no root, nothing outside."""
    for name in ("lists/partial", "archives/partial", "root"):
        (APT / name).mkdir(parents=True, exist_ok=True)
    options = (f"Dir::State::lists={APT}/lists", f"Dir::Cache={APT}", f"Dir::Cache::archives={APT}/archives",
               "Debug::NoLocking=1", "APT::Sandbox::User=")  # fmt: skip
    apt = ["apt-get", "-qq", "-y", *(word for option in options for word in ("-o", option))]
    print("  fetching Chromium", flush=True)
    for args in (["update"], ["install", "--download-only", "--no-install-recommends", "chromium", "fonts-dejavu-core"]):
        done = subprocess.run([*apt, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            print(done.stdout)
            return
    for package in (APT / "archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(APT / "root")], check=True)
    shutil.rmtree(APT / "archives")


def oldest(host: Host) -> dict[str, str]:
    """Environment variables with which Python finds the oldest packages that requirements.txt allows before all others."""
    lines = [line.replace(">=", "==") for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").split()]
    shutil.rmtree(OLDEST, ignore_errors=True)
    host._pip("installing " + " ".join(lines), "install", "--no-deps", "--target", str(OLDEST), *lines)
    return {"PYTHONPATH": str(OLDEST)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], add_help=False)
    parser.add_argument("--torch", default=TORCH)
    parser.add_argument("--least", action="store_true")
    own, options = parser.parse_known_args()
    if own.torch != TORCH and not any(Path(option).exists() for option in options):
        options += ["tests/unit", "tests/host"]
    if own.least and not any(Path(option).exists() for option in options):
        options += LEAST
    if not options:  # the whole suite: each file in one of two processes, those of the quick unit tests last
        options = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    try:
        host = Host(own.torch).prepare(*PACKAGES)
        packages = oldest(host) if own.least else {}
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    # Tiny models gain nothing from a second thread, and wait for it three times as long where the machine has other work.
    environment = {"OMP_NUM_THREADS": "1", **host.environment(), **packages, **chromium()}
    if "PAIRLORA_CHROMIUM" not in environment:
        environment["PLAYWRIGHT_BROWSERS_PATH"] = str(HOST / "playwright")
        subprocess.run([str(host.python), "-m", "playwright", "install", "chromium"], env=environment)
    style = subprocess.call([str(host.python), "-m", "ruff", "check", "--no-cache", str(ROOT)])
    tests = subprocess.call([str(host.python), "-m", "pytest", *options], cwd=ROOT, env=environment)
    return style or tests


if __name__ == "__main__":
    sys.exit(main())
