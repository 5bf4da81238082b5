"""What is told to the registry and to those who carry the pack on, and which files a user gets."""
import importlib
import re
import sys

import pytest
import yaml
from PIL import Image, ImageChops, ImageStat
from published import files, pack

from host import ROOT

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # pytest brings the latter
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
YAML = sorted(path for suffix in ("*.yml", "*.yaml") for path in (ROOT / ".github").rglob(suffix))
NOT_FOR_USERS = {"tests", "demo", "benchmarks", ".ci", ".github", ".gitignore", ".comfyignore", "CONTRIBUTING.md"}
LARGEST = 20e6  # bytes of the archive; the tiny base model is 12 MB of it


def test_a_user_gets_what_the_nodes_need_and_nothing_else(tmp_path):
    listed = set(files())
    assert not {name.split("/")[0] for name in listed} & NOT_FOR_USERS
    needed = {str(path.relative_to(ROOT).as_posix()) for folder in ("nodes", "trainer", "web", "example_workflows", "subgraphs", "samples", "locales")
              for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip
    top = {"__init__.py", "pyproject.toml", "requirements.txt", "README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md"}
    assert listed == needed | top
    size = pack(tmp_path / "node.zip").stat().st_size
    print(f"{len(listed)} files, {size / 1e6:.1f} MB")
    assert size < LARGEST


def test_the_version_is_that_of_the_newest_changes():
    version = PROJECT["project"]["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version) and headings[0] == version
    numbers = [tuple(map(int, heading.split("."))) for heading in headings]
    assert numbers == sorted(set(numbers), reverse=True)


def test_the_registry_is_told_the_packages_that_are_installed():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert PROJECT["project"]["dependencies"] == lines and all(re.fullmatch(r"[a-z]+>=[\d.]+", line) for line in lines)
    assert not any(line.startswith("torch") for line in lines)  # ComfyUI's own


def test_the_host_that_is_required_is_the_oldest_that_is_tested():
    assert PROJECT["tool"]["comfy"]["requires-comfyui"] == ">=0.3.75"
    assert "0.3.75" in (ROOT / "demo/host.py").read_text(encoding="utf-8") and "0.3.75" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", ["Icon", "Banner"])
def test_pictures_are_where_the_registry_looks_and_what_the_script_draws(key, monkeypatch, tmp_path):
    url, repository = PROJECT["tool"]["comfy"][key], PROJECT["project"]["urls"]["Repository"]
    start = f"{repository.replace('github.com', 'raw.githubusercontent.com')}/main/"
    assert url.startswith(start)
    file = ROOT / url.removeprefix(start)
    import make_pictures

    monkeypatch.setattr(make_pictures, "OUT", tmp_path)
    make_pictures.main()
    with Image.open(file) as there, Image.open(tmp_path / file.name) as drawn:
        assert max(ImageStat.Stat(ImageChops.difference(there.convert("RGB"), drawn.convert("RGB"))).mean) < 1
        width, height = there.size
    assert (width == height <= 400) if key == "Icon" else (width * 9 == height * 21)


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_can_be_read(path):
    """YAML reads `on` as True."""
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name == "workflows":
        assert read[True] and all(job["runs-on"] and job["steps"] for job in read["jobs"].values())
    elif path.name != "config.yml":
        fields = [field for field in read["body"] if field["type"] != "markdown"]
        assert read["name"] and read["description"] and len({field["id"] for field in fields}) == len(fields)


def test_issues_ask_for_the_report_and_the_runs_folder():
    form = (ROOT / ".github/ISSUE_TEMPLATE/training.yml").read_text(encoding="utf-8")
    required = {field["id"] for field in yaml.safe_load(form)["body"] if field.get("validations", {}).get("required")}
    assert {"report", "run"} <= required and "output/pairlora" in form


def test_only_a_tag_that_is_the_version_is_published():
    publish = (ROOT / ".github/workflows/publish.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(publish)[True]["push"] == {"tags": ["v*"]} and "pyproject.toml" in publish
