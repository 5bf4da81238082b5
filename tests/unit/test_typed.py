"""Paths as people type, paste and drop them."""
import os
from urllib.parse import quote

import pytest


@pytest.fixture
def typed(plain):
    return plain("typed")


AROUND = ["{}", " {}", "{}\n", '"{}"', "'{}'", '"{}', "“{}”", "„{}“", "«{}»", "‘{}’", "`{}`", "\u202a{}", "\u202a{}\u202c",
          "\u200e{}", "\u2066{}\u2069", "\ufeff{}", "\u200b{}", "\xa0{}\u3000", "\u202a\"{}\"\u202c ", "\" {} \"", "\x00{}"]  # fmt: skip


@pytest.mark.parametrize("around", AROUND, ids=ascii)
@pytest.mark.parametrize("meant", ["/data/my pairs", "pairs", "/data/the artists'", "日本/👩\u200d🎨"])
def test_what_lies_around_a_path_is_taken_off(typed, around, meant):
    assert typed.path(around.format(meant)) == meant


@pytest.mark.parametrize("around", ["{}", '"{}"', " {}", "\u202a{}"], ids=ascii)
@pytest.mark.parametrize("start", ["file://", "FILE://", "file://localhost", "file:"])
@pytest.mark.parametrize("meant", ["/data/my pairs", "/data/été/100%", "/data/a#b?c", "/data/caf\udce9"], ids=ascii)
def test_urls_of_files_are_paths(typed, around, start, meant):
    """As a file manager copies them, with everything but ASCII encoded; a byte that is no UTF-8 stays that byte."""
    encoded = quote(meant.encode(errors="surrogateescape"))
    assert typed.path(around.format(start + encoded)) == meant
    assert typed.path("file:///data/my pairs") == "/data/my pairs"


def test_the_home_folder_is_known(typed, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert typed.path("~/my pairs") == typed.path(" '~/my pairs'") == f"{tmp_path}/my pairs"
    assert typed.path("~") == str(tmp_path) and typed.path("a~b") == "a~b"
    for unknown in ("~nobody-of-this-name/x", "~a\0b", "~\ud800"):
        assert typed.path(unknown) == unknown


def test_backslashes_separate_in_relative_paths_on_every_system(typed, monkeypatch):
    monkeypatch.setattr(typed, "WINDOWS", False)
    assert typed.path("styles\\my.safetensors") == "styles/my.safetensors"
    assert typed.path("~nobody-of-this-name\\x") == "~nobody-of-this-name/x"
    for kept in ("/data/a\\b", "C:\\pairs", "\\\\server\\pairs"):  # a name here; and what only Windows has
        assert typed.path(kept) == kept


@pytest.mark.skipif(os.name == "nt", reason="expands ~ as POSIX does")
def test_windows_keeps_its_backslashes_and_drives(typed, monkeypatch):
    monkeypatch.setattr(typed, "WINDOWS", True)
    assert typed.path("\u202aC:\\my pairs\\a") == "C:\\my pairs\\a"
    assert typed.path('"C:\\pairs\\"') == "C:\\pairs\\"
    assert typed.path("file:///C:/my%20pairs") == "C:/my pairs"
    assert typed.path("file://C:/my%20pairs") == "C:/my pairs"
    assert typed.path("file://server/my%20pairs") == "//server/my pairs"
    assert typed.path("styles\\a.safetensors") == "styles\\a.safetensors"


@pytest.mark.parametrize("text", ["", " ", '""', "''", "\u202a\u202c", '" "', "'", '"'], ids=ascii)
def test_nothing_is_nothing(typed, text):
    assert typed.path(text) in ("", "'")
