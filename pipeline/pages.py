"""Documents as page rasters: the only module, with its child, that knows pdf2image, poppler and image decoders.

The parent process never parses a document. It looks at the first bytes, puts the file into a sealed block of memory, and
lets a short-lived, limited child (`pipeline.pages_child`) do the rest, one page per child; from the child it reads a fixed
header and exactly as many bytes as the header may announce. So a hostile file costs its own answers and a bounded amount of
memory and time, and a document of a thousand pages never has more rasters alive than its reader keeps.

What poppler can repair is a document: a truncated PDF has the pages poppler still finds, drawn as far as they go, and a page
that poppler cannot draw raises `PageCorrupt` while the others are answered. A password is tried as the user's, then as the
owner's; it reaches poppler on its command line (there is no other way), where users of the same machine can see it while the
page is drawn, and it is never logged.

    with PageSource(read_document(path), path) as source:
        for page in source.pages():
            ...
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import math
import os
import re
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn, Self, cast

import PIL
from PIL import Image

from pipeline import errors, pages_child
from pipeline.geometry import PdfFrame, Rotation, UnitBox
from pipeline.pages_child import HEADER, MAGIC, MAX_SIDE_PX, Request
from pipeline.records import Document, Page

MAX_PASSWORD_BYTES = 127  # PDF 2.0's own bound; poppler overflows its stack beyond it (CVE-2026-107705)

_PDF = "application/pdf"
_PDF_MAGIC_WITHIN = 1024  # Acrobat's rule, and poppler's
_TOOLS = ("pdfinfo", "pdftoppm", "pdftotext", "pdfseparate")
_MESSAGE_BYTES = 4096
_WORDS_BYTES = 16 << 20
_GRACE_S = 5.0  # the child's own clock ends first and names the reason


@dataclass(frozen=True, slots=True)
class RasterSettings:
    """What decides a raster's pixels.

    Attributes:
        dpi: Wanted resolution of PDF pages. An image keeps its own pixels.
        max_pixels: Cap on width times height; a page over it is drawn at a lower resolution.

    Raises:
        UsageError: A value makes no sense.
    """

    dpi: float = 200.0
    max_pixels: int = 25_000_000

    def __post_init__(self) -> None:
        if not (math.isfinite(self.dpi) and 1 <= self.dpi <= 2400):
            raise errors.UsageError(f"dpi is {self.dpi:g}; it must lie between 1 and 2400")
        if self.max_pixels < 1:
            raise errors.UsageError(f"max_pixels is {self.max_pixels}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class PageLimits:
    """What a document may cost.

    Attributes:
        document_bytes: Size of the file.
        pages: Pages or frames.
        image_pixels: Pixels of an image file before it is scaled down.
        memory_bytes: Address space of the child, and of each tool it starts.
        cpu_s: CPU time of the same.
        wall_s: Time for one page; counting pages gets a third of it.
    """

    document_bytes: int = 50 << 20
    pages: int = 10_000
    image_pixels: int = 150_000_000
    memory_bytes: int = 2 << 30
    cpu_s: int = 20
    wall_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a PDF's own text, and where it stands on the displayed page."""

    text: str
    box: UnitBox


def read_document(path: str | Path, limits: PageLimits = PageLimits()) -> bytes:
    """Read a file that is small enough.

    Raises:
        DocumentNotFound: No readable file has that name.
        DocumentTooLarge, DocumentEmpty: By its size.
    """
    try:
        # Without waiting: opening a named pipe that nobody writes to would take for ever.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise errors.DocumentNotFound(f"{path}: is a pipe, a device or a folder. Name a file, or save it as one.")
            _check_size(status.st_size, str(path), limits)
            return file.read(limits.document_bytes + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise errors.DocumentNotFound(f"{path}: cannot be read: {reason}. Check the path and its permissions.") from exc


def sniff(data: bytes) -> str | None:
    """Media type by the first bytes, or None for what is no document here.

    A PDF may begin anywhere in the first kilobyte; an image must begin at once, and wins over a PDF inside it.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "image/tiff"
    return _PDF if b"%PDF-" in data[:_PDF_MAGIC_WITHIN] else None


def inspect(data: bytes, name: str, *, password: str | None = None, limits: PageLimits = PageLimits()) -> Document:
    """Say what a document is. Errors as `PageSource`."""
    with PageSource(data, name, password=password, limits=limits) as source:
        return source.document


def rasterize(
    data: bytes,
    number: int,
    *,
    name: str = "document",
    settings: RasterSettings = RasterSettings(),
    password: str | None = None,
    limits: PageLimits = PageLimits(),
) -> Page:
    """Draw one page of a document. Errors as `PageSource` and `PageSource.page`."""
    with PageSource(data, name, settings=settings, password=password, limits=limits) as source:
        return source.page(number)


@functools.cache
def poppler_version() -> str:
    """Version of the poppler tools in use, e.g. ``22.12.0``.

    Raises:
        PopplerMissing: One of them is not installed.
    """
    _poppler_folder()
    done = subprocess.run(["pdftoppm", "-v"], capture_output=True, text=True, check=False, timeout=10)
    found = re.search(r"version (\d[\w.]*)", done.stderr)
    if found is None:
        raise errors.PopplerMissing(f"pdftoppm -v answers {done.stderr[:100]!r}: not poppler's. {_INSTALL}")
    return found[1]


_INSTALL = "Install poppler-utils (apt-get install poppler-utils)."


def _poppler_folder() -> str:
    """Search path with poppler's tools, of folders rather than of the caller's whole environment."""
    found = {tool: shutil.which(tool) for tool in _TOOLS}
    missing = [tool for tool, path in found.items() if path is None]
    if missing:
        raise errors.PopplerMissing(f"{', '.join(missing)} not found on the PATH. {_INSTALL}")
    return os.pathsep.join(dict.fromkeys(str(Path(path).parent) for path in found.values() if path))


def _check_size(size: int, name: str, limits: PageLimits) -> None:
    if size == 0:
        raise errors.DocumentEmpty(f"{name}: the file is empty (0 bytes). Fetch or export it again.")
    if size > limits.document_bytes:
        raise errors.DocumentTooLarge(
            f"{name}: {size:,} bytes; the limit is {limits.document_bytes:,}. Split it, or save it with smaller images."
        )


def _check_password(password: str | None) -> None:
    if password is None:
        return
    size = len(password.encode())
    if size > MAX_PASSWORD_BYTES or "\0" in password:
        raise errors.UsageError(
            f"the password has {size} bytes; a PDF's has at most {MAX_PASSWORD_BYTES} and no NUL. Check --password-file."
        )


class PageSource:
    """An open document, drawn page by page.

    Holds the bytes once, in sealed memory that no child can alter and that no crash leaves behind; use it as a context
    manager. Pages may be drawn from several threads at once.

    Args:
        data: The file's bytes.
        name: For messages and as the document's name.
        settings: How pages are drawn.
        password: Tried as the user's, then as the owner's.
        limits: What the document may cost.
        weigh: Told of every child that replied how many bytes of memory it or a tool of its took at most.

    Attributes:
        document: What it is; known after construction.

    Raises:
        DocumentEmpty, DocumentTooLarge, UnknownFormat: By its bytes; no child is started.
        DocumentCorrupt, DocumentEncrypted, DocumentHasNoPages, TooManyPages, RasterLimit: By counting its pages.
        PopplerMissing: It is a PDF and poppler is not installed.
        UsageError: The password cannot be one.
    """

    document: Document

    def __init__(
        self,
        data: bytes,
        name: str,
        *,
        settings: RasterSettings = RasterSettings(),
        password: str | None = None,
        limits: PageLimits = PageLimits(),
        weigh: Callable[[int], None] | None = None,
    ) -> None:
        _check_size(len(data), name, limits)
        _check_password(password)
        media_type = sniff(data)
        if media_type is None:
            raise errors.UnknownFormat(
                f"{name}: begins with {data[:8]!r}: neither a PDF nor a PNG, JPEG, WebP or TIFF image. Convert it to one."
            )
        self.name = name
        self.settings = settings
        self.limits = limits
        self._password = password or None  # an empty one is always tried
        self._media_type = media_type
        self._folder = _poppler_folder() if media_type == _PDF else ""
        self._weigh = weigh
        self._words: tuple[int, tuple[Word, ...]] | None = None
        self._fd = _sealed(data)
        try:
            count = self._ask("inspect", cap_bytes=_MESSAGE_BYTES).count
        except BaseException:
            self.close()
            raise
        self.document = Document(name, hashlib.sha256(data).hexdigest(), media_type, len(data), count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the document's bytes; may be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def recipe(self) -> str:
        """What draws the pages, and how: the same recipe gives the same digests."""
        if self._media_type == _PDF:
            draws = f"poppler {poppler_version()} pdftoppm cropbox {self.settings.dpi:g}dpi"
        else:
            draws = f"pillow {PIL.__version__}"
        return f"{draws} {self.settings.max_pixels}px"

    def page(self, number: int) -> Page:
        """Draw a page.

        Args:
            number: 1-based.

        Returns:
            The page as displayed (CropBox, rotation and /UserUnit applied) with its true resolution. For an image that
            is the resolution it claims, or the one in the settings where it claims none.

        Raises:
            PageOutOfRange: There is no such page.
            PageTooLarge: An image with more pixels than the limit.
            PageCorrupt: It cannot be drawn.
            RasterLimit: It costs more than the limits allow.
            DocumentEncrypted, PopplerMissing: As on opening.
        """
        self._check_number(number)
        reply = self._ask("raster", number, cap_bytes=3 * self.settings.max_pixels)
        size = reply.width, reply.height
        fits = 0 < reply.width <= MAX_SIDE_PX and 0 < reply.height <= MAX_SIDE_PX and reply.dpi > 0
        if not fits or len(reply.payload) != 3 * reply.width * reply.height:
            raise errors.PageCorrupt(
                f"{self._where(number)}: the child's reply contradicts itself ({size}, {reply.dpi} dpi)."
            )
        digest = hashlib.sha256(b"%dx%d:" % size)
        digest.update(reply.payload)
        image = Image.frombytes("RGB", size, reply.payload)
        return Page(self.document.sha256, number, image, reply.dpi, digest.hexdigest(), self.recipe, reply.frame)

    def pages(self, numbers: Iterable[int] | None = None) -> Iterator[Page]:
        """Draw pages one at a time, each when asked for and kept by nobody here. Errors as `page`.

        Args:
            numbers: 1-based, in the order wanted; None for all.
        """
        for number in range(1, self.document.page_count + 1) if numbers is None else numbers:
            yield self.page(number)

    def words(self, number: int) -> tuple[Word, ...] | None:
        """A page's own text, in reading order, or None without a text layer (an image, a scan). Errors as `page`."""
        self._check_number(number)
        if self._media_type != _PDF:
            return None
        if self._words is None or self._words[0] != number:  # several questions ask about one page in turn
            self._words = number, _parse_words(bytes(self._ask("words", number, cap_bytes=_WORDS_BYTES).payload))
        return self._words[1] or None

    def text_in_box(self, number: int, box: UnitBox) -> str | None:
        """The page's own text under a box, words joined by spaces; empty if there is none, None without a text layer.

        A word belongs to the box that holds its centre. Errors as `page`.
        """
        words = self.words(number)
        return None if words is None else " ".join(word.text for word in words if _holds_centre(box, word.box))

    def locks(self) -> str:
        """What the children give up before they open the document, in words; depends on the kernel and the container."""
        return bytes(self._ask("locks", cap_bytes=_MESSAGE_BYTES).payload).decode()

    def _check_number(self, number: int) -> None:
        count = self.document.page_count
        if not 1 <= number <= count:
            raise errors.PageOutOfRange(f"{self.name}: there is no page {number}; the document has {count}.")

    def _where(self, number: int) -> str:
        return f"{self.name}, page {number}" if number else self.name

    def _ask(self, action: str, number: int = 0, *, cap_bytes: int) -> _Reply:
        """Start a child for one request; `number` 0 stands for the whole document."""
        wall_s = self.limits.wall_s if number else self.limits.wall_s / 3
        request = Request(
            action=action,
            media_type=self._media_type,
            fd=self._fd,
            parent=os.getpid(),
            number=number,
            dpi=self.settings.dpi,
            max_pixels=self.settings.max_pixels,
            password=self._password,
            max_pages=self.limits.pages,
            max_image_pixels=self.limits.image_pixels,
            memory_bytes=self.limits.memory_bytes,
            cpu_s=self.limits.cpu_s,
            wall_s=wall_s,
        )
        result = _run_child(request, self._folder, HEADER.size + max(cap_bytes, _MESSAGE_BYTES))
        if result.overrun is not None:
            self._fail("raster_limit", result.overrun, number)
        reply = _parse_reply(result.stdout)
        if reply is None:
            code, detail = _explain_silence(result)
            self._fail(code or ("page_corrupt" if number else "document_corrupt"), detail, number)
        if self._weigh is not None:
            self._weigh(reply.peak_bytes)
        if reply.status != "ok":
            self._fail(reply.status, _printable(bytes(reply.payload)), number)
        return reply

    def _fail(self, code: str, detail: str, number: int) -> NoReturn:
        """Raise the error that a code stands for, in words that say what to do."""
        where = self._where(number)
        if code == "page_corrupt" and not number:
            code = "document_corrupt"
        repair = " or try qpdf or mutool on it" if self._media_type == _PDF else ""
        error, message = {
            "document_corrupt": (errors.DocumentCorrupt, f"damaged beyond repair: {detail}. Export it again{repair}."),
            "document_encrypted": (
                errors.DocumentEncrypted,
                _ENCRYPTED.get(detail, f"poppler cannot decrypt it: {detail}."),
            ),
            "document_has_no_pages": (errors.DocumentHasNoPages, "the document has 0 pages. Export it again."),
            "too_many_pages": (errors.TooManyPages, f"{detail} pages; the limit is {self.limits.pages:,}. Split it."),
            "page_too_large": (errors.PageTooLarge, f"too large to decode: {detail}. Save it with fewer pixels."),
            "raster_limit": (errors.RasterLimit, f"given up: {detail}. Print it to a new PDF or simplify it."),
            "poppler_missing": (errors.PopplerMissing, f"{detail}. {_INSTALL}"),
            "environment": (errors.EnvironmentProblem, f"the child process is incomplete: {detail}. Install Exhibit again."),
        }.get(code, (errors.PageCorrupt, f"cannot be drawn: {detail}. Export it again{repair}."))
        raise error(f"{where}: {message}")


_ENCRYPTED = {
    "missing": "encrypted, and no password was given. Write it into a file and give --password-file FILE.",
    "wrong": "encrypted, and the password given opens it neither as user nor as owner password. Check --password-file.",
}


def _sealed(data: bytes) -> int:
    """A descriptor of memory that holds the bytes and can never be changed."""
    fd = os.memfd_create("exhibit-document", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _holds_centre(box: UnitBox, word: UnitBox) -> bool:
    x, y = (word.x0 + word.x1) / 2, (word.y0 + word.y1) / 2
    return box.x0 <= x < box.x1 and box.y0 <= y < box.y1


def _printable(text: bytes) -> str:
    """Words that may come from the document, on one line, without control characters and our own file names."""
    decoded = re.sub(r"'?/proc/\d+/fd/\d+'?", "it", text[:_MESSAGE_BYTES].decode("utf-8", "replace"))
    return " ".join("".join(char if char.isprintable() else " " for char in decoded).split()).rstrip(".")


def _parse_words(payload: bytes) -> tuple[Word, ...]:
    words = []
    for line in payload.decode("utf-8", "replace").split("\n"):
        x0, y0, x1, y1, text = [*line.split(" ", 4), "", "", "", "", ""][:5]
        if text:
            words.append(Word(text, UnitBox(float(x0), float(y0), float(x1), float(y1))))
    return tuple(words)


# --- the conversation with the child ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Result:
    """What a child left: its output, or the limit that ended it."""

    stdout: bytearray
    stderr: bytes
    returncode: int
    overrun: str | None


@dataclass(frozen=True, slots=True)
class _Reply:
    status: str
    count: int
    width: int
    height: int
    dpi: float
    frame: PdfFrame | None
    peak_bytes: int
    payload: memoryview


def _run_child(request: Request, folder: str, cap_bytes: int) -> _Result:
    """Run one child to its end; whatever happens, its process group is dead and reaped afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-I", pages_child.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={"PATH": folder, "LC_ALL": "C.UTF-8"},  # nothing of ours: no credentials, no HOME
        start_new_session=True,
        pass_fds=(request.fd,),
    )
    deadline = time.monotonic() + request.wall_s + _GRACE_S
    stdout, stderr, overrun = bytearray(), bytearray(), None
    try:
        _send(process, request)
        overrun = _receive(process, stdout, stderr, cap_bytes, deadline)
        if overrun is None:
            process.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        overrun = f"no end after {request.wall_s + _GRACE_S:g} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
    return _Result(stdout, bytes(stderr[-_MESSAGE_BYTES:]), process.returncode, overrun)


def _send(process: subprocess.Popen[bytes], request: Request) -> None:
    """Send the request, which a pipe takes at once; a child that is gone already explains itself on stderr."""
    assert process.stdin is not None  # noqa: S101 - asked for above
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(asdict(request)).encode())
        process.stdin.close()


def _receive(
    process: subprocess.Popen[bytes], stdout: bytearray, stderr: bytearray, cap_bytes: int, deadline: float
) -> str | None:
    """Read both pipes until they end, the deadline passes or the output exceeds its cap; return what was exceeded."""
    with selectors.DefaultSelector() as selector:
        for pipe, sink in ((process.stdout, stdout), (process.stderr, stderr)):
            selector.register(cast("int", pipe), selectors.EVENT_READ, sink)
        while selector.get_map():
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return "the child did not end in time"
            for key, _ in selector.select(remaining_s):
                chunk = os.read(key.fd, 1 << 20)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk)
                del stderr[:-_MESSAGE_BYTES]
                if len(stdout) > cap_bytes:
                    return f"the child wrote more than {cap_bytes:,} bytes"
    return None


def _parse_reply(stdout: bytearray) -> _Reply | None:
    """The child's reply, or None if it is not one: nothing, cut short, or of values that cannot be."""
    if len(stdout) < HEADER.size:
        return None
    fields = HEADER.unpack_from(stdout)
    magic, status, count, width, height, dpi, has_frame, x0, y0, x1, y1, rotation, unit, peak_bytes, size = fields
    if magic != MAGIC or len(stdout) != HEADER.size + size or not all(map(math.isfinite, (dpi, unit, x0, y0, x1, y1))):
        return None
    if rotation not in (0, 90, 180, 270):
        return None
    frame = PdfFrame(x0, y0, x1, y1, cast("Rotation", rotation), unit) if has_frame else None
    name = status.rstrip(b"\0").decode("ascii", "replace")
    return _Reply(name, count, width, height, dpi, frame, peak_bytes, memoryview(stdout)[HEADER.size :])


def _explain_silence(result: _Result) -> tuple[str | None, str]:
    """The error code (None: corrupt) and the words for a child that ended without a reply."""
    lines = _printable_lines(result.stderr)
    last = lines[-1] if lines else "no reason given"
    if result.returncode == -signal.SIGXCPU:
        return "raster_limit", "the child used up its CPU time"
    if result.returncode < 0:
        ended = signal.Signals(-result.returncode).name
        # SIGKILL is the hard CPU limit or the machine's memory running out; other signals are crashes on bad input.
        return (
            "raster_limit" if result.returncode == -signal.SIGKILL else None
        ), f"the decoder was ended by {ended}; {last}"
    if last.startswith(("ModuleNotFoundError", "ImportError")):
        return "environment", last
    if "MemoryError" in last:
        return "raster_limit", "decoding needs more memory than the limit"
    return None, re.sub(r"^[\w.]*Error: ", "", last)


def _printable_lines(stderr: bytes) -> list[str]:
    return [line for line in map(_printable, stderr.splitlines()) if line]
