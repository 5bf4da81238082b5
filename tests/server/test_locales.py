"""The pack's texts in all its languages: locales/LANGUAGE as ComfyUI reads it, and the help pages.

English stands where it is used, in the nodes' schemas and in `t("...")` of the widgets. `--write-locales` writes locales/en
from there, for translators to copy.
"""
import json
import re

import pytest

from host import ROOT

LOCALES, WEB, HELP = ROOT / "locales", ROOT / "web", ROOT / "web/docs"
OTHERS = sorted(folder.name for folder in LOCALES.iterdir() if folder.is_dir() and folder.name != "en")
CALL = re.compile(r'\bt\(\s*("(?:[^"\\]|\\.)*")?')
SHOWN = re.compile(r"\b(?:textContent|title|ariaLabel|ariaValueText|alt|placeholder|message|label):\s*(?=[\"`])(.*)")
WORD = re.compile(r"[A-Za-z]{2,}")


def schemas(client) -> dict:
    """What the schemas say, as nodeDefs.json has it."""
    found = {}
    for node, info in client.get("/object_info").items():
        if not info["python_module"].endswith("pairlora"):
            continue
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        tooltips = info.get("output_tooltips") or [None] * len(info["output"])
        found[node] = {
            "display_name": info["display_name"],
            "description": info["description"],
            "inputs": {name: _said(name, options[1].get("tooltip") if len(options) > 1 else None) for name, options in inputs.items()},
            "outputs": {str(i): _said(*said) for i, said in enumerate(zip(info["output_name"], tooltips, strict=True))},
        }
    return found


def _said(name: str, tooltip: str | None) -> dict:
    return {"name": name, "tooltip": tooltip} if tooltip else {"name": name}


def modules() -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(WEB.glob("*.js")) if file.name != "texts.js"}


def asked() -> set[str]:
    """The English texts that the widgets ask for."""
    return {json.loads(text) for code in modules().values() for text in CALL.findall(code) if text}


def read(language: str, name: str) -> dict:
    return json.loads((LOCALES / language / f"{name}.json").read_text(encoding="utf-8"))


def flat(texts: dict, path: tuple = ()) -> dict:
    return {
        where: said
        for key, value in texts.items()
        for where, said in (flat(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value}).items()
    }


def placeholders(text: str) -> list[str]:
    return sorted(set(re.findall(r"\{\w+\}", text)))


def test_english_is_what_the_schemas_and_the_widgets_say(client, request):
    wanted = {"nodeDefs": schemas(client), "main": {"pairlora": {text: text for text in sorted(asked())}}}
    assert len(wanted["nodeDefs"]) == len(list(HELP.glob("*.md")))
    if request.config.getoption("write_locales"):
        for name, texts in wanted.items():
            text = json.dumps(texts, indent=2, ensure_ascii=False) + "\n"
            (LOCALES / "en" / f"{name}.json").write_text(text, encoding="utf-8")
    for name, texts in wanted.items():
        assert read("en", name) == texts, "run this test with --write-locales"
    assert wanted["main"]["pairlora"]


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("name", ["nodeDefs", "main"])
def test_every_text_is_there_in_every_language(language, name):
    english, other = flat(read("en", name)), flat(read(language, name))
    assert {"without a text": english.keys() - other.keys(), "left over": other.keys() - english.keys()} == {
        "without a text": set(), "left over": set()
    }  # fmt: skip
    for where, text in english.items():
        said = other[where]
        assert said.strip(), where
        assert placeholders(said) == placeholders(text), where
        if name == "nodeDefs":  # where these would be vue-i18n's syntax
            assert not re.search(r"[{}@|]", said + text), where
        elif " | " not in text:
            assert " | " not in said, where
    same = [where for where, text in english.items() if other[where] == text and WORD.search(text) and where[-1] != "name"]
    assert same == [], "not translated"


@pytest.mark.parametrize("language", OTHERS)
def test_every_node_has_its_help_in_every_language(language, client):
    for page in HELP.glob("*.md"):
        translated = client.get(f"/extensions/pairlora/docs/{page.stem}/{language}.md").decode()
        english = page.read_text(encoding="utf-8")
        assert translated.startswith(f"# {read(language, 'nodeDefs')[page.stem]['display_name']}\n")
        for part in (r"(?m)^#+ ", r"(?m)^\|", r"(?m)^- ", r"(?m)^\d\. "):  # as many headings, rows and entries
            assert len(re.findall(part, translated)) == len(re.findall(part, english)), (page.stem, part)
        # what is written as code is the same; a translation may name it more often
        assert set(re.findall(r"`[^`]+`", english)) == set(re.findall(r"`[^`]+`", translated)), page.stem
    assert {folder.name for folder in HELP.iterdir() if folder.is_dir()} == {page.stem for page in HELP.glob("*.md")}


def test_comfyui_gives_the_texts_to_the_page(client):
    given = client.get("/i18n")
    for language in ("en", *OTHERS):
        assert given[language]["pairlora"] == read(language, "main")["pairlora"]
        assert read(language, "nodeDefs").items() <= given[language]["nodeDefs"].items()


@pytest.mark.parametrize("file", modules())
def test_a_widget_says_nothing_but_what_is_translated(file):
    code = modules()[file]
    unknown = [code[match.start() : match.end() + 40] for match in CALL.finditer(code) if not match[1]]
    assert unknown == [], "t() takes a text that is written out"
    left = [said for said in SHOWN.findall(code) if WORD.search(re.sub(r"\$\{[^}]*\}|\bt\(.*", "", said).split(",")[0])]
    assert left == []
