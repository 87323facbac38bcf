"""What the sections say, of an ordinary study and of odd ones."""

import re
from dataclasses import replace
from html import unescape

import pytest
import torch

from seewhy.data.dataset import Dataset
from seewhy.reporting.context import ReportContext, make_context
from seewhy.reporting.page import _images, page
from seewhy.reporting.section import Section
from seewhy.reporting.sections.calibration import calibration_section
from seewhy.reporting.sections.robustness import least_attack, worst_corruption
from seewhy.reporting.sections.table import SECTIONS
from seewhy.reporting.sprites import Sprites
from seewhy.runs.run import Run
from seewhy.train.lr_finder import LRRangeTest


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "seewhy.reporting.section.inline_svg", lambda figure, name, description: "<svg></svg>"
    )


def sections(asked: ReportContext) -> dict[str, Section]:
    album = Sprites(_images(asked))
    made = {name: section(asked, album) for name, section in SECTIONS.items()}
    return {name: section for name, section in made.items() if section is not None}


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


@pytest.mark.usefixtures("no_figures")
def test_every_finding_is_a_sentence_with_a_number(odd: ReportContext) -> None:
    made = sections(odd)
    assert set(made) == set(SECTIONS) - {"comparison", "experiment"}
    for section in made.values():
        assert re.search(r"\d", section.finding)
        assert section.finding.endswith(".")
        assert "nan" not in section.finding
        assert "None" not in section.finding
        assert not re.search(r"\bnan\b", text_of(section.html))
    wrong = int((odd.test.logits.argmax(1) != odd.test.labels).sum())
    assert made["mistakes"].finding.startswith(
        f"{wrong} of {len(odd.test.labels)} test images {'is' if wrong == 1 else 'are'} "
    )
    assert made["mistakes"].data["index"] == odd.diagnosis.errors.tolist()
    assert len(re.findall(r'id="image-\d+"', made["mistakes"].html)) == wrong


@pytest.mark.parametrize("odd", ["perfect", "absent class", "no layer"], indirect=True)
def test_odd_studies_make_a_page(odd: ReportContext) -> None:
    made = page(odd)
    assert len(re.findall(r"<section id=", made.html)) == len(SECTIONS) - 2
    figures = set(made.figures) - {
        "confusion",
        "corrupted",
        "evidence",
    }  # which the page shows without a figure
    assert len(figures) >= 8
    assert made.html.count('<svg class="plot"') == len(figures)
    assert odd.diagnosis.saliency_error in unescape(made.html)


@pytest.fixture(scope="module")
def said(asked: ReportContext) -> dict[str, Section]:
    """The sections of the ordinary study, without figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "seewhy.reporting.section.inline_svg", lambda figure, name, description: "<svg></svg>"
        )
        return sections(asked)


def test_classes(asked: ReportContext, said: dict[str, Section]) -> None:
    found = said["classes"]
    result = asked.test
    right = [
        (
            int((result.correct & (result.labels == index)).sum()),
            int((result.labels == index).sum()),
        )
        for index in range(4)
    ]
    shares = [good / images for good, images in right]
    best, worst = (
        max(range(4), key=lambda index: shares[index]),
        min(range(4), key=lambda index: shares[index]),
    )
    assert f"{100 * max(shares):.1f}% of {right[best][1]} images" in found.finding
    assert f"{100 * min(shares):.1f}% of {right[worst][1]}" in found.finding
    text = text_of(found.html)
    for name, share in zip(result.classes, shares, strict=True):
        assert name in text
        assert f"{100 * share:.1f}%" in text


@pytest.mark.usefixtures("no_figures")
def test_calibration_says_in_which_direction(asked: ReportContext) -> None:
    for factor, word in ((20.0, "overconfident"), (0.01, "underconfident")):
        result = replace(asked.test, logits=asked.test.logits * factor)
        finding = calibration_section(replace(asked, test=result), Sprites({})).finding
        mean = result.logits.double().softmax(1).amax(1).mean().item()
        assert word in finding
        assert f"{100 * mean:.1f}% sure" in finding


def test_robustness(asked: ReportContext, said: dict[str, Section]) -> None:
    diagnosis = asked.diagnosis
    attack, harm = least_attack(diagnosis), worst_corruption(diagnosis)
    at = {
        curve.name: curve.accuracy[
            [round(255 * level, 3) for level in curve.levels.tolist()].index(1.0)
        ].item()
        for curve in diagnosis.attacks
    }
    assert attack.epsilon == "1/255"
    assert attack.accuracy == min(at.values())
    assert at[attack.name.lower()] == attack.accuracy
    means = {curve.name: sum(curve.accuracy.tolist()[1:]) for curve in diagnosis.corruptions}
    assert means[harm.name] == min(means.values())
    finding = said["robustness"].finding
    of = f"on {attack.images} test images from {100 * attack.clean:.1f}% to {100 * attack.accuracy:.1f}% ({attack.name})"
    assert of in finding
    assert (
        f"{harm.name} costs most, down to {100 * harm.accuracy[5]:.1f}% of {harm.images} at strength 5"
        in finding
    )


def test_labels_and_duplicates(asked: ReportContext, said: dict[str, Section]) -> None:
    found = said["labels"]
    assert re.match(r"\d+ test labels? \(\d+\.\d%\) (is|are) in doubt, and ", found.finding)
    twins = {dict((pair.first, pair.second))["test"] for pair in asked.diagnosis.duplicates}
    right = [
        bool(good) for index, good in enumerate(asked.test.correct.tolist()) if index not in twins
    ]
    assert f"and {len(twins)} test image" in found.finding
    assert found.finding.endswith(f"without them {100 * sum(right) / len(right):.2f}% are right.")
    assert ("train", 7) in {pair.first for pair in asked.diagnosis.duplicates} | {
        pair.second for pair in asked.diagnosis.duplicates
    }
    assert "bar-" in text_of(found.html)
    assert "photos/" not in text_of(found.html)


def test_a_rate_that_was_found_is_shown_with_its_range_test(
    asked: ReportContext, said: dict[str, Section]
) -> None:
    losses = tuple(2.3 - 0.05 * max(0, place - 12) for place in range(30))
    found = LRRangeTest(
        tuple(10.0 ** (place / 5 - 6) for place in range(30)),
        losses,
        losses,
        "at the end of the range",
    )
    section = sections(replace(asked, run=replace(asked.run, range_test=found)))["training"]
    assert "range_test" in section.figures
    assert "The range test that found the learning rate." in section.html
    assert "range_test" not in said["training"].figures


def test_training(asked: ReportContext, said: dict[str, Section]) -> None:
    found = said["training"]
    assert found.finding.startswith("3 epochs took ")
    assert f"a training loss of {asked.run.history[-1].train_loss:.3f}" in found.finding
    text = text_of(found.html)
    assert "5" * 32 in text
    assert 'model = "speednet:width=0.125"' in text


@pytest.mark.usefixtures("no_figures")
def test_comparison(asked: ReportContext, later: Run, data: Dataset) -> None:
    both = make_context(asked.run, later, data, quiet=True)
    before, after = both.other.test.correct, both.test.correct  # type: ignore[union-attr]
    fixed, broken = (
        torch.nonzero(each).flatten().tolist() for each in (after & ~before, before & ~after)
    )
    found = SECTIONS["comparison"](both, Sprites(_images(both)))
    assert found is not None
    assert f"{len(fixed)} image" in found.finding
    assert f"{len(broken)} broken" in found.finding
    assert f"{100 * (len(fixed) - len(broken)) / 120:+.2f} points" in found.finding
    assert "Against later" in found.finding
    labels = [
        unescape(label)
        for label in re.findall(r'aria-label="(true [^"]*before [^"]*)"', found.html)
    ]
    assert len(labels) == len(fixed) + len(
        broken
    )  # each was a mistake of one of the two, and so is kept with it
    assert "before" in labels[0]
