"""Which names every system can keep, and that hostile ones are refused."""
from pathlib import PurePosixPath

import pytest
from unsafe import UNSAFE

ORDINARY = ["my_edit", "my pairs", "Ünï côde", "日本", "cafe\u0301", "👩\u200d🎨", "wait…", "½", "console", "nullify", "a..b",
            "x" * 120, "名" * 40, "v1.2", "comet", "it's (1) & more"]  # fmt: skip


@pytest.fixture
def names(plain):
    return plain("names")


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_are_kept(names, name):
    assert names.name_error(name) is None
    assert names.safe_name(name) == PurePosixPath(name) and names.folder_name(name) == names.unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("name", [*(name for name in UNSAFE if name not in ("./",)), "a/b", "what?", 'a"b', "a|b", "<a>", "*",
                                  " a", "a ", "a.", ".a", " ", "x" * 121, "名" * 90, "ü" * 61, "x" * 250],
                         ids=ascii)  # fmt: skip
def test_what_some_system_cannot_keep_is_refused_with_the_name(names, name):
    error = names.name_error(name)
    assert error.startswith(f"{(name if len(name) <= 120 else name[:40] + '...')!r} cannot be a name: it ") or "device" in error
    assert error.endswith("Choose another name.")


@pytest.mark.parametrize("name", ["nul", "NUL", "con.txt", "Aux.v2", "com1", "COM¹", "lpt³.x", "conin$", "prn .a"])
def test_names_of_devices_are_refused(names, name):
    assert "Windows keeps this name for a device" in names.name_error(name)


def test_lengths_are_counted_in_bytes(names):
    """eCryptfs, which encrypts home folders, takes 143; a number, .safetensors and .part come behind a name."""
    assert "it has 270 bytes, and more than 120 do not fit everywhere" in names.name_error("名" * 90)
    assert len(f"{'名' * 40}_00.safetensors.part".encode()) <= 143


@pytest.mark.parametrize("name, meant", [("before\\a", "before/a"), ("./a", "a"), ("a//b", "a/b"), ("a/b/c", "a/b/c")])
def test_folders_may_come_before_a_name(names, name, meant):
    assert names.safe_name(name) == PurePosixPath(meant)


@pytest.mark.parametrize("name", [*UNSAFE, "a/" + "名" * 90, "a/what?"], ids=ascii)
def test_unsafe_paths_are_refused(names, plain, name):
    with pytest.raises(plain("pairs").DatasetError, match="cannot be a name: .* Choose another"):
        names.safe_name(name)


@pytest.mark.parametrize("text, name", [
    ("my pairs", "my pairs"), ("été", "été"), ("../../x", "_.._x"), ("a/b\\c:d", "a_b_c_d"), (".hidden", "hidden"),
    ("", "pairs"), ("...", "pairs"), ("CON", "pairs"), ("a\u202eb", "pairs"), ("．．／x", "pairs"),
    ("a\ud800b", "ab"), ("名" * 100, "名" * 40), ("x" * 119 + "é", "x" * 119),
])  # fmt: skip
def test_folder_names_are_made_safe(names, text, name):
    assert names.folder_name(text) == name
