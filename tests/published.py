"""The archive that users get from the registry: what git tracks, without what .comfyignore names."""
import subprocess
import zipfile
from pathlib import Path

from host import ROOT


def files() -> list[str]:
    """As comfy-cli chooses them, which matches .comfyignore as git does."""
    every, ignored = (_git("ls-files", *options) for options in ((), ("--cached", "--ignored", "--exclude-from=.comfyignore")))
    return sorted(set(every) - set(ignored))


def pack(archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for name in files():
            out.write(ROOT / name, name)
    return archive


def _git(*command: str) -> list[str]:
    listed = subprocess.run(["git", *command, "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [name for name in listed.decode().split("\0") if name and (ROOT / name).exists()]
