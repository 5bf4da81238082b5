"""What needs pixels: measured once for each content, a few samples at a time."""
import builtins
import os
import shutil
import sqlite3
import sys
import time

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
    load = images.load_with_alpha
    monkeypatch.setattr(images, "load_with_alpha", lambda path, *args: (files.append(path.name), load(path, *args))[1])
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
    assert "truncated" in second.looks[1].error


def test_pairs_that_share_a_target_are_told_apart_in_the_cache(plain, folder):
    for source, name in (("p0_end", "p1_end"), ("p0_end", "p1_start")):
        shutil.copy(folder / f"{source}.png", folder / f"{name}.png")
    with plain("cache").Cache() as cache:
        first = measure(plain, folder, cache)
        assert [sample.comparison.looks_same for sample in first] == [False, True, False]
        assert measure(plain, folder, cache) == first


def test_only_a_few_images_are_decoded_ahead(plain, tmp_path, decoded):
    for i in range(60):
        for role in ("start", "end"):
            textured(i, (16, 16), 4).save(tmp_path / f"p{i}_{role}.png")
    ahead = []

    def on_progress(done, total):
        if done == 2:
            time.sleep(0.5)  # the decoding runs ahead as far as it may
        ahead.append(len(decoded) - done)

    with plain("cache").Cache() as cache:
        measure(plain, tmp_path, cache, on_progress)
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


def test_a_file_of_the_same_size_and_time_but_other_content_is_noticed(plain, folder, settled):
    path = folder / "p0_end.png"
    with plain("cache").Cache() as cache:
        first, times = cache.digest(path), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
        path.write_bytes(path.read_bytes()[::-1])
        os.utime(path, ns=times)
        assert cache.digest(path) != first


def test_files_of_one_name_in_two_folders_are_both_remembered(plain, folder, tmp_path, settled, opened):
    paths = [folder / "p0_end.png", tmp_path / "p0_end.png"]
    shutil.copy(*paths)
    opened.clear()
    with plain("cache").Cache() as cache:
        for path in paths * 2:
            cache.digest(path)
    assert opened.count("p0_end.png") == 2


def test_large_files_are_read_to_their_end(plain, tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(bytes(2_500_000) + name.encode())
    with plain("cache").Cache() as cache:
        assert cache.digest(tmp_path / "a") != cache.digest(tmp_path / "b")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are always text")
def test_a_name_that_is_no_text_is_remembered_too(plain, tmp_path, settled):
    path = tmp_path / os.fsdecode(b"\xff.png")
    path.write_bytes(b"")
    with plain("cache").Cache() as cache:
        assert cache.digest(path) == cache.digest(path)


@pytest.mark.parametrize("old", [False, True], ids=["new", "with an old date, as copying leaves it"])
def test_a_file_that_has_just_changed_is_always_read(plain, folder, opened, old):
    if old:
        os.utime(folder / "p0_end.png", (1e9, 1e9))
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


def test_the_folder_of_the_cache_is_made_or_done_without(plain, folder, tmp_path):
    for file in (tmp_path / "new" / "er" / "cache.sqlite", folder / "p0_end.png" / "cache.sqlite"):
        with plain("cache").Cache(file) as cache:
            cache.put("key", {"value": 1})
            assert cache.get("key") == {"value": 1}
        assert file.exists() == ("new" in file.parts)


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN; SELECT * FROM results"], ids=["writes", "reads"])
def test_what_another_process_uses_is_waited_for_and_then_done_without(plain, tmp_path, monkeypatch, lock):
    file, connect = tmp_path / "cache.sqlite", sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=timeout / 100))
    with plain("cache").Cache(file) as cache:
        cache.put("key", {"value": 1})
    other = connect(file)
    for statement in lock.split("; "):
        other.execute(statement).fetchall()
    with plain("cache").Cache(file) as cache:
        cache.put("second", {})
        assert cache.get("key") == {"value": 1}
    other.close()
    with plain("cache").Cache(file) as cache:
        assert cache.get("key") and cache.get("second") is None, "what could not be written is not there, the rest is"


def test_a_cache_of_another_shape_is_done_without(plain, folder, tmp_path, settled):
    with sqlite3.connect(tmp_path / "cache.sqlite") as database:
        database.execute("CREATE TABLE files (something)")
        database.execute("CREATE TABLE results (something)")
    with plain("cache").Cache(tmp_path / "cache.sqlite") as cache:
        assert cache.get("key") is None and len(measure(plain, folder, cache)) == 3
