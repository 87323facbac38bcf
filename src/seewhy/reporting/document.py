"""An HTML page of sections in one file, with its style, scripts and a security policy."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from seewhy import __version__
from seewhy.escaping import json_text, visible
from seewhy.reporting.section import Section, render
from seewhy.reporting.sprites import SpriteSheet

SCRIPTS = (
    "state",
    "maps",
    "gallery",
    "neighbors",
    "viewer",
    "matrix",
    "labels",
    "image_map",
    "main",
)  # in assets/, in order of use


def render_document(
    title: str,
    headline: str,
    sections: Mapping[str, Section],
    source: str,
    sheets: Sequence[SpriteSheet] = (),
    viewer: str = "",
) -> str:
    """The HTML of a page with sections, keyed by anchor.

    `source` is the origin of the page, shown in the footer. `viewer` is the HTML of the dialogs;
    without it the page has no scripts.
    """
    style, script = _asset("report.css"), _script() if viewer else ""
    return render(
        "page.html",
        title=title,
        headline=headline,
        policy=_content_security_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        sheets=sheets,
        photos=not all(sheet.lossless for sheet in sheets),
        sections=sections,
        data=script_json({key: section.data for key, section in sections.items() if section.data}),
        viewer=viewer,
        source=source,
        version=__version__,
    )


def script_json(value: object) -> Markup:
    """JSON that cannot end the script element around it."""
    text = json_text(_visible(value), separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _visible(value: Any) -> Any:
    """A JSON value whose strings show all of their characters, as HTML does."""
    if isinstance(value, str):
        return visible(value, keep="\n\t")
    if isinstance(value, Mapping):
        return {_visible(name): _visible(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_visible(each) for each in value]
    return value


def _asset(name: str) -> str:
    return (files("seewhy.reporting") / "assets" / name).read_text(encoding="utf-8")


def _script() -> str:
    """All scripts in one scope."""
    scripts = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{scripts}}})();\n'


def _content_security_policy(style: str, script: str) -> str:
    """Allow the style and the script of the page, and nothing else."""
    styles, scripts = (_hash(text) if text else "'none'" for text in (style, script))
    return (
        f"default-src 'none'; img-src data:; style-src {styles}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
