import base64
import csv
import io

import pytest
import torch
from jinja2 import UndefinedError
from markupsafe import Markup
from matplotlib.figure import Figure

from seewhy.reporting.section import csv_link, figure_html, render, sprite_html
from seewhy.reporting.sprites import Sprites


def test_csv_link_holds_the_table() -> None:
    rows = [(1, 'a "b", c', "ä\n<"), (2, "", "$")]
    link = csv_link(["number", "text", "other"], rows)
    head, _, content = link.partition(",")
    assert head == "data:text/csv;charset=utf-8;base64"
    table = list(csv.reader(io.StringIO(base64.b64decode(content).decode(), newline="")))
    assert table == [["number", "text", "other"], ["1", 'a "b", c', "ä\\n<"], ["2", "", "$"]]


def test_render_escapes_values_and_requires_them() -> None:
    html = render("sections/trust.html", unexplained="<script>alert(1)</script> & more")
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    with pytest.raises(UndefinedError, match="unexplained"):
        render("sections/trust.html")


def test_figure_html_has_a_text_alternative() -> None:
    html = figure_html(Figure(figsize=(1, 1)), "empty", 'says "<nothing>"')
    assert isinstance(html, Markup)
    assert html.startswith("<svg ")
    assert 'aria-label="says &quot;&lt;nothing&gt;&quot;"' in html


def test_sprite_html_shows_the_label_of_a_missing_image() -> None:
    sprites = Sprites({"a": torch.zeros(3, 4, 6, dtype=torch.uint8)})
    assert 'viewBox="0 0 6 4" role="img" aria-label="&lt;a&gt;"' in sprite_html(sprites, "a", "<a>")
    assert sprite_html(sprites, "b", "<b>") == '<span class="tile missing">&lt;b&gt;</span>'
