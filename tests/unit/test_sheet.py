"""The contact sheet keeps to its size and shows pictures as large as that allows."""
import numpy as np
import pytest


@pytest.fixture
def contact_sheet(plain):
    return plain("sheet").contact_sheet


@pytest.mark.parametrize("captions", [True, False])
@pytest.mark.parametrize(("rows", "side"), [(1, 64), (24, 1024), (500, 300)])
def test_no_side_is_larger_than_4096(contact_sheet, rows, side, captions):
    images = [np.zeros((side, side, 3), np.uint8)] * rows
    sheet = contact_sheet(dict.fromkeys(("input", "before", "after", "target"), images), ["a name"] * rows, captions)
    assert max(sheet.size) <= 4096
    assert rows < 24 or max(sheet.size) > 3000, "no smaller than it must be"
