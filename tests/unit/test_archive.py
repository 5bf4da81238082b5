"""Hostile zips: nothing is written outside the folder, and after an error nothing is left in it."""
import random
import stat
import struct
import zipfile
from types import SimpleNamespace

import pytest
from unsafe import UNSAFE

PICTURE = b"\x89PNG not decoded here"
GOOD = {"a_start.png": PICTURE, "a_end.png": PICTURE, "a.txt": b"caption"}


@pytest.fixture
def archive(plain):
    return plain("archive")


@pytest.fixture
def error(plain):
    return plain("pairs").DatasetError


@pytest.fixture
def into(tmp_path):
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def listing(folder):
    """Every file of a folder with its content, and every folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def make_zip(path, entries, compression=zipfile.ZIP_DEFLATED):
    """A zip of names, or ZipInfos, and contents."""
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, content in entries.items() if isinstance(entries, dict) else entries:
            made.writestr(name, content)
    return path


def test_images_and_texts_are_unpacked_with_their_folders(archive, into, tmp_path):
    entries = {f"{side}/{name}": data for side in ("before", "after") for name, data in GOOD.items()}
    packed = make_zip(tmp_path / "x.zip", entries)
    seen = []
    assert archive.unpack(packed, into, progress=lambda done, total: seen.append((done, total))) == []
    assert listing(into / "before") == listing(into / "after") == GOOD
    assert seen[-1] == (2 * sum(map(len, GOOD.values())),) * 2


def test_unsafe_names_are_listed_and_never_written(archive, into, tmp_path):
    names = [name for name in UNSAFE if name and not {"\0", "\ud800"} & set(name)]  # no zip has the others
    packed = make_zip(tmp_path / "x.zip", [*GOOD.items(), *((name, PICTURE) for name in names)])
    skipped = archive.unpack(packed, into)
    assert [name for name, _ in skipped] == names
    assert all(reason.startswith("an unsafe name: ") for _, reason in skipped)
    assert listing(into) == GOOD and sorted(p.name for p in tmp_path.iterdir()) == ["into", "x.zip"]


def test_a_nul_in_a_name_does_not_hide_its_end(archive, into, tmp_path):
    packed = make_zip(tmp_path / "x.zip", {**GOOD, "evil.png?.exe": PICTURE})
    packed.write_bytes(packed.read_bytes().replace(b"evil.png?.exe", b"evil.png\0.exe"))
    assert archive.unpack(packed, into) == [("evil.png\0.exe", "an unsafe name: it holds invisible characters")]
    assert listing(into) == GOOD


@pytest.mark.parametrize("kind, reason", [(stat.S_IFLNK, "a symbolic link"), (stat.S_IFIFO, "not an ordinary file"),
                                          (stat.S_IFBLK, "not an ordinary file")])  # fmt: skip
def test_links_and_devices_are_listed(archive, into, tmp_path, kind, reason):
    link = zipfile.ZipInfo("before")
    link.create_system, link.external_attr = 3, (kind | 0o777) << 16
    packed = make_zip(tmp_path / "x.zip", [(link, str(tmp_path)), ("before/b_start.png", PICTURE), *GOOD.items()])
    assert archive.unpack(packed, into) == [("before", reason)]
    assert listing(into) == {"before": None, "before/b_start.png": PICTURE, **{k: GOOD[k] for k in GOOD}}
    assert not (into / "before").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["into", "x.zip"]


def test_what_is_no_image_or_text_is_listed(archive, into, tmp_path):
    others = {"__MACOSX/._a_start.png": "a hidden file", ".DS_Store": "a hidden file", ".git/a.png": "a hidden file",
              "more.zip": "an archive inside; unpack it first", "a.exe": "neither an image nor a caption",
              "noext": "neither an image nor a caption"}  # fmt: skip
    packed = make_zip(tmp_path / "x.zip", [*GOOD.items(), *((name, b"x") for name in others), ("empty/", b"")])
    assert dict(archive.unpack(packed, into)) == others
    assert listing(into) == GOOD


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_some_disk_takes_for_one_are_listed(archive, into, tmp_path):
    twice = [("a_start.png", b"x"), ("A_START.png", b"x"), ("é.png", b"first"), ("e\u0301.png", b"x"),
             ("a_end.png/b.png", b"x"), ("c/d.png", b"first"), ("c", b"x"), ("C.png", b"first"),
            ("./c.png", b"x")]  # fmt: skip
    skipped = archive.unpack(make_zip(tmp_path / "x.zip", [*GOOD.items(), *twice]), into)
    assert [name for name, _ in skipped] == [
        "a_start.png", "A_START.png", "e\u0301.png", "a_end.png/b.png", "c", "./c.png"]  # fmt: skip
    assert listing(into) == {**GOOD, "é.png": b"first", "c": None, "c/d.png": b"first", "C.png": b"first"}


def test_names_from_macos_are_read_as_utf8(archive, into, tmp_path):
    """Its Archive Utility does not set the flag for UTF-8."""
    packed = make_zip(tmp_path / "x.zip", {"cafXX_start.png": PICTURE})
    packed.write_bytes(packed.read_bytes().replace(b"cafXX", "café".encode()))
    archive.unpack(packed, into)
    assert listing(into) == {"café_start.png": PICTURE}


def refused(archive, error, into, packed, message, **options):
    """The zip is refused with the message, and everything is as it was."""
    before = listing(into.parent)
    with pytest.raises(error, match=message):
        archive.unpack(packed, into, **options)
    assert listing(into.parent) == before and not list(into.iterdir())


def test_a_bomb_is_stopped(archive, error, into, tmp_path):
    """What unpacks to more than 200 times its size counts, in all files together."""
    packed = make_zip(tmp_path / "x.zip", {**GOOD, "y.png": bytes(2 << 20), "sub/z.png": bytes(2 << 20)})
    limits = archive.Limits(flat=3 << 20)
    refused(archive, error, into, packed, r"x\.zip unpacks to more than 200 times its size.*\(sub/z\.png\)", limits=limits)
    archive.unpack(packed, into, archive.Limits(flat=4 << 20))


def test_flat_pictures_are_no_bomb(archive, into, tmp_path):
    flat = {f"a_{role}.bmp": bytes(48 << 20) for role in ("start", "end")}
    archive.unpack(make_zip(tmp_path / "x.zip", flat), into)
    assert listing(into) == flat


def test_captions_and_lists_of_other_trainers_are_unpacked(archive, into, tmp_path):
    files = {"a_start.jfif": PICTURE, "a.caption": b"x", "metadata.csv": b"image,prompt", "x.json": b"[]", "y.jsonl": b""}
    assert archive.unpack(make_zip(tmp_path / "x.zip", files), into) == []
    assert listing(into) == files


def test_lists_and_sizes_have_limits(archive, error, into, tmp_path):
    packed = make_zip(tmp_path / "x.zip", GOOD)
    refused(archive, error, into, packed, r"x\.zip holds 3 files; the limit is 2", limits=archive.Limits(files=2))
    refused(archive, error, into, packed, r"x\.zip unpacks to 0\.0 GB; the limit", limits=archive.Limits(bytes=20))


def patch_directory(packed, name, **fields):
    """Change what the list of contents says of an entry."""
    data = bytearray(packed.read_bytes())
    at = data.index(b"PK\x01\x02", 0)
    while data[at + 46 : at + 46 + len(name)] != name.encode():
        at = data.index(b"PK\x01\x02", at + 4)
    offsets = {"flags": (8, "<H"), "method": (10, "<H"), "packed_size": (20, "<I"), "size": (24, "<I")}
    for field, value in fields.items():
        struct.pack_into(offsets[field][1], data, at + offsets[field][0], value)
    packed.write_bytes(data)


def test_declared_sizes_are_not_believed(archive, error, into, tmp_path):
    """1 MB that is said to be 10 bytes, and 10 bytes that are said to be 100."""
    noise = random.Random(0).randbytes(1000)
    for real, said in ((noise * 1000, 10), (noise[:10], 100)):
        packed = make_zip(tmp_path / "x.zip", {**GOOD, "z.png": real})
        patch_directory(packed, "z.png", size=said)
        refused(archive, error, into, packed, r"x\.zip: z\.png (cannot be unpacked|is not as long)")


def test_the_total_is_counted_while_unpacking(archive, error, into, tmp_path, monkeypatch):
    packed = make_zip(tmp_path / "x.zip", GOOD)
    read = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: read(self, n) and bytes(3000))  # lies to the end
    refused(archive, error, into, packed, r"x\.zip unpacks to more than the limit", limits=archive.Limits(bytes=2000))


def test_entries_over_each_other_are_refused(archive, error, into, tmp_path):
    """The many small entries of a bomb without nesting share one packed block."""
    entries = {"a.png": random.Random(0).randbytes(5000), "b.png": b"b"}
    packed = make_zip(tmp_path / "x.zip", entries, zipfile.ZIP_STORED)
    patch_directory(packed, "b.png", packed_size=5000, size=5000)
    refused(archive, error, into, packed, "entries that lie over each other")


def test_a_full_disk_is_named_before_anything_is_written(archive, error, into, tmp_path, monkeypatch):
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: SimpleNamespace(free=20))
    refused(archive, error, into, make_zip(tmp_path / "x.zip", GOOD), "the disk has 0.0 GB free")


def test_an_encrypted_zip_is_refused(archive, error, into, tmp_path):
    packed = make_zip(tmp_path / "x.zip", GOOD)
    patch_directory(packed, "a.txt", flags=1)
    refused(archive, error, into, packed, r"x\.zip: a\.txt is encrypted.*without a password")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 9, 93])
def test_packings_that_could_fill_the_memory_are_refused(archive, error, into, tmp_path, method):
    packed = make_zip(tmp_path / "x.zip", GOOD)
    patch_directory(packed, "a_end.png", method=method)
    refused(archive, error, into, packed, r"x\.zip: a_end\.png is not packed with deflate")


def test_a_changed_byte_is_found(archive, error, into, tmp_path):
    packed = make_zip(tmp_path / "x.zip", GOOD, zipfile.ZIP_STORED)
    packed.write_bytes(packed.read_bytes().replace(b"caption", b"captiom"))
    refused(archive, error, into, packed, r"x\.zip: a\.txt cannot be unpacked \(Bad CRC-32")


def test_what_is_cut_off_or_no_zip_is_refused(archive, error, into, tmp_path):
    whole = make_zip(tmp_path / "x.zip", GOOD).read_bytes()
    for content in (whole[:-40], whole[: len(whole) // 2], b"", b"no zip at all"):
        (tmp_path / "x.zip").write_bytes(content)
        refused(archive, error, into, tmp_path / "x.zip", r"x\.zip cannot be unpacked.*Make the zip again")


def test_a_huge_list_of_contents_is_not_read(archive, error, into, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LONGEST_LIST", 100)
    refused(archive, error, into, make_zip(tmp_path / "x.zip", GOOD), "list of contents is too long")


def test_stopping_leaves_nothing(archive, into, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.unpack(make_zip(tmp_path / "x.zip", {"sub/a.png": PICTURE, **GOOD}), into, progress=stop)
    assert not list(into.iterdir())


def test_a_folder_that_is_not_empty_is_left_alone(archive, error, into, tmp_path):
    (into / "mine.txt").write_text("mine")
    with pytest.raises(error, match="not empty"):
        archive.unpack(make_zip(tmp_path / "x.zip", GOOD), into)
    assert listing(into) == {"mine.txt": b"mine"}


def test_mutated_zips_write_nothing_outside(archive, error, into, tmp_path):
    """Whatever gets through lies in the folder."""
    rng = random.Random(7)
    entries = {**GOOD, "before/b.png": PICTURE * 20, "../up.png": PICTURE, "more/deep/c.jpg": bytes(5000)}
    whole = make_zip(tmp_path / "x.zip", entries).read_bytes()
    directory, outcomes = whole.index(b"PK\x01\x02"), {True: 0, False: 0}
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            at = rng.randrange(directory, len(data)) if rng.random() < 0.7 else rng.randrange(len(data))
            if rng.random() < 0.1:
                del data[at : at + rng.randrange(1, 50)]
            else:
                data[at % len(data)] = rng.choice((0, 1, 0xFF, 0x2F, 0x5C, rng.randrange(256)))
        (tmp_path / "x.zip").write_bytes(data)
        try:
            archive.unpack(tmp_path / "x.zip", into)
            outcomes[True] += 1
        except error:
            outcomes[False] += 1
            assert not list(into.iterdir())
        assert sorted(p.name for p in tmp_path.iterdir()) == ["into", "x.zip"]
        for path in list(into.iterdir()):
            archive.shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert min(outcomes.values()) > 50, outcomes


def test_a_folder_gets_a_free_name(archive, tmp_path):
    def place(name, content):
        folder = tmp_path / ".staging"
        folder.mkdir()
        (folder / "a.txt").write_text(content)
        return archive.move_to_free(folder, tmp_path, name).name

    (tmp_path / "taken").write_text("a file")
    assert [place("pairs", "1"), place("pairs", "2"), place("taken", "3")] == ["pairs", "pairs_02", "taken_02"]
    assert (tmp_path / "pairs/a.txt").read_text() == "1" and (tmp_path / "taken").read_text() == "a file"


def test_a_race_for_a_name_overwrites_nothing(archive, tmp_path, monkeypatch):
    """Another server makes the folder between the look and the move."""
    exists, raced = archive.os.path.lexists, []

    def lexists(path):
        there = exists(path)
        if not raced and path.name == "pairs":
            raced.append(path.mkdir())
            (path / "a.txt").write_text("theirs")
        return there

    monkeypatch.setattr(archive.os.path, "lexists", lexists)
    (tmp_path / ".staging").mkdir()
    assert archive.move_to_free(tmp_path / ".staging", tmp_path, "pairs").name == "pairs_02"
    assert (tmp_path / "pairs/a.txt").read_text() == "theirs"


def test_the_folder_that_holds_everything_is_found(archive, tmp_path):
    (tmp_path / "one/two/before").mkdir(parents=True)
    (tmp_path / "one/two/after").mkdir()
    assert archive.content_root(tmp_path) == tmp_path / "one/two"
    (tmp_path / "a.txt").touch()
    assert archive.content_root(tmp_path) == tmp_path
