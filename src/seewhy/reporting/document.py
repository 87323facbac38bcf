"""Sections as one HTML file that asks nothing of a network."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files

from markupsafe import Markup

from seewhy.reporting.album import Sheet
from seewhy.reporting.section import Section, render

SCRIPTS = ("state", "maps", "gallery", "viewer", "matrix", "main")  # in assets/, each uses those before it


def document(
    title: str, headline: str, sections: Mapping[str, Section], about: str, sheets: Sequence[Sheet] = (), viewer: str = ""
) -> str:
    """The page of sections, by their anchors. `viewer` is the HTML that the scripts work with; without it there are none."""
    style, script = _asset("report.css"), _script() if viewer else ""
    return render(
        "page.html",
        title=title,
        headline=headline,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        sheets=sheets,
        sections=sections,
        data=as_json({name: section.data for name, section in sections.items() if section.data}),
        viewer=viewer,
        about=f"Made by seewhy {version('seewhy')}{about} Intervals are of 95 %.",
        version=version("seewhy"),
    )


def as_json(value: object) -> Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _asset(name: str) -> str:
    return (files("seewhy.reporting") / "assets" / name).read_text(encoding="utf-8")


def _script() -> str:
    """The scripts in one scope of their own."""
    return '"use strict";\n(() => {\n' + "\n".join(_asset(f"{name}.js") for name in SCRIPTS) + "})();\n"


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, nothing is run but what is written here."""
    styles, scripts = (
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" if text else "'none'"
        for text in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src {styles}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
