"""Run the examples of the README, the docs and the examples directory.

A block after `<!-- not run: REASON -->` is not run. The blocks of a page share their names and a
working directory.
"""

import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

import seewhy
from seewhy.attribution.cams import CAMS
from seewhy.attribution.faithfulness import FAITHFULNESS
from seewhy.attribution.methods import METHODS
from seewhy.attribution.rollout import ATTENTION_MAPS
from seewhy.checks import CHECKS
from seewhy.cli import main
from seewhy.data import digits
from seewhy.data.augment import AUGMENTATIONS
from seewhy.data.sources import SOURCES
from seewhy.diagnosis.attacks import ATTACKS
from seewhy.diagnosis.corruptions import CORRUPTIONS
from seewhy.experiments.statistics import METRICS
from seewhy.models.registry import MODELS
from seewhy.models.tta import TTA
from seewhy.reporting.sections import SECTIONS
from seewhy.train.lr_finder import LR_SUGGESTIONS
from seewhy.train.optimizers import OPTIMIZERS
from seewhy.train.recipes import find_recipe
from seewhy.train.schedules import SCHEDULES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n)?```(\w*)\n(.*?)```", re.DOTALL)


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory of its own, and tables that are afterwards as they were."""
    monkeypatch.chdir(tmp_path)
    tables = (
        SOURCES,
        AUGMENTATIONS,
        MODELS,
        OPTIMIZERS,
        SCHEDULES,
        CAMS,
        ATTENTION_MAPS,
        FAITHFULNESS,
        CORRUPTIONS,
        SECTIONS,
        LR_SUGGESTIONS,
        METRICS,
        CHECKS,
    )
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()  # type: ignore[attr-defined]
        table.update(content)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def cache_of_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def few_digits(
    cache_of_examples: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A quarter of the digits, smaller samples: what the examples show does not depend on them."""
    all_digits = digits._digits
    if "extending.md" not in request.node.name:  # which states an accuracy
        monkeypatch.setattr(digits, "_digits", lambda: all_digits()[:450])
        monkeypatch.setenv("SEEWHY_CACHE", str(cache_of_examples))
    monkeypatch.setattr("seewhy.diagnosis.saliency.TRUST_IMAGES", 6)
    monkeypatch.setattr("seewhy.diagnosis.diagnosis.ATTACK_IMAGES", 40)
    monkeypatch.setattr("seewhy.diagnosis.diagnosis.CORRUPTION_IMAGES", 40)
    if "photos.md" in request.node.name:  # large images
        monkeypatch.setattr("seewhy.models.resnet.WIDTHS", (8, 16, 32, 64))


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of a process takes longer than a trial of the examples."""
    monkeypatch.setattr("seewhy.experiments.runner.number_of_jobs", lambda *arguments: 1)


def run_page(page: Path) -> int:
    """Run the blocks of a page in order; returns how many ran."""
    names: dict[str, object] = {"__name__": "__main__"}
    ran = 0
    for not_run, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if not_run:
            continue
        if language == "python":
            exec(compile(text, f"{page.name}: {text.splitlines()[0]}", "exec"), names)
        elif language == "console":
            for line in text.splitlines():
                if line.startswith("$ seewhy "):
                    assert main.main(shlex.split(line)[2:]) == 0, line
        elif language == "toml":
            Path("mine.toml").write_text(text)
            find_recipe("mine.toml")
        else:
            continue
        ran += 1
    return ran


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("few_digits", "blank_figures")
def test_the_examples_of_a_page_run(page: Path) -> None:
    assert run_page(page) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name
)
@pytest.mark.usefixtures("few_digits")
def test_a_script_runs(script: Path) -> None:
    exec(compile(script.read_text(encoding="utf-8"), str(script), "exec"), {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", sorted((ROOT / "examples" / "experiments").glob("*.py")), ids=lambda path: path.name
)
@pytest.mark.usefixtures("blank_figures")
def test_an_experiment_runs(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    base = import_module("base")
    monkeypatch.setattr(
        base, "BASE", replace(base.BASE, model="speednet:width=0.05", batch_size=20, epochs=2)
    )
    monkeypatch.setattr(base, "IMAGES", 100)
    monkeypatch.setattr(base, "SEEDS", 1)
    monkeypatch.setattr(sys, "argv", [str(script), "digits"])
    exec(compile(script.read_text(encoding="utf-8"), str(script), "exec"), {"__name__": "__main__"})
    assert script.name == "base.py" or "has the" in capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), (
                f"{page.name}: {target}"
            )


def test_every_augmentation_optimizer_schedule_and_model_is_in_the_docs() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for table in (AUGMENTATIONS, OPTIMIZERS, SCHEDULES, MODELS, SOURCES, TTA, METHODS, ATTACKS):
        for name in table:
            assert re.search(rf"[`\s]{re.escape(name)}[`:\s,]", text), name


def test_names_of_diagnosis_figures_and_reporting_are_in_the_guide() -> None:
    text = "".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))
    )
    packages = (seewhy.diagnosis, seewhy.figures, seewhy.reporting)
    public = [
        name
        for package in packages
        for name in package.__all__
        if inspect.isfunction(getattr(package, name))
    ]
    assert len(public) > 40
    for name in ("ATTACKS", "CORRUPTIONS", "SECTIONS", *CORRUPTIONS, *SECTIONS, *public):
        assert re.search(rf"[`.]{re.escape(name)}[`(]", text), name


def test_every_command_is_in_the_readme_and_no_other_one_is_named() -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("## Commands")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(?:seewhy )?([a-z-]+)[ `]", table))
    assert set(main.COMMANDS) <= listed
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md", ROOT / "SECURITY.md"]:
        named = set(re.findall(r"(?:`|^    (?:\$ )?)seewhy ([a-z][a-z-]*)", page.read_text(), re.M))
        assert named <= set(main.COMMANDS), page.name


def test_names_of_the_glossary_are_in_the_source() -> None:
    glossary = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Glossary")[1]
    rows = re.findall(r"^\| (?!term|---)(.+?) \| (.+?) \| (.+?) \|$", glossary, re.MULTILINE)
    assert 30 <= len(rows) <= 60
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    words = set(re.findall(r"\w+", source))
    for _, _, places in rows:
        for name in re.findall(r"`(\w+)(?:\.(\w+))?", places):
            for part in filter(None, name):
                assert part in words, part
        for file_name in re.findall(r"[a-z_]+\.(?:csv|json|toml|npz|jsonl)", places):
            assert file_name in source or file_name.partition(".")[0] in source, file_name


def test_every_number_of_the_readme_is_in_the_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("## Benchmarks")[1].split("\n## ")[0]
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\d[\d,.]*(?: images/s| ms\b| s\b|%)|\d[\d.]*x", table)
    assert len(numbers) >= 30
    for number in numbers:
        assert number in results, number
