"""The short-lived process in which every hostile byte is opened: one request on stdin, one reply on stdout, then it ends.

`pipeline.pages` runs this file by its path with ``python -I``, so it imports nothing of Exhibit. Its first act is to limit
itself (memory, CPU, files, processes), to lock itself in (`lock_in`) and to ask to die with its parent; poppler's tools,
which it starts, inherit all of it. The document arrives as an inherited descriptor, so nothing has to be written anywhere.

A reply is one fixed `HEADER` and a payload whose length the header gives: raw RGB, UTF-8 text, or an error's message. What
this process did not expect (a decoder raising some new exception, a crash) is left to end it: the parent takes the absence
of a reply as "corrupt" and quotes the last line of stderr.

This bounds what a hostile file costs. A file that takes the process over finds, as far as the kernel offers it, no network,
no other process, no file but programs, libraries and fonts (no credentials of the worker's user, no database), and few ways
to attack the kernel; `exhibit doctor` says what of this is in force.
"""

from __future__ import annotations

import ctypes
import html
import json
import math
import os
import re
import resource
import signal
import stat
import struct
import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from PIL import Image

MAGIC = b"EXHIBIT1"
# magic, status, count, width, height, dpi, whether there is a frame, its x0 y0 x1 y1, rotation, user unit, most bytes of
# memory, bytes of payload
HEADER = struct.Struct("<8s24sIIId?4dHdQQ")

MAX_SIDE_PX = 8192  # of a raster; 40 inches at 200 dpi
PILLOW_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/tiff": "TIFF"}

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF 2.3, 4.6.4: how to turn what is stored for display
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}

_MESSAGE_CHARS = 300
_CREDIBLE_DPI = (30, 2400)  # what an image file may claim; cameras write 1 or 72000
_PROCESSES = 1024  # headroom over what runs already: the kernel counts all of the user's threads, not only ours
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # <linux/prctl.h>
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # <linux/sched.h>
_CLONE_NEW_ANYTHING = 0x7E020000  # all namespaces
_CAPABILITY_VERSION = 0x20080522  # <linux/capability.h>

# <linux/landlock.h>: system calls (the same numbers everywhere), and rights as bits.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # all that a version knows, but for devices' ioctl
_READABLE = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/opt",
    "/nix/store",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/var/cache/fontconfig",
)

# <linux/seccomp.h>, <linux/filter.h>, <linux/audit.h>
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data, both little-endian
_ALLOW, _DENY, _UNKNOWN, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # EPERM, ENOSYS
_ARCHITECTURES = {"x86_64": (0xC000003E, 56), "aarch64": (0xC00000B7, 220)}  # AUDIT_ARCH_…, clone
_CLONE3 = 435
_DENIED = {  # system calls by number, on x86-64 and on 64-bit ARM
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What the parent asks for; trusted.

    Attributes:
        action: ``inspect``, ``raster``, ``words``, or ``locks`` for what `lock_in` achieved.
        media_type: As sniffed from the bytes.
        fd: Descriptor of the document, inherited.
        parent: Process id of the asker, to notice that it is gone.
        number: Page, 1-based.
        dpi: Wanted resolution; lower where the caps ask for it.
        max_pixels: Cap on width times height of the raster.
        password: Tried as user, then as owner password.
        max_pages, max_image_pixels: Caps on what a document may hold.
        memory_bytes, cpu_s: Limits of this process and of each tool it starts.
        wall_s: Time for the whole request; the parent's own clock is the backstop.
    """

    action: str
    media_type: str
    fd: int
    parent: int
    number: int
    dpi: float
    max_pixels: int
    password: str | None
    max_pages: int
    max_image_pixels: int
    memory_bytes: int
    cpu_s: int
    wall_s: float

    @property
    def path(self) -> str:
        """Where this process and the tools it starts can open the document."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"


@dataclass(frozen=True, slots=True)
class Frame:
    """A PDF page's displayed box: user-space units, bottom-left origin; what `geometry.PdfFrame` holds."""

    x0: float
    y0: float
    x1: float
    y1: float
    rotation: int
    user_unit: float

    @property
    def displayed_pt(self) -> tuple[float, float]:
        """Width and height as displayed, in points (1/72 inch)."""
        width, height = (self.x1 - self.x0) * self.user_unit, (self.y1 - self.y0) * self.user_unit
        return (height, width) if self.rotation in (90, 270) else (width, height)


class Refused(Exception):
    """A failure with a name: ends the request with that code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def fit_raster(width: float, height: float, max_pixels: int) -> tuple[int, int]:
    """Scale a raster down, never up, until it keeps both caps.

    Args:
        width: Wanted width in pixels, positive.
        height: Wanted height in pixels, positive.
        max_pixels: Cap on width times height; `MAX_SIDE_PX` caps each side.

    Returns:
        Width and height, at least 1.
    """
    scale = min(1.0, math.sqrt(max_pixels / width / height), MAX_SIDE_PX / max(width, height))
    if scale == 1.0 and round(width) * round(height) <= max_pixels:
        return max(round(width), 1), max(round(height), 1)
    return max(int(width * scale), 1), max(int(height * scale), 1)


def limit_process(request: Request) -> list[str]:
    """Limit this process and what it starts, for good; dies if the parent is gone already. Returns what `lock_in` does."""
    bounds = {
        resource.RLIMIT_AS: request.memory_bytes,
        resource.RLIMIT_CPU: request.cpu_s,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: _PROCESSES + _running_tasks(),
    }
    for limit, bound in bounds.items():
        hard = resource.getrlimit(limit)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(limit, (bound, bound))
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != request.parent:  # it ended before prctl, so no signal will come
        sys.exit(1)
    return lock_in(libc)


def lock_in(libc: ctypes.CDLL) -> list[str]:
    """Give up what drawing a page never needs, as far as the kernel offers it; return in words what was given up.

    None of it needs privileges, so it holds in containers too, whose own limits it adds to.
    """
    locks = {
        "no network": _leave_the_network(libc),
        "no new privileges": libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0,
        "no capabilities": _leave_capabilities(libc),
        "no files but programs and fonts": _leave_the_files(libc),
        "no dangerous system calls, sockets among them": _leave_system_calls(libc),
    }
    return [lock for lock, holds in locks.items() if holds]


def _leave_the_network(libc: ctypes.CDLL) -> bool:
    """Move to a network without any device where the system lets us: root may, others by way of a user namespace."""
    # Containers usually forbid both; there, no socket can be made (see below).
    return bool(libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def _leave_capabilities(libc: ctypes.CDLL) -> bool:
    """Give up root's rights, and those over a user namespace of our own.

    With these, the tools, which have lost them, could not open the document through this process's descriptors.
    """
    left = libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24)) == 0
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # a new user namespace has hidden them as well
    return bool(left)


def _leave_the_files(libc: ctypes.CDLL) -> bool:
    """See and run only programs, libraries and fonts (Landlock); reach no socket and signal no process outside."""
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    handled = _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]
    attributes = struct.pack("QQQ", handled, 0b11, 0b11)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        return False
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *sys.path, sys.prefix, sys.base_prefix]
    for path in {*_READABLE, *map(os.path.realpath, filter(None, folders))}:
        _let(libc, rules, path, _EXECUTE | _READ_FILE | _READ_DIR)
    _let(libc, rules, "/dev/null", _READ_FILE | _WRITE_FILE)
    _let(libc, rules, "/proc/self", _READ_FILE)
    holds = libc.syscall(_LANDLOCK_RESTRICT, rules, 0) == 0
    os.close(rules)
    return bool(holds)


def _let(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    """Add a path, if there is one, to what may be opened."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        rights &= ~_READ_DIR
    libc.syscall(_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, place), 0)
    os.close(place)


def _leave_system_calls(libc: ctypes.CDLL) -> bool:
    """Let the kernel refuse what is of use only to an attacker (seccomp); where the numbers are not known, nothing."""
    machine = os.uname().machine
    if machine not in _ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    program = _system_call_filter(machine)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    filled = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))  # struct sock_fprog
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filled, 0, 0) == 0)


def _system_call_filter(machine: str) -> list[tuple[int, int, int, int]]:
    """The filter as instructions (code, lines to skip if true, if false, value)."""
    architecture, clone = _ARCHITECTURES[machine]
    numbers = [pair[list(_ARCHITECTURES).index(machine)] for pair in _DENIED.values()]
    wide = [(_IF_AT_LEAST, len(numbers) + 6, 0, 0x40000000)] if machine == "x86_64" else []  # x32: the same calls once more
    listed = [(_IF_EQUAL, len(numbers) - index + 5, 0, number) for index, number in enumerate(numbers)]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),  # the calls of another architecture have other numbers
        (_LOAD, 0, 0, _NUMBER_AT),
        *wide,
        *listed,
        (_IF_EQUAL, 4, 0, _CLONE3),  # its flags cannot be seen; libraries fall back on clone
        (_IF_EQUAL, 0, 2, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_IF_ANY_BIT, 2, 0, _CLONE_NEW_ANYTHING),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _UNKNOWN),
        (_RETURN, 0, 0, _DENY),
    ]


def _running_tasks() -> int:
    """Threads on this machine, an upper bound on the user's own."""
    with open("/proc/loadavg", encoding="ascii") as loadavg:  # noqa: PTH123 - a start 10 ms faster without pathlib
        return int(loadavg.read().split()[3].split("/")[1])


def reply(
    out: IO[bytes],
    status: str = "ok",
    *,
    count: int = 0,
    size: tuple[int, int] = (0, 0),
    dpi: float = 0.0,
    frame: Frame | None = None,
    payload: bytes = b"",
) -> None:
    """Write the one reply."""
    box = (0.0,) * 4 if frame is None else (frame.x0, frame.y0, frame.x1, frame.y1)
    turn = (0, 1.0) if frame is None else (frame.rotation, frame.user_unit)
    fields = (status.encode(), count, *size, dpi, frame is not None, *box, *turn, _peak_bytes(), len(payload))
    out.write(HEADER.pack(MAGIC, *fields))
    out.write(payload)
    out.flush()


def _peak_bytes() -> int:
    """The most memory that this process or one of its tools has had."""
    # What the kernel counts as this process's own maximum (`getrusage`) begins with its parent's, which may hold a model.
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123
        own = re.search(r"VmHWM:\s+(\d+)", status.read())
    return max(int(own[1]) if own else 0, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024


# --- PDF: poppler -----------------------------------------------------------------------------------------------------


def _tool(request: Request, name: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run one of poppler's tools on the document, its output in memory."""
    try:
        return subprocess.run(
            [name, *options], capture_output=True, timeout=request.wall_s, check=False, stdin=subprocess.DEVNULL
        )
    except (FileNotFoundError, PermissionError) as exc:
        raise Refused("poppler_missing", f"{name} cannot be run ({exc.strerror})") from None
    except subprocess.TimeoutExpired:
        raise Refused("raster_limit", f"{name} ran longer than {request.wall_s:g} s") from None


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"


def _cpu_spent(request: Request) -> bool:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime >= request.cpu_s - 1


def _refuse(request: Request, code: str, failed: subprocess.CompletedProcess[bytes]) -> NoReturn:
    """Name the failure of one of poppler's tools."""
    reason = _last_line(failed.stderr)
    if failed.returncode == -signal.SIGXCPU or (failed.returncode == -signal.SIGKILL and _cpu_spent(request)):
        raise Refused("raster_limit", f"poppler used up its {request.cpu_s} s of CPU time")
    if "ut of memory" in reason or "bad_alloc" in reason or "memory allocation" in reason:
        raise Refused("raster_limit", f"poppler used up its {request.memory_bytes >> 20} MB of memory")
    if failed.returncode < 0:
        reason = f"poppler crashed ({signal.Signals(-failed.returncode).name}); {reason}"
    raise Refused(code, reason)


def _pdfinfo(request: Request, *options: str) -> tuple[str, tuple[str, ...]]:
    """What pdfinfo prints, and the password option that opened the document.

    pdf2image has no way to ask for the boxes or to see why pdfinfo refused, so this calls the tool itself.
    """
    keys: list[tuple[str, ...]] = [()]  # an empty user password opens what most "encrypted" documents are
    if request.password is not None:
        keys += [("-upw", request.password), ("-opw", request.password)]
    for key in keys:
        done = _tool(request, "pdfinfo", "-box", *options, *key, request.path)
        if done.returncode == 0:
            return done.stdout.decode("utf-8", "replace"), key
        if b"ncorrect password" not in done.stderr:
            break
    if b"ncorrect password" in done.stderr:
        raise Refused("document_encrypted", "wrong" if request.password is not None else "missing")
    for line in done.stderr.splitlines():
        if b"security handler" in line or b"ncrypt" in line:
            raise Refused("document_encrypted", line.decode("utf-8", "replace"))
    if b"Wrong page range" in done.stderr:
        raise Refused("document_has_no_pages", "")
    _refuse(request, "document_corrupt", done)


def _last(pattern: str, text: str) -> str | None:
    # The last, because the title and other words of the document's own come first.
    found = re.findall(pattern, text, re.MULTILINE)
    return found[-1] if found else None


def _count_pdf(request: Request) -> int:
    count = _last(r"^Pages:\s+(-?\d+)$", _pdfinfo(request)[0])
    if count is None:
        raise Refused("document_corrupt", "pdfinfo gives no page count")
    return int(count)


def _pdf_page(request: Request) -> tuple[Frame, tuple[str, ...]]:
    """The page's frame, and the password option that opened the document."""
    page = str(request.number)
    info, key = _pdfinfo(request, "-f", page, "-l", page)
    number = r"(-?[\d.]+(?:e[+-]?\d+)?)"
    sizes = re.findall(rf"^Page +{page} size: +{number} x {number} pts", info, re.MULTILINE)
    boxes = re.findall(rf"^Page +{page} CropBox: +{number} +{number} +{number} +{number}$", info, re.MULTILINE)
    if not sizes or not boxes or min(width_height := [float(side) for side in sizes[-1]]) <= 0:
        raise Refused("page_corrupt", "poppler finds no such page, although the document counts it")
    rotation = int(_last(rf"^Page +{page} rot: +(\d+)$", info) or 0)
    # The size has six digits, the box two decimals: the corner of one and the extent of the other are the most exact.
    x0, y0 = float(boxes[-1][0]), float(boxes[-1][1])
    width, height = width_height
    turn = rotation if rotation in (90, 180, 270) else 0  # poppler draws any other angle upright
    return Frame(x0, y0, x0 + width, y0 + height, turn, _user_unit(request)), key


def _user_unit(request: Request) -> float:
    """The page's /UserUnit, which poppler (22.12) ignores.

    Only documents that can hold one are asked: pdfseparate writes the page's dictionary in plain text, under poppler's own
    idea of which page it is. A document that opens only with a password cannot be asked and counts as 1.
    """
    with open(request.path, "rb") as document:  # noqa: PTH123
        data = document.read()
    if b"/UserUnit" not in data and b"/ObjStm" not in data:
        return 1.0
    page = str(request.number)
    done = _tool(request, "pdfseparate", "-f", page, "-l", page, request.path, "/dev/stdout")
    found = re.search(rb"/UserUnit\s+(\d+(?:\.\d+)?)", done.stdout[max(done.stdout.rfind(b"/Type /Page "), 0) :])
    unit = float(found[1]) if found else 1.0
    return unit if 0 < unit <= 75000 else 1.0  # Acrobat's own bound


def _draw_pdf(request: Request, frame: Frame, key: tuple[str, ...]) -> Image.Image:
    """Draw the page so that the raster spans the CropBox exactly, whatever the rounding of its sides."""
    import pdf2image
    from pdf2image import exceptions

    width_pt, height_pt = frame.displayed_pt
    size = fit_raster(width_pt * request.dpi / 72, height_pt * request.dpi / 72, request.max_pixels)
    # poppler (22.12) scales before it turns the page.
    scale = size[::-1] if frame.rotation in (90, 270) else size
    password: dict[str, Any] = {{"-upw": "userpw", "-opw": "ownerpw"}[key[0]]: key[1]} if key else {}
    try:
        images = pdf2image.convert_from_path(
            request.path,
            first_page=request.number,
            last_page=request.number,
            use_cropbox=True,
            size=scale,
            timeout=math.ceil(request.wall_s),
            **password,
        )
    except exceptions.PDFPopplerTimeoutError:
        raise Refused("raster_limit", f"drawing the page took longer than {request.wall_s:g} s") from None
    except exceptions.PDFInfoNotInstalledError:
        raise Refused("poppler_missing", "pdfinfo was not found") from None
    if not images:
        _explain(request, scale, key)
    image = images[0]
    if not (0 <= image.width - size[0] <= 1 and 0 <= image.height - size[1] <= 1):
        raise Refused("page_corrupt", f"poppler drew {image.size} pixels where {size} were asked for")
    if image.size != size:  # poppler rounds up what floating point leaves over the last pixel: an empty column or row
        image = image.crop((0, 0, *size))
    return image


def _explain(request: Request, scale: tuple[int, int], key: tuple[str, ...]) -> NoReturn:
    """Draw once more to learn why nothing came: pdf2image drops poppler's exit status and words."""
    if _cpu_spent(request):
        raise Refused("raster_limit", f"poppler used up its {request.cpu_s} s of CPU time")
    page, x, y = (str(number) for number in (request.number, *scale))
    options = ("-cropbox", "-f", page, "-l", page, "-scale-to-x", x, "-scale-to-y", y)
    _refuse(request, "page_corrupt", _tool(request, "pdftoppm", *options, *key, request.path))


def _raster_pdf(request: Request, out: IO[bytes]) -> None:
    frame, key = _pdf_page(request)
    image = _draw_pdf(request, frame, key)
    # The longer side rounds least.
    dpi = max(image.size) * 72 / max(frame.displayed_pt)
    reply(out, size=image.size, dpi=dpi, frame=frame, payload=image.convert("RGB").tobytes())


def _words_pdf(request: Request, out: IO[bytes]) -> None:
    """Reply with one line per word: ``x0 y0 x1 y1 text``, 0-1 of the displayed page."""
    frame, key = _pdf_page(request)
    page = str(request.number)
    done = _tool(request, "pdftotext", "-bbox", "-cropbox", "-f", page, "-l", page, *key, request.path, "-")
    if done.returncode != 0:
        _refuse(request, "page_corrupt", done)
    # pdftotext measures from the displayed page's top left corner, in units that know no UserUnit.
    width, height = (side / frame.user_unit for side in frame.displayed_pt)
    lines = []
    word = re.compile(r'<word xMin="([-\d.]+)" yMin="([-\d.]+)" xMax="([-\d.]+)" yMax="([-\d.]+)">(.*?)</word>', re.DOTALL)
    for x0, y0, x1, y1, text in word.findall(done.stdout.decode("utf-8", "replace")):
        box = (float(x0) / width, float(y0) / height, float(x1) / width, float(y1) / height)
        # One word, one line: whatever a font's table maps a glyph to.
        lines.append(" ".join([*(f"{min(max(side, 0), 1):.6f}" for side in box), "".join(html.unescape(text).split())]))
    reply(out, count=len(lines), payload="\n".join(lines).encode())


# --- images: Pillow ---------------------------------------------------------------------------------------------------


def _open_image(request: Request) -> Image.Image:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = request.max_image_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        return Image.open(request.path, formats=[PILLOW_FORMATS[request.media_type]])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        pixels = re.search(r"\d+", str(exc))
        raise _too_many_pixels(int(pixels[0]) if pixels else 0, request) from None


def _count_image(request: Request) -> int:
    """Frames of a TIFF, up to one more than is allowed; any other image, animated or not, is one page."""
    image = _open_image(request)
    count = 1
    while request.media_type == "image/tiff" and count <= request.max_pages:
        try:
            image.seek(count)
        except EOFError:
            break
        count += 1
    return count


def _raster_image(request: Request, out: IO[bytes]) -> None:
    from PIL import Image

    image = _open_image(request)
    if request.media_type == "image/tiff":
        image.seek(request.number - 1)
    if image.width * image.height > request.max_image_pixels:
        raise _too_many_pixels(image.width * image.height, request)
    x_dpi, y_dpi = _image_dpi(image, request.dpi)
    # A fax has pixels that are not square: draw the page as it was seen, at the finer of its two resolutions.
    dpi = max(x_dpi, y_dpi)
    wanted = (image.width * dpi / x_dpi, image.height * dpi / y_dpi)
    size = fit_raster(*wanted, request.max_pixels)
    if image.format == "JPEG":
        image.draft(None, size)  # decode at 1/2, 1/4 or 1/8 where that is still large enough
    image.load()
    turn = _orientation(image)
    image = _as_rgb(image)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    dpi *= max(size) / max(wanted)
    if turn in _UPRIGHT:
        image = image.transpose(Image.Transpose[_UPRIGHT[turn]])
    reply(out, size=image.size, dpi=dpi, payload=image.tobytes())


def _too_many_pixels(pixels: int, request: Request) -> Refused:
    return Refused("page_too_large", f"{pixels:,} pixels; the limit is {request.max_image_pixels:,}")


def _image_dpi(image: Image.Image, default: float) -> tuple[float, float]:
    """The file's own resolution (x, y), or the one asked for where it gives none that can be believed."""
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return default, default
    low, high = _CREDIBLE_DPI
    if not (low <= x <= high and low <= y <= high and 0.25 <= x / y <= 4):
        return default, default
    # PNG and WebP store pixels per metre: a percent is rounding, not a shape.
    return (x, x) if 0.99 <= x / y <= 1.01 else (x, y)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Eight bits of RGB: transparency over white, 16 bits scaled, wider ranges stretched."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value * (255 / 65535) + 0.5).convert("L")
    elif image.mode in ("I", "F"):
        low, high = image.getextrema()
        gain = 255 / (high - low) if high > low else 0.0  # type: ignore[operator]
        image = image.point(lambda value: value * gain - low * gain).convert("L")  # type: ignore[operator]
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode == "LAB":
        raise Refused("page_corrupt", "CIE Lab colours are not supported: save the image as RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that is left to apply (loading a TIFF applies it), or 1, upright, where EXIF cannot be read."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):  # broken metadata on a good image
        return 1


# --- the one request --------------------------------------------------------------------------------------------------


def _inspect(request: Request, out: IO[bytes]) -> None:
    count = _count_pdf(request) if request.media_type == "application/pdf" else _count_image(request)
    if count < 1:
        raise Refused("document_has_no_pages", "")
    # A TIFF is counted only up to the limit, so the number would be wrong in a message.
    if count > request.max_pages:
        raise Refused(
            "too_many_pages", str(count) if request.media_type == "application/pdf" else f"over {request.max_pages}"
        )
    reply(out, count=count)


def answer(request: Request, locks: list[str], out: IO[bytes]) -> None:
    """Do what is asked and write the reply; errors without a name end the process."""
    pdf = request.media_type == "application/pdf"
    actions = {"inspect": _inspect, "raster": _raster_pdf if pdf else _raster_image, "words": _words_pdf}
    try:
        if request.action == "locks":
            reply(out, payload=", ".join(locks).encode())
        else:
            actions[request.action](request, out)
    except Refused as exc:
        reply(out, exc.code, payload=str(exc)[:_MESSAGE_CHARS].encode("utf-8", "replace"))
    except MemoryError:
        reply(out, "raster_limit", payload=f"decoding needs more than {request.memory_bytes >> 20} MB of memory".encode())


def main() -> None:
    """Read the request, give up all but what it needs, answer."""
    request = Request(**json.load(sys.stdin))
    answer(request, limit_process(request), sys.stdout.buffer)


if __name__ == "__main__":
    main()
