"""Text from data in terminals, CSV, Markdown, HTML and JSON: shown, never acting."""

import csv
import io
import json
import shlex
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

from seewhy.escaping import (
    csv_text,
    html_text,
    json_text,
    markdown_code,
    markdown_text,
    shell_text,
    visible,
)
from seewhy.progress import make_console, note
from seewhy.train.recipe import Recipe, to_toml

SOURCE = Path(__file__).parents[1] / "src" / "seewhy"


def test_visible_writes_out_what_acts() -> None:
    assert visible("\x1b[31mred\x1b[0m\x07") == "\\x1b[31mred\\x1b[0m\\x07"
    assert visible("a\nb\tc\r\x9b31m\u202egnp\u2028") == "a\\nb\\tc\\r\\x9b31m\\u202egnp\\u2028"
    assert visible("\udcff") == "\\udcff"
    assert visible("a\nb", keep="\n") == "a\nb"
    for text in ("naïve, 猫 📷 C:\\new", "a\u200cb"):  # U+200C joins no letters in Persian
        assert visible(text) == text
    assert visible(visible("\x1b")) == visible("\x1b")


def test_csv_text_disarms_formulas() -> None:
    rows = [["=1+1", "-0.5", 3], ["+cmd|x", "@a", -2.0], ["-dash", 'plain, "quoted"', "\tx"]]
    text = csv_text(["name", "value", "n"], rows)
    assert list(csv.reader(io.StringIO(text))) == [
        ["name", "value", "n"],
        ["'=1+1", "-0.5", "3"],
        ["'+cmd|x", "'@a", "-2.0"],
        ["'-dash", 'plain, "quoted"', "\\tx"],
    ]


def test_csv_text_disarms_the_header_and_every_line() -> None:
    header = ["=cmd|' -C calc'!A0", "\r=1+1", "＝1", "-3"]
    text = csv_text(header, [["a\nfake", "\x1b", "@", 1]])
    assert list(csv.reader(io.StringIO(text))) == [
        ["'=cmd|' -C calc'!A0", "\\r=1+1", "'＝1", "-3"],
        ["a\\nfake", "\\x1b", "'@", "1"],
    ]
    assert text.count("\n") == 2


def test_markdown_text_is_no_markup() -> None:
    assert markdown_text("a|b<img src=x>\n# c `d` _e_") == (
        r"a\|b\<img src=x\>\n\# c \`d\` \_e\_".replace(r"\n", r"\\n").replace("\\\\n", "\\\\n")
    )
    assert markdown_text("http://x") == r"http\://x"
    assert markdown_code("a`b|c") == r"`a'b\|c`"


def test_html_text_is_no_markup() -> None:
    parser, seen = HTMLParser(), []
    parser.handle_starttag = lambda tag, attributes: seen.append(tag)  # type: ignore[assignment]
    parser.feed(f'<p title="{html_text(chr(34) + "><script>")}">{html_text("<b>")}</p>')
    assert seen == ["p"]
    assert html_text("\x1b\u202e\n") == "\\x1b\\u202e\n"
    assert html_text(Markup("<b>")) == "<b>"
    assert html_text(3) == 3


def test_json_text_says_the_same() -> None:
    value = {"a\x9b\u202e\x7f": ["猫\n", "\u2028", 1.5, None]}
    for indent in (None, 2):
        text = json_text(value, indent=indent)
        assert json.loads(text) == value
        assert text.isprintable() or indent
        assert "猫" in text
    assert tomllib.loads(to_toml(Recipe(model="a\x7f\x9b")))["model"] == "a\x7f\x9b"


def test_a_console_prints_data(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("[bold]x[/bold] :smile: \x1b[2J\u202e")
    assert capsys.readouterr().out == "[bold]x[/bold] :smile: \\x1b[2J\\u202e\n"
    note("a\nseewhy: fake")
    assert capsys.readouterr().err == "a\\nseewhy: fake\n"


@pytest.mark.parametrize("call", ["print(", "Console(", "csv.writer(", "ensure_ascii=False"])
def test_every_sink_is_used_by_its_function_only(call: str) -> None:
    """A file that writes to a terminal, or text for one, itself would leave names as they are."""
    allowed = {"print(": "progress.py", "Console(": "progress.py"}.get(call, "escaping.py")
    # these write to memory: the text is printed by a console of progress.py
    in_memory = {
        "Console(": {"live_output.py", "summary_table.py"},
        "ensure_ascii=False": {"exporter.py"},
    }
    found = {
        path.name
        for path in SOURCE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith(call) or f" {call}" in line or f"={call}" in line
    }
    assert found - in_memory.get(call, set()) <= {allowed}


def test_commands_to_copy_are_what_a_shell_reads() -> None:
    for path in ("run", "my run/a'b", "$(id)", "-x;y", "été"):
        assert shlex.split(f"seewhy report {shell_text(Path(path))}") == ["seewhy", "report", path]
    assert shell_text("a\nb") == r"'a\nb'"
