"""What the sections say, for an ordinary run and for odd cases."""

import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn

from seewhy.attribution.bootstrap import BootstrapSummary
from seewhy.attribution.scores import TrustScore
from seewhy.checks.result import Check, DataChecks
from seewhy.checks.result import Finding as CheckFinding
from seewhy.cli.tables import print_accuracies, print_run
from seewhy.data.dataset import Dataset
from seewhy.diagnosis.calibration import selective_accuracy
from seewhy.diagnosis.paired import compare_predictions
from seewhy.diagnosis.predictions import Predictions
from seewhy.reporting.check_page import render_check_page
from seewhy.reporting.context import ReportContext, make_context
from seewhy.reporting.images import report_images
from seewhy.reporting.page import render_page
from seewhy.reporting.section import Section
from seewhy.reporting.sections import SECTIONS
from seewhy.reporting.sections.calibration import (
    calibration_section,
    confidence_summary,
    helpful_scaling,
)
from seewhy.reporting.sections.classes import classes_section
from seewhy.reporting.sections.overview import overview_section
from seewhy.reporting.sections.robustness import (
    attack_summary,
    corruption_summary,
    smallest_attack,
    worst_corruption,
)
from seewhy.reporting.sections.trust import trust_section
from seewhy.reporting.sprites import Sprites
from seewhy.runs.model_card import model_card
from seewhy.runs.run import Run
from seewhy.train.lr_finder import LRRangeTest


@pytest.fixture
def no_svg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.reporting.section.inline_svg", lambda *arguments: "<svg></svg>")


def make_sections(context: ReportContext) -> dict[str, Section]:
    sprites = Sprites(report_images(context))
    sections = {key: make_section(context, sprites) for key, make_section in SECTIONS.items()}
    return {key: section for key, section in sections.items() if section is not None}


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


@pytest.mark.slow
@pytest.mark.usefixtures("no_svg")
def test_findings_are_sentences_with_a_result(odd: ReportContext) -> None:
    sections = make_sections(odd)
    absent = {"comparison", "subgroups", "experiment", "model"}
    if odd.diagnosis.mapped is None:  # fewer than ten images
        absent.add("image-map")
    assert set(sections) == set(SECTIONS) - absent
    for section in sections.values():
        assert re.search(r"\d|^No ", section.finding)
        assert section.finding.endswith(".")
        for text in (section.finding, text_of(section.html)):
            assert not re.search(r"\b(nan|None)\b", text)
    errors = int((odd.predictions.logits.argmax(1) != odd.predictions.labels).sum())
    verb = "is" if errors == 1 else "are"
    start = f"{errors} of {len(odd.predictions.labels)} test images {verb} misclassified"
    assert sections["errors"].finding.startswith(start)
    assert sections["errors"].data["index"] == odd.diagnosis.errors.tolist()
    assert len(re.findall(r'id="image-\d+"', sections["errors"].html)) == errors


@pytest.mark.slow
@pytest.mark.parametrize("diagnosed_case", ["perfect", "absent class", "no layer"], indirect=True)
def test_odd_cases_have_a_page(odd: ReportContext) -> None:
    page = render_page(odd)
    assert len(re.findall(r"<section id=", page.html)) == len(SECTIONS) - 4
    only_files = {"confusion", "corruption_samples", "class_attribution"}
    in_page = set(page.figures) - only_files
    assert len(in_page) >= 8
    assert page.html.count('<svg class="plot"') == len(in_page)
    assert odd.diagnosis.saliency_error in unescape(page.html)


@pytest.fixture(scope="module")
def sections(context: ReportContext) -> dict[str, Section]:
    """The sections of the ordinary run, without SVG."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seewhy.reporting.section.inline_svg", lambda *arguments: "<svg></svg>")
        return make_sections(context)


def test_overview_links_to_the_sections(
    context: ReportContext, sections: dict[str, Section]
) -> None:
    overview = sections["overview"]
    accuracy = f"{100 * context.predictions.accuracy:.2f}%"
    assert overview.finding.startswith(f"Test accuracy is {accuracy} (95% CI ")
    keys = set(re.findall(r'href="#([^"]*)"', overview.html))
    assert {"classes", "errors", "calibration", "robustness", "label-issues", "training"} <= keys
    assert keys <= set(SECTIONS)


def test_classes_names_the_best_and_the_worst(
    context: ReportContext, sections: dict[str, Section]
) -> None:
    predictions = context.predictions
    correct = [
        int((predictions.correct & (predictions.labels == label)).sum()) for label in range(4)
    ]
    images = [int((predictions.labels == label).sum()) for label in range(4)]
    shares = [right / total for right, total in zip(correct, images, strict=True)]
    best, worst = (shares.index(choose(shares)) for choose in (max, min))
    finding = sections["classes"].finding
    assert f"{predictions.classes[best]} has the highest accuracy" in finding
    assert f"{100 * shares[best]:.1f}% of {images[best]} images" in finding
    assert f"{100 * shares[worst]:.1f}% of {images[worst]}" in finding
    text = text_of(sections["classes"].html)
    for name, share in zip(predictions.classes, shares, strict=True):
        assert name in text
        assert f"{100 * share:.1f}%" in text


def test_classes_has_the_areas_under_the_curves(
    context: ReportContext, sections: dict[str, Section]
) -> None:
    predictions = context.predictions
    own, probabilities = np.eye(4)[predictions.labels], predictions.probabilities.numpy()
    text = text_of(sections["classes"].html)
    assert f"mean AUROC {roc_auc_score(own, probabilities):.3f}" in text
    assert f"mean average precision {average_precision_score(own, probabilities):.3f}." in text
    for name, truth, score in zip(predictions.classes, own.T, probabilities.T, strict=True):
        areas = roc_auc_score(truth, score), average_precision_score(truth, score)
        row = rf"{re.escape(name)} \d+ [\d.%– ]* {areas[0]:.3f} {areas[1]:.3f} "
        assert re.search(row, text), name


@pytest.mark.slow
@pytest.mark.usefixtures("no_svg")
def test_classes_names_the_positive_class_of_two(context: ReportContext) -> None:
    labels = context.predictions.labels % 2
    logits = torch.stack([-context.predictions.logits[:, 0], context.predictions.logits[:, 1]], 1)
    two = replace(context.predictions, logits=logits, labels=labels, classes=("healthy", "ill"))
    html = classes_section(replace(context, predictions=two), Sprites({})).html
    auroc = roc_auc_score(labels, logits.softmax(1)[:, 1])
    assert f"Positive class: ill. AUROC {auroc:.3f}, average precision" in text_of(html)
    assert 'class="long"' not in html
    long = replace(two, classes=("healthy", "ill, as a class with a long name of synonyms"))
    wide = classes_section(replace(context, predictions=long), Sprites({})).html
    assert '<th scope="row" class="long">ill, as a class' in wide
    one = replace(two, labels=torch.ones_like(labels))
    section = classes_section(replace(context, predictions=one), Sprites({}))
    assert "Undefined, because all images are of one class." in text_of(section.html)
    assert not {"roc", "precision_recall"} & set(section.figures)


@pytest.mark.slow
@pytest.mark.usefixtures("no_svg")
def test_calibration_gives_a_threshold_that_predict_takes(context: ReportContext) -> None:
    """The images that it keeps are as accurate as the page says."""
    section = calibration_section(context, Sprites({}))
    found = re.findall(
        r"Coverage at (\d+)% selective accuracy: ([\d.]+)% of the images .confidence ≥ ([\d.]+)\)",
        section.html,
    )
    assert found
    assert "--abstain-below" in section.html
    for accuracy, coverage, threshold in found:
        kept = selective_accuracy(context.predictions, float(threshold))
        assert kept.accuracy >= int(accuracy) / 100
        assert kept.coverage == pytest.approx(float(coverage) / 100, abs=0.02)


@pytest.mark.usefixtures("no_svg")
@pytest.mark.parametrize(("factor", "word"), [(20.0, "overconfident"), (0.01, "underconfident")])
def test_calibration_names_the_direction(context: ReportContext, factor: float, word: str) -> None:
    predictions = replace(context.predictions, logits=context.predictions.logits * factor)
    section = calibration_section(replace(context, predictions=predictions), Sprites({}))
    mean = predictions.logits.double().softmax(1).amax(1).mean().item()
    assert f"{word}: mean confidence {100 * mean:.1f}%, accuracy " in section.finding


@pytest.mark.usefixtures("no_svg")
def test_temperature_scaling_is_mentioned_only_if_it_helps(context: ReportContext) -> None:
    scaling = context.scaling
    assert scaling is not None
    ece, nll = scaling.before.ece, scaling.before.nll
    better = replace(scaling, after=replace(scaling.after, ece=ece / 2, nll=0.9 * nll))
    worse = replace(scaling, after=replace(scaling.after, ece=ece + 0.01, nll=0.9 * nll))
    less_likely = replace(scaling, after=replace(scaling.after, ece=ece / 2, nll=1.1 * nll))
    for other, helps in ((better, True), (worse, False), (less_likely, False)):
        changed = replace(context)
        changed.__dict__["scaling"] = other
        assert (helpful_scaling(changed) is not None) == helps
        for section in (calibration_section, overview_section):
            assert ("emperature" in section(changed, Sprites({})).html) == helps


def test_robustness_reports_the_smallest_attack_and_the_worst_corruption(
    context: ReportContext, sections: dict[str, Section]
) -> None:
    diagnosis = context.diagnosis
    attack, worst = smallest_attack(diagnosis), worst_corruption(diagnosis)
    at_one = {
        curve.name: curve.accuracy[
            [round(255 * level, 3) for level in curve.levels.tolist()].index(1.0)
        ].item()
        for curve in diagnosis.attacks
    }
    assert attack.epsilon == "1/255"
    assert attack.accuracy == min(at_one.values()) == at_one[attack.name.lower()]
    means = {curve.name: sum(curve.accuracy.tolist()[1:]) for curve in diagnosis.corruptions}
    assert means[worst.name] == min(means.values())
    finding = sections["robustness"].finding
    change = f"from {100 * attack.clean:.1f}% to {100 * attack.accuracy:.1f}% under {attack.name}"
    if attack.accuracy < attack.clean:
        assert f"Accuracy falls {change} (ε = 1/255, {attack.images} images)." in finding
    assert f"corruption is {worst.name}: {100 * worst.accuracy[5]:.1f}% at strength 5" in finding


def test_robustness_explains_why_accuracies_without_attack_differ(
    context: ReportContext, sections: dict[str, Section]
) -> None:
    diagnosis = context.diagnosis
    attacks, corruptions = (
        f"{100 * curve.accuracy[0]:.1f}% of {curve.images} images"
        for curve in (diagnosis.attacks[0], diagnosis.corruptions[0])
    )
    text = text_of(sections["robustness"].html)
    clean = f"without attack or corruption: {attacks} (attacks) and {corruptions} (corruptions), "
    assert clean in text
    assert "is that of all test images" in text


def test_a_corruption_without_significant_harm_is_not_called_harmful(
    context: ReportContext,
) -> None:
    diagnosis = context.diagnosis
    for lowest, harmed in ((0.55, False), (0.25, True)):
        corruptions = tuple(
            replace(
                curve,
                accuracy=torch.tensor([0.75, 0.75, 0.75, 0.75, 0.75, lowest]),
                low=torch.full((6,), 0.3),  # of 3 of 4 images
            )
            for curve in diagnosis.corruptions
        )
        text = corruption_summary(replace(diagnosis, corruptions=corruptions))
        assert text.startswith("The most harmful corruption is ") == harmed
        assert text.startswith("No corruption lowers the accuracy significantly") != harmed
        few = tuple(replace(curve, images=3) for curve in corruptions)
        text = corruption_summary(replace(diagnosis, corruptions=few))
        assert text.startswith("Corruptions were measured on 3 images only")


def test_confidence_within_the_interval_of_the_accuracy_is_no_finding() -> None:
    logits = torch.tensor([[3.0, 0.0]]).repeat(20, 1)  # confidence 95.3%
    labels = torch.tensor([0] * 18 + [1] * 2)  # accuracy 90%
    few = Predictions(logits, labels, ("cat", "dog"))
    many = Predictions(logits.repeat(50, 1), labels.repeat(50), ("cat", "dog"))
    assert confidence_summary(few).startswith(
        "Mean confidence (95.3%) agrees with the accuracy (90.0%, "
    )
    assert confidence_summary(many).startswith("The model is overconfident: mean confidence 95.3%")


def test_attack_summary_says_if_nothing_changes(context: ReportContext) -> None:
    diagnosis = context.diagnosis
    attacks = tuple(
        replace(curve, accuracy=torch.full_like(curve.accuracy, 0.5)) for curve in diagnosis.attacks
    )
    text = attack_summary(replace(diagnosis, attacks=attacks))
    assert text.startswith("Accuracy stays at 50.0% under ")


def test_an_attack_on_few_images_is_no_finding(context: ReportContext) -> None:
    diagnosis = context.diagnosis
    few = tuple(replace(curve, images=3) for curve in diagnosis.attacks)
    changed = replace(context, diagnosis=replace(diagnosis, attacks=few))
    assert attack_summary(changed.diagnosis) == ""
    html = overview_section(changed, Sprites({})).html
    assert "adversarial accuracy" not in html
    assert "adversarial accuracy" in overview_section(context, Sprites({})).html


def test_label_issues_reports_leaked_images(
    context: ReportContext, sections: dict[str, Section]
) -> None:
    section = sections["label-issues"]
    assert re.match(
        r"\d+ suspected label errors? \(\d+\.\d% of the test images\)\. ", section.finding
    )
    pairs = [dict((pair.first, pair.second)) for pair in context.diagnosis.duplicates]
    assert {"train": 7, "test": 5} in pairs
    leaked = {pair["test"] for pair in pairs}
    correct = context.predictions.correct.tolist()
    others = [right for index, right in enumerate(correct) if index not in leaked]
    assert f"{len(leaked)} test image{'s have' if len(leaked) > 1 else ' has'}" in section.finding
    assert section.finding.endswith(f"is {100 * sum(others) / len(others):.2f}%.")
    text = text_of(section.html)
    assert "bar-" in text
    assert "photos/" not in text


@pytest.mark.usefixtures("no_svg")
def test_training_shows_the_range_test(
    context: ReportContext, sections: dict[str, Section]
) -> None:
    losses = tuple(2.3 - 0.05 * max(0, index - 12) for index in range(30))
    lrs = tuple(10.0 ** (index / 5 - 6) for index in range(30))
    range_test = LRRangeTest(lrs, losses, losses, "at the end of the range")
    run = replace(context.run, range_test=range_test)
    section = SECTIONS["training"](replace(context, run=run), Sprites({}))
    assert section is not None
    assert "range_test" in section.figures
    assert "A short run before the training, with a growing learning rate." in section.html
    assert "range_test" not in sections["training"].figures


def test_training_draws_the_model(context: ReportContext) -> None:
    html = SECTIONS["training"](context, Sprites({})).html
    drawing = html[html.index("<summary>Model</summary>") : html.index("<summary>Recipe</summary>")]
    for text in (context.run.recipe.model, "group1", "Conv 3×3", "whiten"):
        assert text in drawing
    unknown = replace(context.run, classifier=replace(context.run.classifier, image_shape=None))
    section = SECTIONS["training"](replace(context, run=unknown), Sprites({}))
    assert "<summary>Model</summary>" not in section.html


def test_training_says_why_a_model_is_not_drawn(context: ReportContext) -> None:
    class Decides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if x.sum() > 0 else -x.flatten(1)

    classifier = replace(context.run.classifier, model=Decides().eval())
    run = replace(context.run, classifier=classifier)
    section = SECTIONS["training"](replace(context, run=run), Sprites({}))
    assert "its control flow depends on the values of the image" in section.html


def test_report_says_that_the_test_set_was_used(context: ReportContext) -> None:
    used = "schedule plateau:on=test"
    result = replace(context.result, test_used_by=used)
    text = f"The test set was used in training: {used} watched the test loss"
    for name in ("overview", "training"):
        section = SECTIONS[name](
            replace(context, run=replace(context.run, result=result)), Sprites({})
        )
        assert section is not None
        assert text in section.finding
    card = model_card(replace(context.run, result=result))
    assert text in card
    assert "nothing was selected" not in card
    assert "test set was used" not in model_card(context.run)


@pytest.mark.usefixtures("no_svg")
def test_an_image_unlike_all_others_comes_first(context: ReportContext) -> None:
    usual = tuple(replace(each, deviations=1.0) for each in context.diagnosis.unusual)
    assert len(usual) == 8
    strange = replace(usual[3], deviations=7.0)
    name = context.name(strange.index)
    sentence = re.escape(name) + r" \(labeled .+?\) is unlike all other images\."
    for unusual, said in (((strange, *usual[4:]), True), (usual, False)):
        odd = replace(context, diagnosis=replace(context.diagnosis, unusual=unusual))
        sprites = Sprites(report_images(odd))
        issues = SECTIONS["label-issues"](odd, sprites)
        assert issues is not None
        assert bool(re.match(sentence, issues.finding)) == said
        text = text_of(issues.html)
        assert text.index("Unusual images") < text.index(name) < text.index("Suspected label")
        assert ("unlike all others" in text) == said
        assert 'class="tile missing"' not in issues.html
        verdict = text_of(overview_section(odd, sprites).html)
        assert bool(re.search(sentence, verdict)) == said


def test_a_report_without_any_average_map_has_no_image_of_one(context: ReportContext) -> None:
    saliency = context.diagnosis.saliency
    assert saliency is not None
    attribution = saliency.class_attribution
    empty = replace(
        attribution,
        images=torch.zeros_like(attribution.images),
        mean_maps=torch.zeros_like(attribution.mean_maps),
        peaks=(None,) * len(attribution.peaks),
    )
    saliency = replace(saliency, class_attribution=empty)
    without = replace(context, diagnosis=replace(context.diagnosis, saliency=saliency))
    kinds = {key[0] for key in report_images(context)} - {key[0] for key in report_images(without)}
    assert kinds == {"average map"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_svg")
def test_report_says_that_it_is_of_a_cross_validation(
    context: ReportContext, capsys: pytest.CaptureFixture[str]
) -> None:
    result = replace(context.result, folds=5)
    folded = replace(
        context,
        run=replace(context.run, result=result),
        diagnosis=replace(context.diagnosis, fold_images=24),
    )
    text = "5-fold cross-validation: each image was predicted by a model that was not trained on"
    section = overview_section(folded, Sprites({}))
    assert section.finding.startswith("Cross-validated accuracy is ")
    assert text in section.finding
    assert "with the 24 images of that fold" in section.finding
    issues = SECTIONS["label-issues"](folded, Sprites({}))
    assert issues is not None
    assert re.search("held-out images? ha(s|ve) a near-duplicate in another fold", issues.finding)
    robustness = SECTIONS["robustness"](folded, Sprites(report_images(folded)))
    assert robustness is not None
    assert re.search("(all|drawn from the) 24 images of the first fold", text_of(robustness.html))
    assert text in model_card(folded.run)
    print_run(folded.run)
    assert text in " ".join(capsys.readouterr().out.split())


def test_uneven_classes_are_scored_alike_beside_the_accuracy(
    context: ReportContext, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "balanced accuracy 61.25%, macro F1 58.50%"
    result = replace(context.result, balanced_accuracy=0.6125, macro_f1=0.585)
    for part, shown in ((result, True), (context.result, False)):
        run = replace(context.run, result=part)
        section = SECTIONS["overview"](replace(context, run=run), Sprites({}))
        assert section is not None
        print_run(run)
        for page in (section.finding, model_card(run), capsys.readouterr().out):
            assert (text in page) is shown
    predictions = context.predictions
    few = (predictions.labels > 0) | (torch.arange(len(predictions.labels)) % 3 == 0)
    uneven = replace(predictions, logits=predictions.logits[few], labels=predictions.labels[few])
    print_accuracies(uneven, "bars", "test")
    assert "classes are uneven: balanced accuracy" in capsys.readouterr().out


def test_training_reports_time_recipe_and_data(
    context: ReportContext, sections: dict[str, Section]
) -> None:
    section = sections["training"]
    assert section.finding.startswith("3 epochs took ")
    loss = context.run.history[-1].train_loss
    assert section.finding.endswith(f"final training loss {loss:.3f}.")
    text = text_of(section.html)
    assert "5" * 32 in text
    assert 'model = "speednet:width=0.125"' in text


@pytest.mark.slow
@pytest.mark.usefixtures("no_svg")
def test_comparison_reports_fixed_and_new_errors(
    context: ReportContext, later: Run, data: Dataset
) -> None:
    both = make_context(context.run, data, later, quiet=True)
    assert both.baseline is not None
    before, after = both.baseline.predictions.correct, both.predictions.correct
    fixed, new = (int(mask.sum()) for mask in (after & ~before, before & ~after))
    section = SECTIONS["comparison"](both, Sprites(report_images(both)))
    assert section is not None
    change = f"{100 * (fixed - new) / 120:+.2f} points".replace("-", "−")
    p_value = compare_predictions(both.baseline.predictions, both.predictions).p_value
    words = "is not significantly different" if p_value >= 0.05 else "is significantly"
    assert section.finding.startswith(f"Accuracy {words}")
    assert f" later: {change} (95% CI " in section.finding
    assert f"; {fixed} error{'s' * (fixed != 1)} fixed, {new} new." in section.finding
    labels = re.findall(r'aria-label="(true [^"]*, before [^"]*, after [^"]*)"', section.html)
    assert len(labels) == fixed + new  # each is an error of one of the two, which has its image


def test_the_most_faithful_map_is_that_of_those_that_pass(context: ReportContext) -> None:
    """One that does not pass may have a higher gain."""
    saliency = context.diagnosis.saliency
    assert saliency is not None
    trusted = replace(saliency.best, gain=BootstrapSummary(0.5, (0.4, 0.6)), mosaic=None)
    trusted = replace(trusted, sanity=replace(trusted.sanity, passed=True))
    other = replace(
        trusted,
        gain=BootstrapSummary(0.7, (0.6, 0.8)),
        sanity=replace(trusted.sanity, passed=False),
    )

    def finding(*scores: TrustScore) -> str:
        diagnosis = replace(context.diagnosis, saliency=replace(saliency, scores=scores))
        section = trust_section(replace(context, diagnosis=diagnosis), Sprites({}))
        assert section is not None
        return section.finding

    assert " It is " in finding(trusted, other)
    assert " The most faithful of them is " in finding(trusted, trusted, other)
    assert " The most faithful is " in finding(other, other)


def test_measures_keep_their_capital_letters(data: Dataset) -> None:
    drift = Check("AUROC, 0.5 is chance", "split", 1, findings=(CheckFinding(0.9, subject="test"),))
    results = DataChecks("photos", {"train": 2}, ("a", "b"), "", {"drift": drift})
    html = render_check_page(results, data)
    assert html.count("AUROC, 0.5 is chance") == 2
