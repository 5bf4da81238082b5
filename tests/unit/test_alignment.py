"""Shift and zoom between input and target, measured although the picture was edited."""
import pytest
from pictures import edited, moved, textured
from PIL import Image

from host import ROOT


@pytest.fixture(scope="session")
def measure(plain):
    """Shift right and down in pixels and zoom between two pictures of 256x192, or None."""

    def run(start, end):
        found = plain("alignment").measure(start.convert("L"), end.convert("L"))
        return found and (found.x * start.width, found.y * start.height, found.zoom)

    return run


@pytest.fixture(scope="session")
def picture():
    return textured(size=(256, 192))


@pytest.mark.parametrize("edit", [lambda image: image, edited], ids=["as it is", "edited on 40 %"])
@pytest.mark.parametrize(
    "right, down, zoom", [(3, 0, 1), (0, -5, 1), (-1.5, 2.5, 1), (12, 8, 1), (0, 0, 1.03), (4, -2, 0.97)]
)
def test_a_shift_and_a_zoom_are_measured(measure, picture, edit, right, down, zoom):
    x, y, z = measure(picture, edit(moved(picture, right, down, zoom)))
    assert x == pytest.approx(right, abs=0.25) and y == pytest.approx(down, abs=0.25)
    assert z == pytest.approx(zoom, abs=0.004)


def test_an_aligned_pair_is_told_from_a_moved_one(measure, picture):
    for end in (picture, edited(picture)):
        x, y, zoom = measure(picture, end)
        assert abs(x) < 0.1 and abs(y) < 0.1 and abs(zoom - 1) < 0.001


def test_pictures_without_any_texture_cannot_be_measured(measure, picture):
    assert measure(*(Image.new("RGB", picture.size, colour) for colour in ("red", "blue"))) is None


def test_nothing_is_claimed_where_nothing_agrees(measure, picture):
    for start, end in ((picture, textured(7, picture.size)), (picture, Image.new("RGB", picture.size, "red"))):
        assert measure(start, end) in (None, (0, 0, 1))


@pytest.fixture
def misaligned(plain, tmp_path):
    """The messages about alignment in the report on one pair."""

    def run(start, end):
        start.save(tmp_path / "a_start.png")
        end.save(tmp_path / "a_end.png")
        dataset = plain("dataset")
        with plain("cache").Cache() as cache:
            report = dataset.examine(tmp_path, dataset.Reading(resolution=128), cache, lambda *_: None)
        return [f.message for f in report.findings if f.code == "misaligned"]

    return run


def test_the_report_gives_pixels_of_the_target_and_percent_of_zoom(misaligned):
    large = textured(size=(1024, 768), grain=24)
    (message,) = misaligned(large, edited(moved(large, 16, -8)))
    assert message.startswith("the target is shifted 1")
    right, up = (float(part.split()[0]) for part in message.removeprefix("the target is shifted ").split(" and "))
    assert right == pytest.approx(16, abs=1) and up == pytest.approx(8, abs=1)
    assert "right and" in message and "up against the input" in message
    (message,) = misaligned(large, moved(large, zoom=1.05))
    assert float(message.split("zoomed in by ")[1].split("%")[0]) == pytest.approx(5, abs=0.5)


def test_the_two_may_differ_in_size(misaligned):
    picture = textured(size=(400, 300), grain=12)
    (message,) = misaligned(moved(picture, 8), picture.resize((300, 224)))
    assert message.startswith("the target is shifted 6.0 pixels left against")


@pytest.mark.parametrize("change, words", [({"right": 2}, "shifted 2.0 pixels right"), ({"zoom": 0.985}, "zoomed out by 1.5%")])
def test_a_small_shift_and_a_small_zoom_are_reported(misaligned, change, words):
    picture = textured(size=(512, 384), grain=6)
    (message,) = misaligned(picture, moved(picture, **change))
    assert message.startswith(f"the target is {words} against")


@pytest.mark.parametrize(
    "pixels, zoom, words",
    [(0.5, 1, None), (0.7, 1, "shifted 0.7 pixels right"), (0, 1.005, None), (0, 1.007, "zoomed in by 0.7%")],
)
def test_what_is_not_told_from_noise_is_not_reported(plain, tmp_path, pixels, zoom, words):
    """On 512 pixels, of which 256 are measured."""
    report, measured = plain("report"), plain("pixels")
    comparison = measured.Comparison(False, plain("alignment").Alignment(pixels / 512, 0, zoom))
    looks = (measured.Look("one"), measured.Look("other"))
    sample = plain("pairs").Sample("a", (tmp_path / "a_start.png",), tmp_path / "a_end.png")
    findings = report.pair_findings(sample, measured.Measured(looks, comparison), plain("images").Header(512, 384))
    assert [words in finding.message for finding in findings] == [True] * (words is not None)


@pytest.mark.parametrize(
    "edit", [edited, lambda image: image.convert("L").convert("RGB"), lambda image: image.point(lambda v: v // 2)]
)
def test_an_aligned_edit_is_not_reported(misaligned, edit):
    picture = textured(size=(512, 384), grain=12)
    assert misaligned(picture, edit(picture)) == []


@pytest.mark.parametrize("folder", sorted({path.parent.name for path in (ROOT / "samples").glob("*/*_start.*")}))
def test_the_samples_that_ship_with_the_pack_have_no_warnings(plain, folder):
    dataset = plain("dataset")
    with plain("cache").Cache() as cache:
        report = dataset.examine(ROOT / "samples" / folder, dataset.Reading(resolution=128), cache, lambda *_: None)
    assert report.findings == [] and report.found.unused == []


def test_a_picture_too_thin_to_measure_is_no_crash(misaligned):
    assert misaligned(textured(size=(600, 3), grain=1), textured(1, (600, 3), 1)) == []
