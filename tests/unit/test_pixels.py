"""What needs pixels: measured once for each content, a few samples at a time."""
import builtins
import os
import shutil

import pytest
from pictures import edited, textured


@pytest.fixture
def folder(tmp_path):
    """Three pairs whose files are old enough to be remembered."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for i in range(3):
        start = textured(i, (96, 64))
        start.save(folder / f"p{i}_start.png")
        edited(start).save(folder / f"p{i}_end.png")
    return folder


@pytest.fixture
def settled(plain, monkeypatch):
    """No waiting: every file counts as old enough to be remembered."""
    monkeypatch.setattr(plain("cache"), "SETTLED", -60)


@pytest.fixture
def decoded(plain, monkeypatch):
    """The files that are decoded from now on."""
    images, files = plain("images"), []
    load = images.load
    monkeypatch.setattr(images, "load", lambda path, *args: (files.append(path.name), load(path, *args))[1])
    return files


@pytest.fixture
def opened(monkeypatch):
    """The files whose content is read from now on by `open`."""
    files, original = [], builtins.open

    def watched(file, *args, **kwargs):
        files.append(os.path.basename(str(file)))
        return original(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", watched)
    return files


def measure(plain, folder, cache, on_progress=lambda done, total: None):
    return plain("pixels").measure(plain("pairs").match(folder).samples, cache, on_progress)


def test_progress_goes_up_to_the_number_of_images(plain, folder):
    seen = []
    with plain("cache").Cache() as cache:
        measure(plain, folder, cache, lambda *args: seen.append(args))
    assert seen == [(2, 6), (4, 6), (6, 6)]


def test_nothing_is_decoded_twice_nor_the_same_content_under_another_name(plain, folder, tmp_path, settled, decoded):
    cache = plain("cache").Cache
    with cache(tmp_path / "cache.sqlite") as first:
        before = measure(plain, folder, first)
    assert len(decoded) == 6
    decoded.clear()
    shutil.copytree(folder, tmp_path / "again")
    with cache(tmp_path / "cache.sqlite") as second:  # as after a restart
        assert measure(plain, folder, second) == measure(plain, tmp_path / "again", second) == before
    assert decoded == []
    textured(9, (96, 64)).save(folder / "p1_end.png")
    with cache(tmp_path / "cache.sqlite") as third:
        assert measure(plain, folder, third)[1] != before[1]
    assert set(decoded) == {"p1_start.png", "p1_end.png"}, "the pair is compared anew, the others are not"


def test_a_truncated_image_is_found_and_its_neighbours_are_measured(plain, folder):
    (folder / "p1_end.png").write_bytes((folder / "p1_end.png").read_bytes()[:-3000])
    with plain("cache").Cache() as cache:
        first, second, third = measure(plain, folder, cache)
    assert [bool(look.error) for look in second.looks] == [False, True] and second.comparison is None
    assert first.comparison and third.comparison and not first.looks[1].error


def test_only_a_few_images_are_decoded_ahead(plain, tmp_path, decoded):
    for i in range(60):
        for role in ("start", "end"):
            textured(i, (16, 16), 4).save(tmp_path / f"p{i}_{role}.png")
    ahead = []
    with plain("cache").Cache() as cache:
        measure(plain, tmp_path, cache, lambda done, total: ahead.append(len(decoded) - done))
    assert len(decoded) == 120 and max(ahead) <= 20


def test_an_unchanged_file_is_not_read_again(plain, folder, tmp_path, settled, opened):
    path = folder / "p0_end.png"
    with plain("cache").Cache(tmp_path / "cache.sqlite") as cache:
        first = cache.digest(path)
    assert opened.count("p0_end.png") == 1
    with plain("cache").Cache(tmp_path / "cache.sqlite") as cache:
        assert cache.digest(path) == first and opened.count("p0_end.png") == 1
        os.utime(path)  # touched: it is read, and found to be the same
        assert cache.digest(path) == first and opened.count("p0_end.png") == 2
        path.write_bytes(b"another content")
        assert cache.digest(path) != first


def test_a_file_that_has_just_changed_is_always_read(plain, folder, opened):
    with plain("cache").Cache() as cache:
        for _ in range(3):
            cache.digest(folder / "p0_end.png")
    assert opened.count("p0_end.png") == 3


@pytest.mark.parametrize("content", [b"no database at all" * 100, None], ids=["damaged", "a folder in its place"])
def test_a_cache_that_cannot_be_used_is_done_without(plain, folder, tmp_path, settled, content):
    file = tmp_path / "cache.sqlite"
    file.mkdir() if content is None else file.write_bytes(content)
    with plain("cache").Cache(file) as cache:
        cache.put("key", {"value": 1})
        assert cache.get("key") == {"value": 1} and cache.get("other") is None
        assert len(measure(plain, folder, cache)) == 3
    assert content is None or file.read_bytes() == content, "it may be somebody's file"
