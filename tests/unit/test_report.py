"""The pair doctor: what is wrong, what is odd, what to do next."""
import pytest
from pictures import edited, moved, textured
from PIL import Image


@pytest.fixture
def examine(plain, tmp_path):
    """`examine({"a": (start, end)}, resolution=96)`: the report on these pictures (one alone is unpaired)."""

    def run(samples, captions=None, **reading):
        for name, pictures in samples.items():
            *starts, end = pictures
            for i, start in enumerate(starts):
                start.save(tmp_path / f"{name}_start{i or ''}.png")
            end.save(tmp_path / (f"{name}_end.png" if starts else f"{name}.png"))
        for name, caption in (captions or {}).items():
            (tmp_path / f"{name}.txt").write_text(caption, encoding="utf-8")
        dataset = plain("dataset")
        with plain("cache").Cache() as cache:
            return dataset.examine(tmp_path, dataset.Reading(**{"resolution": 96, **reading}), cache, lambda *_: None)

    return run


def pair(seed=0, size=(96, 96)):
    start = textured(seed, size)
    return start, edited(start, seed + 1000)


def told(report):
    return [(finding.level, finding.code, finding.sample) for finding in report.findings]


def test_clean_pairs_have_no_findings(examine):
    report = examine({"a": pair(1), "b": pair(2)}, {"a": "x", "b": "x"})
    assert report.findings == [] and report.checked


@pytest.mark.parametrize(
    "code, pictures, words",
    [
        ("sizes-differ", (textured(1, (96, 96)), textured(2, (192, 192))), "the input has 96x96, the target 192x192"),
        ("ratios-differ", (textured(1, (192, 96)), textured(2, (96, 96))), "crop them alike"),
        ("start-equals-end", (textured(1, (96, 96)), textured(1, (96, 96))), "are the same picture"),
        ("start-equals-end", (textured(1, (96, 96)), textured(1, (96, 96)).point(lambda v: v + 1)), "look the same"),
        ("misaligned", (textured(1, (256, 256)), moved(textured(1, (256, 256)), right=8)), "pixels right"),
    ],
    ids=["sizes", "ratios", "same", "nearly the same", "shifted"],
)
def test_an_odd_pair_is_a_warning_of_its_sample(examine, code, pictures, words):
    report = examine({"odd": pictures, "fine": pair(7, (256, 256))})
    assert told(report) == [("warning", code, "odd")] and words in report.findings[0].message
    assert [sample.name for sample in report.found.samples] == ["fine", "odd"], "a warning leaves nothing out"


def test_enlarging_is_reported_with_its_factor(examine):
    report = examine({"small": pair(1, (64, 64)), "large": pair(2, (192, 192))}, resolution=128)
    assert told(report) == [("warning", "upscaled", "small")]
    assert "enlarged 2.0 times, from 64x64 pixels, to train at 128" in report.findings[0].message


def test_of_an_animation_the_first_frame_is_used_and_that_is_noted(examine, tmp_path):
    frames = [textured(i, (96, 96)).quantize() for i in range(3)]
    frames[0].save(tmp_path / "a_start.gif", save_all=True, append_images=frames[1:])
    textured(5, (96, 96)).save(tmp_path / "a_end.png")
    (finding,) = examine({}).findings
    assert (finding.level, finding.code) == ("note", "first-frame") and "a_start.gif" in finding.message


def test_the_same_image_in_two_samples_is_a_warning_but_a_shared_further_input_is_not(examine):
    hat = textured(50, (96, 96))
    (a, a_end), (b, b_end), (_, c_end) = pair(1), pair(2), pair(3)
    report = examine({"a": (a, hat, a_end), "b": (b, hat, b_end), "c": (a, hat, c_end)})
    assert told(report) == [("warning", "same-image", "a")]
    assert "a_start.png and c_start.png are the same picture" in report.findings[0].message


def test_an_unreadable_image_leaves_its_sample_out_by_name(examine, tmp_path):
    textured(1, (96, 96)).save(tmp_path / "cut_start.png")
    (tmp_path / "cut_end.png").write_bytes((tmp_path / "cut_start.png").read_bytes()[:-2000])
    (tmp_path / "text_start.png").write_text("no image")
    textured(2, (96, 96)).save(tmp_path / "text_end.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot_end.png")
    textured(3, (96, 96)).save(tmp_path / "dot_start.png")
    report = examine({"fine": pair(4)})
    assert sorted(told(report)) == [("error", "unreadable", name) for name in ("cut", "dot", "text")]
    messages = {finding.sample: finding.message for finding in report.findings}
    assert messages["cut"].startswith("cut_end.png cannot be read") and "1x1" in messages["dot"]
    assert [sample.name for sample in report.found.samples] == ["fine"]
    assert len(report.found.unused) == 6


def test_pairs_among_unpaired_samples_are_a_warning(examine):
    report = examine({"a": pair(1), "b": (textured(2, (96, 96)),)}, {"a": "x", "b": "y"})
    assert told(report) == [("warning", "mixed", None)]
    assert report.text().startswith(f"{report.name}: 1 pairs with 1 input image(s) each and 1 samples without inputs")


def test_equal_messages_are_one_line_and_errors_come_first(examine, tmp_path):
    textured(1, (96, 96)).save(tmp_path / "alone_start.png")
    report = examine({f"p{i}": pair(i, (48, 48)) for i in range(6)})
    text = report.text()
    assert text.count("enlarged") == 1 and "p0, p1, p2 and 3 more: enlarged 2.0 times" in text
    sections = [line for line in text.splitlines() if line and not line.startswith(" ")][2:]
    assert [s.split(" (")[0] for s in sections] == ["errors", "warnings", "not used", "samples", "advice", "checklist"]
    assert "alone: no alone_end image" in text and "alone_start.png (no alone_end image)" in text
    assert "  p0: p0_start.png -> p0_end.png  48x48  no caption" in text


@pytest.mark.parametrize(
    "number, words, steps",
    [(3, "too few", "150"), (15, "simple", "750"), (20, "simple", "1,000"), (30, "medium", "1,500"), (60, "complex", "3,000")],
)
def test_the_advice_tells_what_the_number_is_enough_for_and_how_many_steps(plain, tmp_path, number, words, steps):
    for i in range(number):
        for role in ("start", "end"):
            (tmp_path / f"p{i}_{role}.png").write_bytes(b"")
    first, second = plain("dataset").survey(tmp_path, plain("dataset").Reading()).advice()[:2]
    assert first.startswith(f"{number} samples") and words in first
    assert second.startswith(f"train about {steps} steps")


def test_the_advice_tells_how_consistent_the_sizes_are(examine):
    assert "the targets are all of one size" in examine({"a": pair(1), "b": pair(2)}).advice()
    (line,) = [line for line in examine({"c": pair(3, (192, 96))}).advice() if "sizes" in line]
    assert line.startswith("the targets have 2 sizes, trained in 2 shape(s)")


def test_captions_and_pictures_are_grouped_and_thin_groups_named(examine):
    pairs, captions = {}, {}
    for i in range(12):
        dark = 0 if i < 10 else 1
        start = textured(i, (96, 96)).point(lambda v, dark=dark: v // 8 if dark else 160 + v // 4)
        pairs[f"p{i}"] = start, edited(start, i + 100)
        captions[f"p{i}"] = "give the cat a hat" if dark else "remove the background from the photo"
    advice = examine(pairs, captions).advice()
    assert "the captions are of 2 kinds: “remove the background from the photo” (10); “give the cat a hat” (2)" in advice
    assert "kinds with fewer than 5 samples, add more if you need them: “give the cat a hat” (p10 and p11)" in advice
    assert "the pictures are of 2 kinds: like p0 (10); like p10 (2)" in advice
    assert "kinds with fewer than 5 samples, add more if you need them: like p10 (p10 and p11)" in advice


def test_captions_of_one_kind_or_of_countless_kinds_are_said_to_be_so(examine):
    assert "the captions are all of one kind" in examine({"a": pair(1), "b": pair(2)}, {"a": "x", "b": "x"}).advice()
    words = [chr(97 + i) * 5 for i in range(20)]
    report = examine({f"q{w}": pair(i) for i, w in enumerate(words)}, {f"q{w}": f"{w} {w * 2}" for w in words})
    assert "the captions are too varied to group by likeness" in report.advice()


CHECKLIST = [
    "The images cover every way in which the LoRA will be used",
    "The names are right: every file is used",
    "Captions are there, or are not needed",
    "Steps are set (start with 1,000)",
    "The learning rate is set (start with 1e-4)",
    "It is trained",
    "It is tested on inputs that it was not trained on",
]


def test_the_report_ends_with_the_checklist_ticked_where_files_prove_it(examine, tmp_path):
    def last(report):
        lines = [line.strip() for line in report.text().splitlines()[-7:]]
        assert [line[4:] for line in lines] == CHECKLIST
        return [line[:3] == "[x]" for line in lines]

    assert last(examine({"a": pair(1)})) == [False, True, False, False, False, False, False]
    assert last(examine({}, {"a": "x"})) == [False, True, True, False, False, False, False]
    (tmp_path / "notes.pdf").write_bytes(b"")
    assert last(examine({})) == [False, False, True, False, False, False, False]


def test_a_long_report_is_cut_only_where_that_is_asked_for(examine):
    report = examine({f"p{i}": pair(i) for i in range(8)})
    assert report.text(3).count(" -> ") == 3 and "  ... and 5 more" in report.text(3)
    assert report.text().count(" -> ") == 8
