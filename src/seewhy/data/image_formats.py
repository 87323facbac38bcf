"""The image formats that are opened: a closed list, because some of Pillow's start programs."""

import importlib.util
import struct
from collections.abc import Callable
from typing import IO

from PIL import Image, UnidentifiedImageError

Opener = Callable[[IO[bytes], str], Image.Image]

# Pillow's names. EPS is a program that Ghostscript would run, and WMF is drawn by Windows.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_REFUSED = (
    (b"%!PS", "PostScript (EPS), a program, which is never run"),
    (b"\xc5\xd0\xd3\xc6", "PostScript (EPS), a program, which is never run"),
    (b"%PDF", "a PDF document"),
)


class UnusableImage(Exception):
    """An image that is not decoded; the text completes the sentence "the image is …"."""


def open_known_format(file: IO[bytes]) -> Image.Image:
    """Open an image and read its header, if its first bytes are those of one of the formats.

    Unlike `Image.open`, it neither tries other formats nor consults Pillow's global limit on the
    number of pixels. Raises UnusableImage, and Pillow's exceptions.
    """
    prefix = file.read(16)
    for opener in _openers(prefix):
        file.seek(0)
        try:
            return opener(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # as in Image.open
            continue
    if prefix[:4] in _TIFF:
        raise UnusableImage(
            "a TIFF of a kind that Pillow does not read, or damaged; convert it to 8 or 16 bits "
            "or to float32"
        )
    for start, reason in _REFUSED:
        if prefix.startswith(start):
            raise UnusableImage(reason)
    if _is_heif(prefix):
        raise UnusableImage("HEIC or HEIF, which needs a package: pip install pillow-heif")
    raise UnidentifiedImageError


def _openers(prefix: bytes) -> list[Opener]:
    """The functions that open a file with these first 16 bytes."""
    if not all(name in Image.OPEN for name in FORMATS):
        Image.init()
    openers: list[Opener] = []
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        # a string says that this build of Pillow lacks the format
        if factory is not None and (accept is None or accept(prefix) is True):
            openers.append(factory)
    if _is_heif(prefix) and importlib.util.find_spec("pillow_heif") is not None:
        from pillow_heif import HeifImageFile

        openers.append(HeifImageFile)
    return openers


def _is_heif(prefix: bytes) -> bool:
    return prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS
