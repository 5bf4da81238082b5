"""The pair doctor: what is wrong, what is odd, what to do next."""
from dataclasses import replace
from itertools import product

import numpy as np
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
            report = dataset.examine(tmp_path, dataset.Reading(**{"resolution": 96, **reading}), cache, lambda *_: None)
        report.found.findings = [f for f in report.found.findings if f.code != "no-caption" or captions is not None]
        return report

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
        ("ratios-differ", (textured(1, (192, 96)), textured(1, (192, 96)).resize((96, 96))), "different aspect ratios"),
        ("ratios-differ", (Image.new("RGB", (192, 96)), Image.new("RGB", (96, 192))), "different aspect ratios"),
        ("start-equals-end", (textured(1, (96, 96)), textured(1, (96, 96))), "are the same picture"),
        ("start-equals-end", (textured(1, (96, 96)), textured(1, (96, 96)).point(lambda v: v + 1)), "look the same"),
        ("misaligned", (textured(1, (256, 256)), moved(textured(1, (256, 256)), right=8)), "pixels right"),
    ],
    ids=["sizes", "ratios", "squeezed", "turned", "same", "nearly the same", "shifted"],
)
def test_an_odd_pair_is_a_warning_of_its_sample(examine, code, pictures, words):
    report = examine({"odd": pictures, "fine": pair(7, (256, 256))})
    assert told(report) == [("warning", code, "odd")] and words in report.findings[0].message
    assert [sample.name for sample in report.found.samples] == ["fine", "odd"], "a warning leaves nothing out"


def see_through(image):
    """The picture with a hole in it."""
    image = image.copy()
    image.putalpha(255)
    image.paste((9, 9, 9, 0), (0, 0, 20, 20))
    return image


@pytest.mark.parametrize("background, told_of", [
    ("as LoadImage", {"input": "an input has", "target": "the target has", "both": "an input and the target have", "alone": "the image has"}),
    ("White", {"input": "an input has", "both": "an input has"}),
])  # fmt: skip
def test_what_becomes_of_transparent_parts_is_told(examine, background, told_of):
    start, end = pair(1)
    samples = {"input": (see_through(start), end), "target": (start, see_through(end)), "opaque": pair(2),
               "both": (see_through(textured(3, (96, 96))), see_through(textured(4, (96, 96)))),
               "alone": (see_through(textured(5, (96, 96))),)}  # fmt: skip
    findings = [f for f in examine(samples, {"alone": "x"}, background=background).findings if f.code == "transparent"]
    assert {f.sample: f.message.split(" transparent parts")[0] for f in findings} == told_of
    words = "what lies under them is trained on" if background == "as LoadImage" else "put over White here"
    assert all(f.level == "warning" and words in f.message and "ComfyUI's LoadImage" in f.message for f in findings)


def test_an_edit_that_is_only_in_the_alpha_is_seen_as_what_is_trained_on(examine):
    """A cut-out often keeps the background under its alpha: nothing to learn, unless it is put over a colour."""
    picture = textured(1, (96, 96))
    cut = picture.copy()
    cut.putalpha(Image.radial_gradient("L").resize((96, 96)))
    assert ("warning", "start-equals-end", "a") in told(examine({"a": (picture, cut)}))
    assert ("warning", "start-equals-end", "a") not in told(examine({"a": (picture, cut)}, background="white"))


def test_grey_of_more_than_8_bits_is_told(examine, tmp_path):
    deep = Image.fromarray(np.linspace(0, 65535, 96 * 96).astype(np.uint16).reshape(96, 96))
    report = examine({"a": (deep, deep.rotate(180)), "b": pair(2)})
    assert told(report) == [("warning", "more-than-8-bits", "a")] and "an input and the target have" in report.findings[0].message


def test_profiles_that_differ_within_a_pair_are_told(examine, tmp_path, monkeypatch, plain):
    images = plain("images")
    shown = {"a_start.png": ("Display P3", (1,)), "b_start.png": ("Display P3", (1,)), "b_end.png": ("Display P3", (1,))}
    header = images.header
    monkeypatch.setattr(
        images, "header", lambda path: replace(header(path), **dict(zip(("profile", "shown"), shown.get(path.name, ("", ())))))
    )
    report = examine({"a": pair(1), "b": pair(2), "c": pair(3)})
    assert told(report) == [("warning", "profiles-differ", "a")]
    assert "an input is in Display P3, the target in sRGB" in report.findings[0].message


def test_a_small_edit_is_an_edit(examine):
    start, end = textured(1, (96, 96)), textured(1, (96, 96))
    end.paste(end.crop((40, 40, 52, 52)).point(lambda v: v + 30), (40, 40))
    assert examine({"a": (start, end)}).findings == []


def test_enlarging_is_reported_with_its_factor(examine):
    sizes = {"small": (64, 64), "less": (96, 96), "low": (208, 76), "high": (76, 208), "large": (192, 192), "rounding": (127, 127)}
    report = examine({name: pair(i, size) for i, (name, size) in enumerate(sizes.items())}, resolution=128)
    assert [(f.code, f.sample, f.message) for f in report.findings] == [
        ("upscaled", "high", "enlarged 1.1 times, from 76x208 pixels, to train at 128"),
        ("upscaled", "less", "enlarged 1.3 times, from 96x96 pixels, to train at 128"),
        ("upscaled", "low", "enlarged 1.1 times, from 208x76 pixels, to train at 128"),
        ("upscaled", "small", "enlarged 2.0 times, from 64x64 pixels, to train at 128"),
    ]


def test_of_a_sample_the_image_that_is_enlarged_most_is_told(examine):
    report = examine({"a": (textured(1, (96, 48)), textured(2, (64, 64)), textured(3, (96, 96)))})
    assert told(report) == [("warning", "ratios-differ", "a"), ("warning", "upscaled", "a")]
    assert "1.5 times, from 64x64" in report.findings[1].message


@pytest.mark.parametrize("animated, still", [("start", "end"), ("end", "start")])
def test_of_an_animation_the_first_frame_is_used_and_that_is_noted(examine, tmp_path, animated, still):
    frames = [textured(i, (96, 96)).quantize() for i in range(3)]
    frames[0].save(tmp_path / f"a_{animated}.gif", save_all=True, append_images=frames[1:])
    textured(5, (96, 96)).save(tmp_path / f"a_{still}.png")
    (finding,) = examine({}).findings
    assert (finding.level, finding.code) == ("note", "first-frame") and f"a_{animated}.gif" in finding.message


def test_the_same_image_in_two_samples_is_a_warning_but_a_shared_further_input_is_not(examine):
    hat = textured(50, (96, 96))
    (a, a_end), (b, b_end), (_, c_end) = pair(1), pair(2), pair(3)
    report = examine({"a": (a, hat, a_end), "b": (b, hat, b_end), "c": (a, hat, c_end), "d": (pair(4)[0], b_end)})
    assert told(report) == [("warning", "same-image", "a"), ("warning", "same-image", "b")]
    assert "a_start.png and c_start.png are the same picture" in report.findings[0].message
    assert "b_end.png and d_end.png are the same picture" in report.findings[1].message


def test_an_unreadable_image_leaves_its_sample_out_by_name(examine, tmp_path):
    textured(1, (192, 192)).save(tmp_path / "cut_start.png")
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
    assert "the targets are all of one size" in report.advice(), "the advice is on what is used"


def test_pairs_among_unpaired_samples_are_a_warning(examine):
    report = examine({"a": pair(1), "b": (textured(2, (96, 96)),)}, {"a": "x", "b": "y"})
    assert told(report) == [("warning", "mixed", None)]
    assert report.text().startswith(f"{report.name}: 1 pair with 1 input image each and 1 sample without inputs")
    assert "\n  some samples have inputs and some have none" in report.text(), "no name stands before it"


def test_a_text_to_image_dataset_is_in_order(examine):
    report = examine({"a": (textured(1, (96, 96)),), "b": (textured(2, (96, 96)),)}, {"a": "x", "b": "y"})
    assert report.findings == [] and report.text().startswith(f"{report.name}: 2 samples without inputs (text to image), 2 with")


def test_equal_messages_are_one_line_and_errors_come_first(examine, tmp_path):
    textured(1, (96, 96)).save(tmp_path / "alone_start.png")
    report = examine({f"p{i}": pair(i, (48, 48)) for i in range(6)})
    text = report.text()
    assert [finding.level for finding in report.findings] == ["error"] + ["warning"] * 6
    assert text.count("enlarged") == 1 and "p0, p1, p2 and 3 more: enlarged 2.0 times" in text
    sections = [line for line in text.splitlines() if line and not line.startswith(" ")][2:]
    assert [s.split(" (")[0] for s in sections] == ["errors", "warnings", "not used", "samples", "advice", "checklist"]
    assert "alone: no alone_end image" in text and "alone_start.png (no alone_end image)" in text
    assert "  p0: p0_start.png -> p0_end.png  48x48  no caption" in text


def test_up_to_four_names_are_listed_in_full(examine):
    assert "p0, p1, p2 and p3: enlarged" in examine({f"p{i}": pair(i, (48, 48)) for i in range(4)}).text()


@pytest.fixture
def advised(plain, tmp_path):
    """The advice on pairs with these captions, of which no image is looked at."""

    def run(captions):
        for i, caption in enumerate(captions):
            for file in (f"p{i}_start.png", f"p{i}_end.png", f"p{i}.txt"):
                (tmp_path / file).write_text(caption if file.endswith("txt") else "", encoding="utf-8")
        return plain("dataset").survey(tmp_path, plain("dataset").Reading()).advice()

    return run


@pytest.mark.parametrize(
    "number, words, steps",
    [(3, "too few", "150"), (14, "too few", "700"), (15, "enough for a simple", "750"), (20, "enough for a simple", "1,000"),
     (29, "enough for a simple", "1,450"), (30, "medium", "1,500"), (59, "medium", "2,950"), (60, "complex", "3,000")],
)  # fmt: skip
def test_the_advice_tells_what_the_number_is_enough_for_and_how_many_steps(advised, number, words, steps):
    first, second = advised(["x"] * number)[:2]
    assert first.startswith(f"{number} samples") and words in first
    assert second.startswith(f"train about {steps} steps")


def test_the_advice_tells_how_consistent_the_sizes_are(examine):
    assert "the targets are all of one size" in examine({"a": pair(1), "b": pair(2)}).advice()
    (line,) = [line for line in examine({"c": pair(3, (192, 96))}).advice() if "sizes" in line]
    assert line.startswith("the targets have 2 sizes, trained in 2 shapes")


def test_captions_and_pictures_are_grouped_and_thin_groups_named(examine):
    pairs, captions = {}, {}
    for i in range(12):
        dark = i < 2
        start = textured(i, (96, 96)).point(lambda v, dark=dark: v // 8 if dark else 160 + v // 4)
        pairs[f"p{i}"] = start, edited(start, i + 100)
        captions[f"p{i}"] = "give the cat a hat" if dark else "remove the background from the photo"
    advice = examine(pairs, captions).advice()
    assert "the captions are of 2 kinds: “remove the background from the photo” (10); “give the cat a hat” (2)" in advice
    assert "kinds with fewer than 5 samples, add more if you need them: “give the cat a hat” (p0 and p1)" in advice
    assert "the pictures are of 2 kinds: like p2 (10); like p0 (2)" in advice
    assert "kinds with fewer than 5 samples, add more if you need them: like p0 (p0 and p1)" in advice


def test_captions_that_share_half_of_their_words_are_of_one_kind_and_five_are_enough(advised):
    long = "put a tall pointed wizard hat with silver stars on the cat"
    advice = advised(["Add a red hat.", "add a blue hat", "Add, a green hat"] * 2 + [long] * 4 + ["remove it"] * 5)
    kinds = [line.split(": ")[1] for line in advice if "kinds" in line]
    label = "“put a tall pointed wizard hat with silve…”"
    assert kinds == [f"“Add a red hat.” (6); “remove it” (5); {label} (4)", f"{label} (p6, p7 and p8)"]


def test_captions_of_one_kind_or_of_countless_kinds_are_said_to_be_so(examine):
    assert "the captions are all of one kind" in examine({"a": pair(1), "b": pair(2)}, {"a": "x", "b": "x"}).advice()


@pytest.mark.parametrize("number, words", [(12, "are of 12 kinds"), (13, "are too varied to group by likeness")])
def test_beyond_twelve_kinds_captions_and_pictures_are_too_varied(examine, number, words):
    colours = list(product((0, 128, 255), repeat=3))[:number]
    samples = {f"p{i}": (Image.new("RGB", (32, 32), colour), textured(i, (32, 32), 4)) for i, colour in enumerate(colours)}
    advice = examine(samples, {name: f"{name} {name}x" for name in samples}, resolution=32).advice()
    assert [what for what in ("captions", "pictures") if any(f"the {what} {words}" in line for line in advice)] == [
        "captions", "pictures",
    ]  # fmt: skip


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

    assert last(examine({})) == [False] * 7 and examine({}).advice() == [], "an empty folder proves nothing"
    assert last(examine({"a": pair(1)})) == [False, True, False, False, False, False, False]
    assert last(examine({}, {"a": "x"})) == [False, True, True, False, False, False, False]
    assert last(examine({"b": pair(2)})) == [False, True, False, False, False, False, False]
    (tmp_path / "notes.pdf").write_bytes(b"")
    assert last(examine({}, {"b": "y"})) == [False, False, True, False, False, False, False]


def test_a_long_report_is_cut_only_where_that_is_asked_for(examine):
    report = examine({f"p{i}": pair(i) for i in range(8)})
    assert report.text(3).count(" -> ") == 3 and "  ... and 5 more" in report.text(3)
    assert report.text().count(" -> ") == 8
