"""What is different on Windows, as far as it can be run elsewhere: files in use, code pages, long paths, separators."""
import ast
import importlib
import ntpath
import os
import subprocess
import sys
import threading
from pathlib import PureWindowsPath

import pytest
from pictures import edited, textured

from host import ROOT

PACK = [ROOT / "__init__.py", *ROOT.glob("nodes/*.py"), *ROOT.glob("trainer/**/*.py"), *ROOT.glob("demo/*.py"), *ROOT.glob("benchmarks/*.py")]
CODE_PAGES = ("cp437", "cp850", "cp936", "cp1252")
NAME = "日本 été 👩\u200d🎨"


@pytest.fixture
def moving(plain, monkeypatch):
    moving = plain("moving")
    monkeypatch.setattr(moving, "PAUSES", (0.02,) * 5)
    return moving


def test_files_in_use_stay_where_they_are(windows_files, tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/file", "b"):
        (tmp_path / name).write_bytes(b"old")
    with open(tmp_path / "a/file", "rb"):
        for refused in (lambda: os.remove(tmp_path / "a/file"), lambda: os.replace(tmp_path / "b", tmp_path / "a/file"),
                        lambda: os.rename(tmp_path / "a", tmp_path / "c"), lambda: os.replace(tmp_path / "a/file", tmp_path / "c")):  # fmt: skip
            with pytest.raises(PermissionError):
                refused()
        os.remove(tmp_path / "b")
    os.rename(tmp_path / "a", tmp_path / "c")
    windows_files.longest = 259
    with pytest.raises(FileNotFoundError):
        (tmp_path / ("x" * 100) / ("y" * 150)).open("xb")


def test_what_lets_go_in_time_is_replaced(windows_files, moving, tmp_path):
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    opened = open(tmp_path / "old", "rb")  # noqa: SIM115 - another thread closes it
    threading.Timer(0.05, opened.close).start()
    moving.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"new" and not (tmp_path / "new").exists()


@pytest.mark.parametrize("held", ["old", "new"])
def test_what_does_not_let_go_is_named_and_nothing_is_lost(windows_files, moving, tmp_path, held):
    (tmp_path / "new").write_bytes(b"new")
    if held == "old":
        (tmp_path / "old").write_bytes(b"old")
    with open(tmp_path / held, "rb"), pytest.raises(PermissionError, match=rf"/old cannot be put.*/{held} is open.*Close it there"):
        moving.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "new").read_bytes() == b"new"
    assert held == "new" or (tmp_path / "old").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["photo001.txt", "left_out.txt"])
def test_a_caption_and_a_list_that_an_editor_holds_are_kept(windows_files, moving, plain, tmp_path, name):
    writing, file = plain("writing"), tmp_path / name
    file.write_text("theirs", encoding="utf-8")
    with open(file, "rb"), pytest.raises(PermissionError, match=f"{name} cannot be put in its place"):
        writing.rewrite(file, b"ours", writing.version(file))
    assert file.read_text("utf-8") == "theirs" and list(tmp_path.iterdir()) == [file]
    writing.rewrite(file, b"ours", writing.version(file))
    assert file.read_bytes() == b"ours"


def test_an_upload_that_a_scanner_looks_into_gets_its_name_all_the_same(windows_files, moving, plain, tmp_path):
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging/a.png").write_bytes(b"1")
    opened = open(tmp_path / "staging/a.png", "rb")  # noqa: SIM115
    threading.Timer(0.05, opened.close).start()
    assert plain("archive").move_to_free(tmp_path / "staging", tmp_path, "pairs") == tmp_path / "pairs"
    assert (tmp_path / "pairs/a.png").read_bytes() == b"1"


def test_a_run_with_a_file_in_use_is_removed_whole_or_not_at_all(windows_files, moving, tmp_path):
    runs = importlib.import_module("pairlora.trainer.run.runs")
    folder = tmp_path / "pairlora/edit-0123456789"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("step5.safetensors", "run.json", "checkpoints/step000005.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    (run,) = runs.runs(tmp_path)
    with open(folder / "step5.safetensors", "rb"), pytest.raises(PermissionError, match="is open in another program"):
        runs.remove(run)
    assert (folder / "checkpoints/step000005.json").exists() and (folder / "step5.safetensors").exists()
    runs.remove(run)
    assert list((tmp_path / "pairlora").iterdir()) == []


def terminal(code_page: str, *args) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONIOENCODING": code_page, "PYTHONUTF8": "0"}
    return subprocess.run([sys.executable, "-m", *map(str, args)], cwd=ROOT, capture_output=True, env=environment, timeout=60)


@pytest.mark.parametrize("code_page", CODE_PAGES)
def test_consoles_with_few_letters_are_printed_on(tmp_path, code_page):
    pairs, run = tmp_path / NAME, tmp_path / f"output/pairlora/{NAME}-0123456789"
    for folder in (pairs, run):
        folder.mkdir(parents=True)
    start = textured(1, (64, 64))
    start.save(pairs / f"{NAME}_start.png")
    edited(start, 2).save(pairs / f"{NAME}_end.png")
    (run / "step5.safetensors").write_bytes(b"")
    for command, said in ((("trainer.data", pairs), "1 pair"), (("trainer.data", pairs / "nowhere"), "There is no folder"),
                          (("trainer.run", tmp_path / "output"), "1 runs")):  # fmt: skip
        done = terminal(code_page, *command)
        assert "Error" not in (done.stderr.decode(code_page)) and done.returncode in (0, 1), done.stderr
        assert said in done.stdout.decode(errors="replace") and NAME in done.stdout.decode(errors="replace")
    refused = terminal(code_page, "trainer.run", tmp_path / "output", "--remove", NAME)
    assert refused.returncode == 1 and b"There is no run" in refused.stderr and b"Traceback" not in refused.stderr
    assert terminal(code_page, "trainer.run", tmp_path / "output", "--remove", run.name).returncode == 0


@pytest.mark.parametrize("path", PACK, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_files_are_utf_8_whatever_the_code_page(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        method, named = called.split(".")[-1], {keyword.arg for keyword in node.keywords}
        if method in ("read_text", "write_text"):
            assert "encoding" in named or len(node.args) == 2 - (method == "read_text"), f"line {node.lineno}: {ast.unparse(node)}"
        elif called in ("open", "fdopen", "os.fdopen") or (method == "open" and called not in ("Image.open", "os.open", "archive.open")):
            binary = any("b" in c.value for a in node.args for c in ast.walk(a) if isinstance(c, ast.Constant) and isinstance(c.value, str))
            assert binary or "encoding" in named, f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", ["styles\\mine", "styles/mine", ".\\styles\\mine", "styles\\\\mine"])
def test_a_name_with_a_folder_is_the_same_on_every_system(plain, name):
    kept = plain("names").safe_name(name)
    assert kept.as_posix() == "styles/mine"
    assert PureWindowsPath("C:/loras", kept) == PureWindowsPath("C:\\loras\\styles\\mine")


@pytest.mark.parametrize("name", ["C:mine", "C:\\mine", "\\\\server\\share\\mine", "\\mine", "..\\mine", "styles\\..\\..\\mine",
                                  "mine:stream", "\\\\?\\C:\\mine", "\\\\.\\PhysicalDrive0", "a\\NUL", "a\\con.txt", "mine.", "mine "])  # fmt: skip
def test_a_name_that_windows_takes_elsewhere_is_refused(plain, name):
    """Each leads out of the folder, or to no file, when Windows puts it behind one."""
    with pytest.raises(plain("pairs").DatasetError, match="cannot be a name"):
        plain("names").safe_name(name)


@pytest.mark.parametrize("name, inside", [
    ("sub\\a.png", True), ("sub/a.png", True), (".\\sub\\a.png", True), ("..\\a.png", False), ("C:\\pairs\\sub\\a.png", True),
    ("D:\\pairs\\sub\\a.png", False), ("\\\\server\\share\\a.png", False), ("C:..\\a.png", False),
])  # fmt: skip
def test_images_of_a_list_are_looked_for_in_its_folder_only(plain, monkeypatch, name, inside):
    """With Windows' own rules for paths, of which all are said to be files."""
    pairs, asked = plain("pairs"), []
    monkeypatch.setattr(pairs, "Path", PureWindowsPath)
    monkeypatch.setattr(ntpath, "isfile", lambda path: asked.append(str(path)) or True)
    monkeypatch.setattr(ntpath, "abspath", ntpath.normpath)
    monkeypatch.setattr(pairs, "os", type("os", (), {"path": ntpath}))
    found = pairs._within(PureWindowsPath("C:\\pairs"), name)
    assert found == (PureWindowsPath("C:\\pairs\\sub\\a.png") if inside else None)
    assert bool(asked) == inside  # a server is not even asked


def test_reports_name_files_with_forward_slashes(plain):
    found = plain("pairs").Match(PureWindowsPath("C:\\pairs"))
    assert found.relative(PureWindowsPath("C:\\pairs\\before\\a.png")) == "before/a.png"


@pytest.mark.parametrize("room, said", [("data", "4 pairs"), ("run", "0 runs")])
def test_commands_run_by_their_path_too(tmp_path, room, said):
    """As the portable ComfyUI's Python has to, which like `python -I` does not look into the present folder."""
    for i in range(4):
        start = textured(i, (64, 64))
        start.save(tmp_path / f"photo{i}_start.png")
        edited(start, i + 9).save(tmp_path / f"photo{i}_end.png")
    command = [sys.executable, "-I", str(ROOT / "trainer" / room), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert said in done.stdout and done.returncode in (0, 1), done.stderr
