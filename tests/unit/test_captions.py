"""Captions: read as they were meant, or reported; never mangled."""
import pytest


@pytest.fixture(scope="session")
def captions(plain):
    return plain("captions")


@pytest.fixture
def survey(plain, tmp_path):
    """`survey({"a.txt": b"..."}, trigger_word="x")`: the report on pairs a and b and these files."""

    def run(files=None, pairs=("a", "b"), **reading):
        for name in pairs:
            for role in ("start", "end"):
                (tmp_path / f"{name}_{role}.png").write_bytes(b"")
        for name, content in (files or {}).items():
            (tmp_path / name).write_bytes(content)
        return plain("dataset").survey(tmp_path, plain("dataset").Reading(**reading))

    return run


@pytest.mark.parametrize(
    "content, text",
    [
        ("ändere den Hut, 帽子".encode(), "ändere den Hut, 帽子"),
        ("ändere".encode("utf-8-sig"), "ändere"),
        (b"one\r\ntwo\rthree\n\n", "one\ntwo\nthree"),
        (b"  \n", ""),
        (b"", ""),
        (b"word " * 2000, "word " * 1999 + "word"),
    ],
    ids=["utf-8", "bom", "line ends", "blank", "empty", "long"],
)
def test_utf8_is_read_with_or_without_bom_and_any_line_ends(captions, tmp_path, content, text):
    (tmp_path / "a.txt").write_bytes(content)
    assert captions.read(tmp_path / "a.txt") == (text, None)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf16_is_read_and_remarked(captions, tmp_path, encoding):
    bom = b"\xfe\xff" if encoding.endswith("be") else b""
    (tmp_path / "a.txt").write_bytes(bom + "ändere".encode(encoding))
    text, remark = captions.read(tmp_path / "a.txt")
    assert text == "ändere" and "save it as UTF-8" in remark


@pytest.mark.parametrize(
    "content",
    ["ändere den Hut".encode("latin-1"), "hat".encode("utf-16-le"), "hat".encode("utf-32"), b"x" * 200_000, b"\xff\xfe\x00"],
    ids=["latin-1", "utf-16 without BOM", "utf-32", "long", "half a character"],
)  # fmt: skip
def test_what_cannot_be_told_is_an_error_that_names_the_file(plain, captions, tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(plain("pairs").DatasetError, match="a.txt"):
        captions.read(tmp_path / "a.txt")


def test_a_caption_that_cannot_be_opened_is_named(plain, captions, tmp_path):
    with pytest.raises(plain("pairs").DatasetError, match="gone.txt cannot be read"):
        captions.read(tmp_path / "gone.txt")


@pytest.mark.parametrize("name", ["a.txt", "a_end.txt", "a_start.txt", "a_END.TXT"])
def test_a_caption_lies_beside_the_images(survey, name):
    report = survey({name: b"remove the hat"}, pairs=("a",))
    assert report.captions == {"a": "remove the hat"} and not report.found.unused and not report.findings


def test_the_samples_own_caption_counts_before_the_others(survey):
    report = survey({"a_start.txt": b"start", "a.txt": b"own", "a_end.txt": b"end"}, pairs=("a",))
    assert report.captions == {"a": "own"}
    assert sorted(report.found.unused) == [("a_end.txt", "a.txt is the caption"), ("a_start.txt", "a.txt is the caption")]
    assert [f.code for f in report.findings] == ["several-captions"] * 2


def test_a_default_caption_stands_in_and_a_trigger_word_goes_in_front(survey):
    files = {"a.txt": b"remove the hat"}
    assert survey(files, default_caption=" edit ").captions == {"a": "remove the hat", "b": "edit"}
    assert survey(files, trigger_word="zzhat").captions == {"a": "zzhat, remove the hat", "b": "zzhat"}


def test_samples_without_a_caption_are_counted_where_others_have_one(survey):
    assert "1 sample without" in survey({"a.txt": b"x"}, trigger_word="zz").findings[0].message
    (finding,) = survey({"a.txt": b"x"}, pairs=("a", "b", "c")).findings
    assert (finding.code, finding.level) == ("no-caption", "warning") and "2 samples without" in finding.message
    assert not survey({"a.txt": b"x"}, default_caption="y").findings


def test_no_captions_at_all_are_a_warning_unless_something_stands_in(survey):
    (finding,) = survey(pairs="abcdef").findings
    assert (finding.level, finding.code) == ("warning", "no-caption") and "no sample has a caption" in finding.message
    assert not survey(default_caption="y").findings and not survey(trigger_word="zz").findings
    assert [f.code for f in survey(default_caption=" \u200b", trigger_word="\u2060").findings] == ["no-caption"], "invisible"


@pytest.mark.parametrize("blank", [
    "\u200b", "\u200b\u200c\u200d\ufeff", "\u2060 \n\u00ad", "\u3164", "\u2800", "\u200e\u202a\u202c", "\x0c\x1b", "\u115f",
], ids=ascii)  # fmt: skip
def test_what_shows_nothing_is_empty(survey, captions, tmp_path, blank):
    report = survey({"a.txt": blank.encode(), "b.txt": f"{blank}remove\u200b it{blank}".encode()})
    assert [(f.code, f.sample) for f in report.findings] == [("empty-caption", "a")]
    assert report.captions == {"a": "", "b": "remove\u200b it"}


def test_a_caption_that_no_text_encoder_reads_to_its_end_is_told(survey):
    report = survey({"a.txt": b"word " * 15_000, "b.txt": b"word " * 300})
    assert [(f.level, f.code, f.sample) for f in report.findings] == [("warning", "long-caption", "a")]
    assert "74,999 characters" in report.findings[0].message
    assert [f.sample for f in survey({"a.txt": b"", "b.txt": b""}, trigger_word="x" * 3000).findings[:2]] == ["a", "b"]


def test_a_caption_that_is_no_text_is_written_out(survey):
    """Half an emoji, as a program may cut it; no file and no tokenizer takes that."""
    assert survey(default_caption="hat \ud83d").captions["a"] == "hat \\ud83d"


def test_an_empty_caption_is_allowed_warned_of_and_counted(survey):
    report = survey({"a.txt": b"", "b.txt": b"x"}, trigger_word="zzhat")
    assert report.captions == {"a": "zzhat", "b": "zzhat, x"}
    assert [(f.code, f.sample) for f in report.findings] == [("empty-caption", "a")]
    assert "2 with a caption (1 empty)" in report.text()


def test_an_empty_caption_is_meant_so_no_default_stands_in(survey):
    assert survey({"a.txt": b""}, default_caption="edit").captions == {"a": "", "b": "edit"}


def test_a_caption_in_another_encoding_leaves_its_sample_out_by_name(survey):
    report = survey({"a.txt": "ändere".encode("latin-1"), "b.txt": b"x"})
    assert [sample.name for sample in report.found.samples] == ["b"]
    assert [(f.level, f.code, f.sample) for f in report.findings] == [("error", "caption-encoding", "a")]
    assert report.findings[0].message.startswith("a.txt is not UTF-8"), "named as in the folder"
    assert {file for file, reason in report.found.unused if "UTF-8" in reason} == {"a_start.png", "a_end.png", "a.txt"}


def test_utf16_is_a_warning_of_its_sample(survey):
    report = survey({"a.txt": "hat".encode("utf-16"), "b.txt": b"x"})
    assert report.captions["a"] == "hat"
    assert [(f.level, f.code, f.sample) for f in report.findings] == [("warning", "caption-encoding", "a")]
