"""How little it takes to change the network's mind."""

from dataclasses import dataclass

from seewhy.diagnosis.corruptions import CORRUPTIONS
from seewhy.diagnosis.diagnosis import Diagnosis
from seewhy.diagnosis.robustness import RobustnessCurve
from seewhy.figures.robustness import (
    SHOWN,
    attack_curves_figure,
    corruption_figure,
    corruption_samples_figure,
)
from seewhy.reporting.context import ReportContext
from seewhy.reporting.section import Section, count, panel, percent, render
from seewhy.reporting.sprites import Sprites


def robustness(study: ReportContext, album: Sprites) -> Section:
    """Accuracy against the size of an attack and the strength of common corruptions."""
    diagnosis = study.diagnosis
    attack, harm = least_attack(diagnosis), worst_corruption(diagnosis)
    finding = (
        f"A change of at most {attack.epsilon} per pixel lowers the accuracy on {count(attack.images, 'test image')} from "
        f"{percent(attack.clean)} to {percent(attack.accuracy)} ({attack.name}); of common corruptions {harm.name} costs most, "
        f"down to {percent(harm.accuracy[-1].item())} of {harm.images:,} at strength {harm.levels[-1]:g}."
    )
    attacked, corrupted = diagnosis.attacks[0].images, diagnosis.corruptions[0].images
    strip = diagnosis.adversarial
    names = study.test.classes
    rows = [
        (place, names[before], f"{sure:.2f}", names[after], f"{sure_after:.2f}")
        for place, (before, after, sure, sure_after) in enumerate(
            zip(
                *(
                    values.tolist()
                    for values in (
                        strip.labels,
                        strip.predicted,
                        strip.clean_confidence,
                        strip.adversarial_confidence,
                    )
                ),
                strict=True,
            )
        )
    ]
    figures = {
        "attacks": attack_curves_figure(diagnosis.attacks),
        "corruptions": corruption_figure(diagnosis.corruptions),
        "corrupted": corruption_samples_figure(diagnosis.corruption_sample),
    }
    html = render(
        "sections/robustness.html",
        attack_figure=panel(
            figures["attacks"], "attacks", "Accuracy against the size of an attack"
        ),
        corruption_figure=panel(
            figures["corruptions"], "corruptions", "Accuracy under corruptions by strength"
        ),
        corruptions=list(CORRUPTIONS),
        strengths=SHOWN,
        attack_rows=[(name.upper(), *cells) for name, *cells in _table(diagnosis.attacks)],
        corruption_rows=_table(diagnosis.corruptions),
        attack_levels=[f"#{255 * level:g}/255" for level in diagnosis.attacks[0].levels.tolist()],
        corruption_levels=[f"#{level:g}" for level in diagnosis.corruptions[0].levels.tolist()],
        attacked=attacked,
        corrupted=corrupted,
        rows=rows,
        epsilon=f"{255 * strip.epsilon:g}/255",
        best=None if diagnosis.saliency is None else diagnosis.saliency.best,
        album=album,
    )
    return Section("Robustness", finding, html, figures=figures)


@dataclass(frozen=True)
class LeastAttack:
    """What the smallest change that an image of 8 bits can hold does to the accuracy."""

    name: str
    epsilon: str  # as in 1/255
    clean: float
    accuracy: float
    images: int


def least_attack(diagnosis: Diagnosis) -> LeastAttack:
    """The strongest of the attacks at the smallest of their sizes from 1/255 on."""
    levels = diagnosis.attacks[0].levels
    place = min(int((levels < 0.999 / 255).sum()), len(levels) - 1)
    curve = min(diagnosis.attacks, key=lambda curve: curve.accuracy[place].item())
    clean, accuracy = curve.accuracy[0].item(), curve.accuracy[place].item()
    return LeastAttack(
        curve.name.upper(), f"{255 * levels[place]:g}/255", clean, accuracy, curve.images
    )


def worst_corruption(diagnosis: Diagnosis) -> RobustnessCurve:
    """The corruption that costs most on average over its strengths."""
    return min(diagnosis.corruptions, key=lambda curve: curve.accuracy[1:].mean().item())


def _table(curves: tuple[RobustnessCurve, ...]) -> list[tuple[str, ...]]:
    return [
        (curve.name, *(percent(value) for value in curve.accuracy.tolist())) for curve in curves
    ]
