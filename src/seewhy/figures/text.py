"""Measure, wrap, and shorten text in matplotlib's current font."""

import re
import warnings

import matplotlib as mpl
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from seewhy.escaping import visible


def text_width(text: str) -> float:
    """Width of a line of text in inches."""
    if not text.strip():
        return 0.0
    font = FontProperties(size=mpl.rcParams["font.size"])
    with warnings.catch_warnings():
        # a class name may be in another script
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def text_height(lines: int) -> float:
    """Height of lines of text in inches."""
    return 1.25 * float(mpl.rcParams["font.size"]) / 72 * lines


def truncate(text: str, width: float) -> str:
    """`text`, shortened with an ellipsis to fit into `width` inches; dollar signs are escaped."""
    text = visible(text)
    full_width = text_width(text)
    if full_width > width:
        length = max(0, int(len(text) * width / full_width)) + 3  # letters differ in width
        while length > 1 and text_width(text[:length] + "…") > width:
            length -= 1
        text = text[:length].rstrip() + "…"
    return text.replace("$", r"\$")  # a dollar, not a formula


def wrap(text: str, width: float, separators: str = " ,:-") -> str:
    """`text` in lines of at most `width` inches, broken after `separators`, but not before a digit.

    A part that is too long and has no separator is shortened.
    """
    lines = [""]
    for part in re.split(rf"(?<=[{re.escape(separators)}])(?!\d)", visible(text)):
        if lines[-1] and text_width(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(truncate(line.rstrip(), width) for line in lines)
