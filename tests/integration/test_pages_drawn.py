"""Pages drawn by the real poppler and Pillow, in real children."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from pipeline import errors, pages, pages_child
from pipeline.geometry import Box, to_unit
from pipeline.pages import PageLimits, PageSource, RasterSettings, inspect, poppler_version, rasterize
from tests.hostile import encrypted, image_bytes, letter, pdf

RED = (200, 150, 30, 20)  # x, y, width, height in user space


def red_page(entries: str) -> tuple[str, str]:
    x, y, width, height = RED
    return entries, f"1 0 0 rg {x} {y} {width} {height} re f 0 g BT /F1 6 Tf {x + 5} {y + 6} Td (word) Tj ET"


def red_box(image: Image.Image) -> Box:
    """The box of what is more red than anything else."""
    pixels = np.asarray(image).astype(int)
    rows, cols = np.nonzero((pixels[..., 0] - pixels[..., 1] > 128) | (pixels.sum(axis=2) < 300))
    return Box(cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)


GEOMETRIES = [
    f"/MediaBox [{box}] {crop} /Rotate {rotation} {unit}"
    for box, crop in [
        ("0 0 612 792", ""),
        ("0 0 595.276 841.89", ""),
        ("0 0 612 792", "/CropBox [110 95 407.3 500.7]"),
        ("-50 -70 333.3 444.4", "/CropBox [3 4 300.5 222.2]"),
    ]
    for rotation in (0, 90, 180, 270)
    for unit in (("", "/UserUnit 1.5") if crop else ("",))
]


@pytest.mark.parametrize("entries", GEOMETRIES)
def test_a_known_box_is_found_where_the_frame_says(entries):
    """What is drawn at known user-space coordinates comes back from the raster through the frame, to the pixel."""
    with PageSource(pdf(red_page(entries)), "red.pdf", settings=RasterSettings(dpi=144)) as source:
        page = source.page(1)
        found = to_unit(red_box(page.image), page.width, page.height)
        x, y, width, height = RED
        pixel_pt = 72 / page.dpi / page.frame.user_unit  # user-space units
        assert page.frame.to_user(found) == pytest.approx((x, y, x + width, y + height), abs=1.01 * pixel_pt)
        assert source.text_in_box(1, found) == "word"
        assert (page.frame.user_unit == 1.5) == ("UserUnit" in entries)
        assert page.dpi == pytest.approx(144, rel=2e-3)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_turns_the_displayed_page_clockwise(rotation):
    upright = rasterize(pdf(red_page("/MediaBox [0 0 300 400]")), 1, settings=RasterSettings(dpi=72)).image
    turned = rasterize(
        pdf(red_page(f"/MediaBox [0 0 300 400] /Rotate {rotation}")), 1, settings=RasterSettings(dpi=72)
    ).image
    assert turned.size == upright.rotate(-rotation, expand=True).size
    expected, found = red_box(upright.rotate(-rotation, expand=True)), red_box(turned)
    assert np.abs(np.subtract(expected.xyxy, found.xyxy)).max() <= 1


def test_the_raster_spans_the_page_exactly_whatever_its_size():
    """No column of the raster lies outside the page, so 0-1 coordinates are exact: a full red page has no other colour."""
    for side in (99.9, 333.333):
        data = pdf((f"/MediaBox [0 0 {side} {side * 1.37}]", "1 0 0 rg -9 -9 9999 9999 re f"))
        page = rasterize(data, 1, settings=RasterSettings(dpi=100))
        assert np.asarray(page.image).reshape(-1, 3).tolist().count([255, 0, 0]) == page.width * page.height
        assert page.width == round(side * 100 / 72)


def test_a_giant_page_keeps_the_caps_and_tells_its_true_resolution():
    page = rasterize(pdf(("/MediaBox [0 0 8400 8400]", "")), 1, settings=RasterSettings(max_pixels=4_000_000))
    assert page.image.size == (2000, 2000)
    assert page.dpi == pytest.approx(2000 / 8400 * 72)
    strip = rasterize(pdf(("/MediaBox [0 0 14400 20]", "")), 1)
    assert strip.width == pages_child.MAX_SIDE_PX


def test_user_unit_is_read_from_an_object_stream_and_a_document_encrypted_for_nobody():
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(red_page("/MediaBox [0 0 300 400] /UserUnit 2")))))
    writer.encrypt("", "owner", algorithm="AES-256")
    buffer = io.BytesIO()
    writer.write(buffer)
    assert rasterize(buffer.getvalue(), 1, settings=RasterSettings(dpi=50)).frame.user_unit == 2


def test_a_page_has_the_documented_digest_and_the_same_one_again():
    data = letter()
    with PageSource(data, "letter.pdf") as source:
        page, again = source.page(1), source.page(1)
    expected = hashlib.sha256(f"{page.width}x{page.height}:".encode() + page.image.tobytes()).hexdigest()
    assert page.sha256 == again.sha256 == expected
    assert page.document_sha256 == hashlib.sha256(data).hexdigest()
    assert page.recipe == f"poppler {poppler_version()} pdftoppm cropbox 200dpi 25000000px"
    assert (page.width, page.height) == (1700, 2200)


def test_a_document_is_described():
    document = inspect(pdf(*[("/MediaBox [0 0 99 99]", "")] * 3), "three.pdf")
    assert (document.name, document.media_type, document.page_count) == ("three.pdf", "application/pdf", 3)


# --- images -----------------------------------------------------------------------------------------------------------


def drawn(image: Image.Image, kind: str, **options: object) -> Image.Image:
    return rasterize(image_bytes(image, kind, **options), 1).image


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_lossless_images_keep_their_pixels(kind):
    noise = Image.effect_noise((61, 43), 80).convert("RGB")
    assert drawn(noise, kind, **({"lossless": True} if kind == "WEBP" else {})).tobytes() == noise.tobytes()


def test_a_jpeg_keeps_its_colours():
    assert drawn(Image.new("RGB", (64, 32), (200, 100, 50)), "JPEG").getpixel((9, 9)) == pytest.approx((200, 100, 50), abs=3)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind):
    cyan = drawn(Image.new("CMYK", (32, 32), (255, 0, 0, 0)), kind).getpixel((9, 9))
    black = drawn(Image.new("CMYK", (32, 32), (0, 0, 0, 255)), kind).getpixel((9, 9))
    assert cyan[0] < 20
    assert cyan[1] > 200
    assert max(black) < 60


def test_transparency_lies_over_white():
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 128))
    image.putpixel((2, 0), (0, 0, 255, 255))
    for kind in ("PNG", "TIFF"):
        result = drawn(image, kind)
        assert [result.getpixel((x, 0)) for x in range(3)] == [(255, 255, 255), (255, 127, 127), (0, 0, 255)]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert drawn(palette, "PNG", transparency=0).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_cut(kind):
    image = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 32768, 65535)):
        image.putpixel((x, 0), value)
    result = drawn(image, kind)
    assert [result.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind, orientation):
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste((255, 0, 0), (0, 0, 24, 16))  # top left
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that makes the stored image from the upright one
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = drawn(stored, kind, exif=exif)
    assert result.size == (48, 32)
    assert [result.getpixel(at)[1] < 128 for at in ((6, 6), (40, 6), (6, 26), (40, 26))] == [True, False, False, False]


def test_each_frame_of_a_tiff_is_a_page():
    frames = [Image.new("RGB", (20 + i, 10), colour) for i, colour in enumerate(("red", "lime", "blue"))]
    data = image_bytes(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    with PageSource(data, "scan.tiff") as source:
        assert source.document.page_count == 3
        assert [page.image.getpixel((1, 1)) for page in source.pages()] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
        assert [page.number for page in source.pages([3, 1])] == [3, 1]
        assert source.words(2) is None
        assert source.page(1).recipe.startswith("pillow ")
        with pytest.raises(errors.PageOutOfRange, match=r"scan\.tiff: there is no page 4; the document has 3"):
            source.page(4)


def test_an_images_own_resolution_counts_where_it_is_credible():
    image = Image.new("L", (300, 300), 255)
    assert rasterize(image_bytes(image, "TIFF", dpi=(300, 300)), 1).dpi == 300
    assert rasterize(image_bytes(image, "TIFF", dpi=(1, 1)), 1).dpi == 200
    assert rasterize(image_bytes(image, "PNG"), 1, settings=RasterSettings(dpi=150)).dpi == 150
    capped = rasterize(image_bytes(image, "TIFF", dpi=(300, 300)), 1, settings=RasterSettings(max_pixels=150 * 150))
    assert (capped.image.size, capped.dpi) == ((150, 150), 150)


def test_a_fax_is_drawn_with_square_pixels():
    page = rasterize(image_bytes(Image.new("1", (1728, 1100), 1), "TIFF", dpi=(204, 98)), 1)
    assert page.image.size == (1728, round(1100 * 204 / 98))
    assert page.dpi == pytest.approx(204, rel=1e-3)


def test_an_image_with_too_many_pixels_is_refused_undecoded():
    with pytest.raises(errors.PageTooLarge, match=r"10,000 pixels; the limit is 9,999"):
        rasterize(image_bytes(Image.new("1", (100, 100)), "PNG"), 1, limits=PageLimits(image_pixels=9_999))


# --- errors, limits, leftovers ----------------------------------------------------------------------------------------


def test_a_password_opens_as_user_or_owner_and_is_never_told():
    data = encrypted("AES-256", "user-secret", "owner-secret")
    assert rasterize(data, 1, password="user-secret").sha256 == rasterize(data, 1, password="owner-secret").sha256
    with pytest.raises(errors.DocumentEncrypted, match=r"no password was given.*--password-file"):
        inspect(data, "locked.pdf")
    with pytest.raises(errors.DocumentEncrypted, match="neither as user nor as owner") as caught:
        inspect(data, "locked.pdf", password="wrong-secret")
    assert "secret" not in str(caught.value)
    with pytest.raises(errors.DocumentEncrypted):
        inspect(data, "locked.pdf", password="")


def test_too_many_pages_names_both_numbers():
    with pytest.raises(errors.TooManyPages, match=r"many\.pdf: 3 pages; the limit is 2"):
        inspect(pdf(*[("/MediaBox [0 0 9 9]", "")] * 3), "many.pdf", limits=PageLimits(pages=2))


def test_one_bad_page_leaves_the_others():
    data = pdf(*[(f"/MediaBox [0 0 {width} 99]", "") for width in (99, 0, 88)])
    with PageSource(data, "mixed.pdf", settings=RasterSettings(dpi=72)) as source:
        assert source.page(1).width == 99
        with pytest.raises(errors.PageCorrupt, match=r"mixed\.pdf, page 2"):
            source.page(2)
        assert source.page(3).width == 88


def test_memory_is_limited_and_named():
    data = image_bytes(Image.new("RGBA", (6000, 6000)), "TIFF", compression="tiff_adobe_deflate")
    with pytest.raises(errors.RasterLimit, match="256 MB of memory"):
        rasterize(data, 1, limits=PageLimits(memory_bytes=256 << 20))


def test_cpu_time_is_limited_and_named():
    dots = "".join(f"{i % 612} {i * 31 % 792} 400 400 re f " for i in range(60_000))
    with pytest.raises(errors.RasterLimit, match="1 s of CPU time"):
        rasterize(letter(dots), 1, limits=PageLimits(cpu_s=1))


def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Let another script take the child's place."""
    script = tmp_path / "child.py"
    prologue = f"import json, os, sys, time\nsys.path.insert(0, {str(Path(pages.__file__).parents[1])!r})\n"
    script.write_text(prologue + "request = json.load(sys.stdin)\n" + code)
    monkeypatch.setattr(pages_child, "__file__", str(script))


def test_wall_time_is_limited_and_grandchildren_die_too(monkeypatch, tmp_path):
    pid = tmp_path / "pid"
    stand_in(
        monkeypatch,
        tmp_path,
        "import subprocess\np = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pid)!r}, 'w').write(str(p.pid))\ntime.sleep(60)",
    )
    monkeypatch.setattr(pages, "_GRACE_S", 0.5)
    with pytest.raises(errors.RasterLimit, match=r"a\.pdf: given up: the child did not end in time"):
        PageSource(letter(), "a.pdf", limits=PageLimits(wall_s=1.5))
    wait_until(lambda: not alive(int(pid.read_text())))


def test_output_is_limited(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, "while True: sys.stdout.buffer.write(bytes(100_000))")
    with pytest.raises(errors.RasterLimit, match="wrote more than"):
        PageSource(letter(), "a.pdf")


def test_a_child_that_crashes_is_a_corrupt_document(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, f"os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    with pytest.raises(errors.DocumentCorrupt, match="SIGSEGV"):
        PageSource(letter(), "a.pdf")


def test_a_child_that_lies_about_its_raster_is_not_believed(monkeypatch, tmp_path):
    stand_in(
        monkeypatch,
        tmp_path,
        "from pipeline.pages_child import reply\n"
        "size = (9000, 1) if request['action'] == 'raster' else (0, 0)\n"
        "reply(sys.stdout.buffer, count=1, size=size, dpi=200.0, payload=bytes(3 * size[0]))",
    )
    with PageSource(letter(), "a.pdf") as source, pytest.raises(errors.PageCorrupt, match="contradicts itself"):
        source.page(1)


def test_the_child_has_no_environment_and_keeps_its_limits(monkeypatch, tmp_path):
    monkeypatch.setenv("EXHIBIT_DB", "postgresql://user:secret@host/db")
    stand_in(
        monkeypatch,
        tmp_path,
        "import resource\nfrom pipeline.pages_child import Request, limit_process\n"
        "limit_process(Request(**request))\n"
        "names = ('AS', 'CPU', 'FSIZE', 'NOFILE', 'CORE')\n"
        "got = [resource.getrlimit(getattr(resource, 'RLIMIT_' + name)) for name in names]\n"
        "print(sorted(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), got, file=sys.stderr)",
    )
    with pytest.raises(errors.DocumentCorrupt) as caught:
        PageSource(letter(), "a.pdf", limits=PageLimits(memory_bytes=1 << 30, cpu_s=7))
    said = str(caught.value)
    assert "['LC_ALL', 'PATH'] / True [(1073741824, 1073741824), (7, 7), (0, 0), (64, 64), (0, 0)]" in said


def test_the_child_cannot_change_the_document():
    with PageSource(letter(), "a.pdf") as source, pytest.raises(PermissionError):
        os.write(source._fd, b"x")


def test_the_child_dies_with_its_parent(tmp_path):
    child = tmp_path / "child.py"
    pid = tmp_path / "pid"
    root = str(Path(pages.__file__).parents[1])
    child.write_text(
        f"import json, os, sys, time\nsys.path.insert(0, {root!r})\n"
        "from pipeline.pages_child import Request, limit_process\n"
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        "limit_process(Request(**json.load(sys.stdin)))\ntime.sleep(60)"
    )
    parent = (
        f"import sys; sys.path.insert(0, {root!r})\nfrom pipeline import pages, pages_child\n"
        f"pages_child.__file__ = {str(child)!r}\npages.PageSource(b'%PDF-1.7', 'a.pdf')"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    wait_until(lambda: pid.exists() and pid.read_text() and limited(int(pid.read_text())))
    process.kill()
    process.wait()
    wait_until(lambda: not alive(int(pid.read_text())))


def limited(pid: int) -> bool:
    """Whether the process has set its limits: it may open 64 files."""
    return any(
        line.split()[3:4] == ["64"] for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "open files" in line
    )


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def children() -> list[str]:
    """This process's children, as /proc describes them; the test servers of other modules may be among them."""
    stats = [Path(f"/proc/{pid}/stat") for pid in Path("/proc/thread-self/children").read_text(encoding="ascii").split()]
    return [stat.read_text(encoding="utf-8", errors="replace") for stat in stats]


def test_a_long_document_keeps_few_rasters_and_leaves_nothing(monkeypatch, tmp_path):
    """Counted, not timed: rasters alive, descriptors, files and children."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    rasters: list[weakref.ref[Image.Image]] = []
    most = 0
    data = pdf(*[(f"/MediaBox [0 0 {99 + i} 99]", "") for i in range(12)])
    with PageSource(data, "long.pdf", settings=RasterSettings(dpi=72)) as source:
        for number, page in enumerate(source.pages(), 1):
            assert page.width == 98 + number
            rasters.append(weakref.ref(page.image))
            gc.collect()
            most = max(most, sum(raster() is not None for raster in rasters))
    assert most <= 2
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert not list(tmp_path.iterdir())
    assert not [child for child in children() if " Z " in child]


def test_a_failed_opening_leaves_nothing():
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        with pytest.raises(errors.DocumentCorrupt):
            PageSource(b"%PDF-1.7 garbage", "a.pdf")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_threads_may_draw_at_once():
    data = pdf(*[(f"/MediaBox [0 0 {99 + i} 99]", HELLO_AT_10) for i in range(6)])
    with PageSource(data, "a.pdf", settings=RasterSettings(dpi=72)) as source, ThreadPoolExecutor(3) as pool:
        assert [page.sha256 for page in pool.map(source.page, range(1, 7))] == [page.sha256 for page in source.pages()]


HELLO_AT_10 = "BT /F1 12 Tf 10 50 Td (Hello there) Tj ET"


def test_the_text_layer_speaks_of_the_displayed_page():
    with PageSource(pdf(("/MediaBox [0 0 200 100]", HELLO_AT_10), ("/MediaBox [0 0 9 9]", "")), "a.pdf") as source:
        hello, there = source.words(1)
        assert (hello.text, there.text) == ("Hello", "there")
        assert hello.box.x0 == pytest.approx(10 / 200, abs=0.01)
        assert source.text_in_box(1, replace(hello.box, x1=1.0)) == "Hello there"
        assert source.text_in_box(1, replace(hello.box, y0=0.9, y1=1.0)) == ""
        assert source.words(2) is None, "no word, so no text layer"
        assert source.text_in_box(2, hello.box) is None


LOCKED_IN = """
import ctypes, json, os, signal, socket, subprocess, sys
sys.path.insert(0, sys.argv[1])
from pipeline import pages_child
locks = pages_child.lock_in(ctypes.CDLL(None))
sys.path.pop(0)

def outcome(act):
    try:
        return str(act() or "done")
    except OSError as error:
        return type(error).__name__

def clone(flags):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall({"x86_64": 56, "aarch64": 220}[os.uname().machine], flags, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "clone")

print(json.dumps([locks, {
    "a socket": outcome(lambda: socket.socket().close()),
    "the parent's environment": outcome(lambda: open(f"/proc/{os.getppid()}/environ", "rb").read()),
    "a file beside the database": outcome(lambda: open(sys.argv[2]).read()),
    "a new file": outcome(lambda: open(sys.argv[2] + ".new", "w").close()),
    "a signal to the parent": outcome(lambda: os.kill(os.getppid(), 0)),
    "a user namespace": outcome(lambda: clone(0x10000000 | signal.SIGCHLD)) if "system calls" in str(locks) else "",
    "a program": outcome(lambda: subprocess.run(["pdftoppm", "-v"], capture_output=True, check=True).returncode),
    "a thread": outcome(lambda: __import__("threading").Thread(target=int).start()),
}]))
"""


def test_a_child_that_is_taken_over_finds_nothing(tmp_path):
    """No network, no other process, no file of ours, no way back; what drawing needs is still there."""
    secret = tmp_path / "db_url"
    secret.write_text("postgresql://user:secret@host/db")
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", LOCKED_IN, root, str(secret)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    locks, found = json.loads(done.stdout.strip())
    if any("system calls" in lock for lock in locks):
        assert (found["a socket"], found["a user namespace"]) == ("PermissionError", "PermissionError")
    if any("files" in lock for lock in locks):
        assert found["the parent's environment"] == found["a file beside the database"] == "PermissionError"
        assert found["a new file"] == "PermissionError"
    assert (found["a program"], found["a thread"]) == ("done", "done")
    assert {"no new privileges", "no capabilities"} <= set(locks)


AS_NOBODY = """
import os, sys
sys.path[:0] = sys.argv[1:3]
from pipeline.pages import PageSource
data = sys.stdin.buffer.read()
with PageSource(data, "a.pdf") as source:
    print(os.getuid(), source.document.page_count, len(source.words(1)), source.locks())
"""


def test_whoever_is_not_root_can_open_documents_too():
    """A user namespace, which only others need for leaving the network, must not keep poppler from the document."""
    if os.geteuid() != 0:
        pytest.skip("then every other test here says so")
    # The interpreter of these tests may lie where nobody else can look.
    python, version = shutil.which("python3", path="/usr/bin"), f"{sys.version_info.major}.{sys.version_info.minor}"
    if python is None or version not in subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout:
        pytest.skip(f"needs /usr/bin/python3 of version {version}")
    packages = str(Path(PIL.__file__).parents[1])
    command = [python, "-c", AS_NOBODY, str(Path(__file__).parents[2]), packages]
    done = subprocess.run(command, input=letter(), capture_output=True, user=65534, group=65534, extra_groups=[], cwd="/")
    assert done.returncode == 0, done.stderr.decode()
    user, pages_found, words, _ = done.stdout.decode().split(" ", 3)
    assert (user, pages_found) == ("65534", "1")
    assert int(words) > 0


def test_the_memory_of_a_child_is_its_own():
    """Not that of the process that started it, which may hold a model."""
    ballast = bytearray(400_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    told: list[int] = []
    with PageSource(letter(), "a.pdf", weigh=told.append) as source:
        source.page(1)
    assert len(told) == 2
    assert all(5e6 < peak < 200e6 for peak in told), told


def test_a_child_has_no_network():
    """Where the kernel lets us (as root, or by way of a user namespace), a child sees no device but a dead loopback."""
    program = (
        "import ctypes, sys; sys.path.insert(0, sys.argv[1]); from pipeline import pages_child; "
        "libc = ctypes.CDLL(None); before = open('/proc/self/net/dev').read(); pages_child._leave_the_network(libc); "
        "after = open('/proc/self/net/dev').read(); print(before.count(':'), after.count(':'))"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", program, root], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    if before == after and before > 1:
        pytest.skip("this system forbids network namespaces")
    assert after <= 1
