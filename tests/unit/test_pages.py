"""What pages.py decides without a child: formats, sizes, and what it believes of a reply."""

import io
import math
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import errors, pages, pages_child
from pipeline.geometry import PdfFrame, UnitBox
from pipeline.pages import PageLimits, PageSource, RasterSettings, Word, read_document, sniff
from pipeline.pages_child import HEADER, MAGIC, MAX_SIDE_PX, Frame, fit_raster, reply


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"%PDF-1.7\n", "application/pdf"),
        (b"\n" * 1019 + b"%PDF-", "application/pdf"),
        (b"\n" * 1020 + b"%PDF-", None),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"II*\x00", "image/tiff"),
        (b"MM\x00*", "image/tiff"),
        (b"II+\x00", "image/tiff"),
        (b"GIF89a", None),
        (b"", None),
    ],
)
def test_the_first_bytes_tell_the_format(data, media_type):
    assert sniff(data) == media_type


sides = st.floats(1e-3, 1e7)


@given(sides, sides, st.integers(1, 30_000_000))
def test_a_raster_keeps_both_caps_and_one_pixel(width, height, max_pixels):
    fitted = fit_raster(width, height, max_pixels)
    assert min(fitted) >= 1
    assert max(fitted) <= MAX_SIDE_PX
    assert math.prod(fitted) <= max(max_pixels, max(fitted)), "over the cap only where a side is one pixel already"
    assert math.prod(fitted) <= max_pixels or min(fitted) == 1


@given(sides, sides, st.integers(1, 30_000_000))
def test_a_transposed_raster_is_the_raster_transposed(width, height, max_pixels):
    assert fit_raster(height, width, max_pixels) == fit_raster(width, height, max_pixels)[::-1]


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_raster_within_the_caps_is_left_alone(width, height):
    assert fit_raster(width, height, 25_000_000) == (width, height)


@pytest.mark.parametrize("settings", [{"dpi": 0}, {"dpi": math.nan}, {"dpi": -200}, {"dpi": 99_999}, {"max_pixels": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(errors.UsageError, match="must"):
        RasterSettings(**settings)


def test_a_missing_file_a_folder_and_an_impossible_name_are_not_found(tmp_path):
    for path in (tmp_path / "none.pdf", tmp_path, "nul\0byte.pdf"):
        with pytest.raises(errors.DocumentNotFound, match="cannot be read"):
            read_document(path)


def test_a_file_over_the_limit_is_not_read(tmp_path):
    path = tmp_path / "big.pdf"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(errors.DocumentTooLarge, match=r"1,099,511,627,776 bytes; the limit is 52,428,800"):
        read_document(path)


def test_an_empty_file_and_unknown_bytes_are_told_apart():
    with pytest.raises(errors.DocumentEmpty, match=r"a\.pdf.*0 bytes"):
        PageSource(b"", "a.pdf")
    with pytest.raises(errors.UnknownFormat, match=r"a\.pdf: begins with b'PK"):
        PageSource(b"PK\x03\x04", "a.pdf")
    with pytest.raises(errors.DocumentTooLarge, match="5 bytes; the limit is 4"):
        PageSource(b"%PDF-", "a.pdf", limits=PageLimits(document_bytes=4))


@pytest.mark.parametrize("password", ["x" * 128, "ä" * 64, "a\0b"])
def test_a_password_that_no_document_can_have_never_reaches_poppler(password):
    with pytest.raises(errors.UsageError, match="at most 127") as caught:
        PageSource(b"%PDF-1.7", "a.pdf", password=password)
    assert password not in str(caught.value)


def test_without_poppler_a_pdf_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.PopplerMissing, match=r"pdftoppm.*apt-get install poppler-utils"):
        PageSource(b"%PDF-1.7", "a.pdf")


def packed(**values: object) -> bytearray:
    out = io.BytesIO()
    reply(out, **values)  # type: ignore[arg-type]
    return bytearray(out.getvalue())


def test_a_reply_arrives_as_it_was_sent():
    frame = Frame(10.5, -20, 622.5, 772, 270, 2.5)
    parsed = pages._parse_reply(packed(count=3, size=(7, 9), dpi=199.98, frame=frame, payload=b"abc"))
    assert parsed is not None
    assert 1e6 < parsed.peak_bytes < 1e11
    turned = PdfFrame(10.5, -20, 622.5, 772, 270, 2.5)
    assert parsed == pages._Reply("ok", 3, 7, 9, 199.98, turned, parsed.peak_bytes, memoryview(b"abc"))
    assert pages._parse_reply(packed(status="document_has_no_pages")).status == "document_has_no_pages"
    assert pages._parse_reply(packed()).frame is None


@given(st.binary(max_size=200))
def test_noise_is_no_reply(noise):
    assert pages._parse_reply(bytearray(noise)) is None
    assert pages._parse_reply(bytearray(MAGIC + noise)) is None or len(noise) >= HEADER.size - len(MAGIC)


@pytest.mark.parametrize("broken", [{"dpi": math.nan}, {"dpi": math.inf}, {"frame": Frame(0, 0, math.inf, 1, 0, 1)}])
def test_a_reply_of_impossible_values_is_none(broken):
    assert pages._parse_reply(packed(**broken)) is None


def test_a_reply_cut_short_or_too_long_or_turned_oddly_is_none():
    whole = packed(payload=b"abc")
    assert pages._parse_reply(whole[:-1]) is None
    assert pages._parse_reply(whole + b"x") is None
    assert pages._parse_reply(packed(frame=Frame(0, 0, 1, 1, 45, 1))) is None


def test_words_under_a_box_are_those_whose_centre_it_holds():
    words = pages._parse_words(b"0.1 0.1 0.2 0.2 Total:\n0.2 0.1 0.4 0.2 42.00\n0.5 0.5 0.6 0.6 \xc3\xbcber\n")
    assert words[2] == Word("über", UnitBox(0.5, 0.5, 0.6, 0.6))
    box = UnitBox(0.15, 0.0, 0.35, 0.3)
    assert [word.text for word in words if pages._holds_centre(box, word.box)] == ["Total:", "42.00"]
    assert pages._parse_words(b"") == ()


def test_words_of_the_document_cannot_forge_a_message():
    assert pages._printable(b"line\nnext\x1b[31mred\x00 \xff") == "line next [31mred \ufffd"


@pytest.mark.parametrize(
    ("returncode", "stderr", "code", "words"),
    [
        (-24, b"", "raster_limit", "CPU"),
        (-9, b"", "raster_limit", "SIGKILL"),
        (-11, b"", None, "SIGSEGV"),
        (1, b"Traceback\nMemoryError", "raster_limit", "memory"),
        (1, b"Traceback\nOSError: image file is truncated", None, "^image file is truncated"),
        (1, b"Traceback\nModuleNotFoundError: No module named 'PIL'", "environment", "PIL"),
        (0, b"", None, "no reason given"),
    ],
)
def test_a_silent_end_is_explained(returncode, stderr, code, words):
    found, detail = pages._explain_silence(pages._Result(bytearray(), stderr, returncode, None))
    assert found == code
    assert re.search(words, detail)


def test_the_header_has_no_padding_that_depends_on_the_machine():
    assert HEADER.size == struct.calcsize("<8s24sIIId?4dHdQQ") == 111
    assert all(len(error.code) <= 24 for error in vars(errors).values() if hasattr(error, "code"))


def test_a_frame_is_displayed_turned_and_in_points():
    assert Frame(10, 20, 110, 220, 0, 1).displayed_pt == (100, 200)
    assert Frame(10, 20, 110, 220, 90, 2).displayed_pt == (400, 200)


def test_the_child_imports_nothing_of_ours():
    source = Path(pages_child.__file__).read_text(encoding="utf-8")
    assert "import pipeline" not in source
    assert "from pipeline" not in source
