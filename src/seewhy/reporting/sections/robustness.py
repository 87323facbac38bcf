"""Robustness: accuracy under adversarial attacks and common corruptions."""

from dataclasses import dataclass

from seewhy.diagnosis.corruptions import CORRUPTIONS
from seewhy.diagnosis.diagnosis import Diagnosis
from seewhy.diagnosis.robustness import AdversarialExamples, RobustnessCurve
from seewhy.figures.robustness import (
    SAMPLE_STRENGTHS,
    attack_curves_figure,
    corruption_figure,
    corruption_samples_figure,
)
from seewhy.reporting.context import ReportContext
from seewhy.reporting.findings import weakness_note
from seewhy.reporting.formatting import map_name, percent
from seewhy.reporting.section import Section, figure_html, render
from seewhy.reporting.sprites import Sprites
from seewhy.wording import counted

FEWEST = 10  # images on which an attack or a corruption is judged


@dataclass(frozen=True)
class SmallestAttack:
    """Accuracy under the strongest attack at the smallest ε."""

    name: str
    epsilon: str  # such as 1/255
    clean: float  # accuracy without the attack
    accuracy: float
    images: int


def robustness_section(context: ReportContext, sprites: Sprites) -> Section | None:
    """Accuracy by the size of an attack and by the strength of common corruptions.

    None for predictions alone.
    """
    diagnosis = context.diagnosis
    attacks, corruptions = diagnosis.attacks, diagnosis.corruptions
    if not corruptions:
        return None
    figures = {
        **({"attacks": attack_curves_figure(attacks)} if attacks else {}),
        "corruptions": corruption_figure(corruptions),
        "corruption_samples": corruption_samples_figure(diagnosis.corruption_sample),
    }
    levels = attacks[0].levels.tolist()[1:] if attacks else []
    epsilons = [f"{255 * level:g}" for level in levels]
    html = render(
        "sections/robustness.html",
        attack_error=diagnosis.attack_error,
        attack_figure=figure_html(figures["attacks"], "attacks", "Accuracy by ε")
        if attacks
        else "",
        corruption_figure=figure_html(
            figures["corruptions"], "corruptions", "Accuracy by corruption and strength"
        ),
        attack_headers=["attack", "#none", *(f"#{epsilon}" for epsilon in epsilons)],
        attack_rows=[(name.upper(), *cells) for name, *cells in _rows(attacks)],
        corruption_headers=[
            "corruption",
            *(f"#{level:g}" if level else "#none" for level in corruptions[0].levels.tolist()),
        ],
        corruption_rows=_rows(corruptions),
        clean_note=_clean_note(context),
        corruptions=list(CORRUPTIONS),
        strengths=SAMPLE_STRENGTHS,
        examples=_examples(diagnosis.adversarial, context.predictions.classes),
        epsilon=f"{255 * diagnosis.adversarial.epsilon:g}/255",
        map_name=_map_name(diagnosis),
        sprites=sprites,
    )
    note = weakness_note(context, "attacks and corruptions")
    finding = f"{attack_summary(diagnosis)} {corruption_summary(diagnosis)} {note}".strip()
    return Section("Robustness", finding, html, figures=figures)


def smallest_attack(diagnosis: Diagnosis) -> SmallestAttack:
    """The most successful attack at the smallest tested ε of at least 1/255."""
    levels = diagnosis.attacks[0].levels
    index = min(int((levels < 0.999 / 255).sum()), len(levels) - 1)
    curve = min(diagnosis.attacks, key=lambda curve: curve.accuracy[index].item())
    return SmallestAttack(
        name=curve.name.upper(),
        epsilon=f"{255 * levels[index]:g}/255",
        clean=curve.accuracy[0].item(),
        accuracy=curve.accuracy[index].item(),
        images=curve.images,
    )


def worst_corruption(diagnosis: Diagnosis) -> RobustnessCurve:
    """The corruption with the lowest mean accuracy over its strengths."""
    return min(diagnosis.corruptions, key=lambda curve: curve.accuracy[1:].mean().item())


def is_attacked(diagnosis: Diagnosis) -> bool:
    """Whether enough images were attacked for a statement."""
    return bool(diagnosis.attacks) and diagnosis.attacks[0].images >= FEWEST


def is_harmed(diagnosis: Diagnosis) -> bool:
    """Whether a corruption brings the accuracy below the 95% interval of the clean images."""
    return diagnosis.corruptions[0].images >= FEWEST and any(
        curve.accuracy[1:].min() < curve.low[0] for curve in diagnosis.corruptions
    )


def attack_summary(diagnosis: Diagnosis) -> str:
    """A sentence on the smallest attack; empty if the model cannot be attacked."""
    if not is_attacked(diagnosis):
        return ""
    attack = smallest_attack(diagnosis)
    clean, accuracy = percent(attack.clean), percent(attack.accuracy)
    change = f"falls from {clean} to" if accuracy != clean else "stays at"
    return (
        f"Accuracy {change} {accuracy} under {attack.name} "
        f"(ε = {attack.epsilon}, {counted(attack.images, 'image')})."
    )


def corruption_summary(diagnosis: Diagnosis) -> str:
    """A sentence on the worst corruption."""
    worst = worst_corruption(diagnosis)
    if worst.images < FEWEST:
        return (
            f"Corruptions were measured on {counted(worst.images, 'image')} only, too few for a "
            "statement."
        )
    if not is_harmed(diagnosis):
        return (
            f"No corruption lowers the accuracy significantly ({counted(worst.images, 'image')})."
        )
    return (
        f"The most harmful corruption is {worst.name}: {percent(worst.accuracy[-1].item())} "
        f"at strength {worst.levels[-1]:g} ({counted(worst.images, 'image')})."
    )


def _clean_note(context: ReportContext) -> str:
    """Why the accuracies without attack and without corruption differ from the test accuracy."""
    diagnosis, folds = context.diagnosis, context.folds
    curves = [*diagnosis.attacks[:1], *diagnosis.corruptions[:1]]
    uses = ["attacks", "corruptions"][-len(curves) :]
    clean = [
        f"{percent(curve.accuracy[0].item())} of {counted(curve.images, 'image')} ({use})"
        for curve, use in zip(curves, uses, strict=True)
    ]
    total = diagnosis.measured_images
    drawn = "drawn from the" if curves[0].images < total else "all"
    images = counted(total, "image" if folds else "test image")
    images += " of the first fold" if folds else ""
    return (
        f"Accuracy without attack or corruption: {' and '.join(clean)}, {drawn} "
        f"{images}, without test-time augmentation. The {context.accuracy_name.lower()}, "
        f"{percent(context.predictions.accuracy, 2)}, is that of all "
        f"{'' if folds else 'test '}images"
        f"{_with_augmentation(context)}."
    )


def _with_augmentation(context: ReportContext) -> str:
    """The test-time augmentation of the test accuracy, if any."""
    name = "none" if context.classifier is None else context.classifier.tta
    return "" if name == "none" else f", with test-time augmentation ({name})"


def _rows(curves: tuple[RobustnessCurve, ...]) -> list[tuple[str, ...]]:
    """The name of each curve, and its accuracies in percent."""
    return [
        (curve.name, *("100" if each == 1 else f"{100 * each:.1f}" for each in values))
        for curve, values in ((curve, curve.accuracy.tolist()) for curve in curves)
    ]


def _examples(
    examples: AdversarialExamples, classes: tuple[str, ...]
) -> list[tuple[int, str, str]]:
    """Row of each adversarial example, and its predictions before and after the attack."""
    columns = (
        [
            f"{classes[predicted]} ({confidence:.2f})"
            for predicted, confidence in zip(*pair, strict=True)
        ]
        for pair in (
            (examples.labels.tolist(), examples.clean_confidence.tolist()),
            (examples.predicted.tolist(), examples.adversarial_confidence.tolist()),
        )
    )
    return [(row, *labels) for row, labels in enumerate(zip(*columns, strict=True))]


def _map_name(diagnosis: Diagnosis) -> str:
    """Method and layer of the heat maps; empty if there are none."""
    if diagnosis.saliency is None:
        return ""
    best = diagnosis.saliency.best
    return map_name(best.method, best.layer, diagnosis.saliency.maps.layers)
