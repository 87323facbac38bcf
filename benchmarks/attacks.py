"""PGD beside torchattacks, on a small trained model: `python -m benchmarks.attacks [DATA]`.

DATA is anything that `seewhy.load` takes; without it, the generated images of `shapes`. Needs
torchattacks (make zoo does not install it); without it, its column says "not measured".
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, nan

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.results import keep
from seewhy.data.sources import load
from seewhy.diagnosis.attacks import Norm, pgd
from seewhy.runs.training import fit
from seewhy.train.recipes import find_recipe

IMAGES = 64
TRAINING_IMAGES = 2000
SETTINGS: tuple[tuple[Norm, float], ...] = (
    ("linf", 2 / 255),
    ("linf", 8 / 255),
    ("l2", 0.5),
    ("l2", 1.0),
)
STEPS = (10, 20)
RESTARTS = (1, 3)
Attacker = Callable[[Tensor, Tensor, int], Tensor]  # images, labels, seed to adversarial images


@dataclass(frozen=True)
class AttackRow:
    """Cross entropy and accuracy under one attack, of both packages."""

    attack: str
    loss: str  # mean over the images of the largest of all restarts
    loss_of_torchattacks: str
    ratio: str
    accuracy: str
    accuracy_of_torchattacks: str


def main(argv: Sequence[str] = ()) -> None:
    """Train, attack, and keep."""
    source = argv[0] if argv else "shapes"
    data = load(source, limit=TRAINING_IMAGES)
    recipe = find_recipe("speednet-8", model="speednet:width=0.25", epochs=4, batch_size=100)
    with tempfile.TemporaryDirectory() as folder:
        run = fit(recipe, data, f"{folder}/run", device="cpu", quiet=True)
    # torchattacks cannot take gradients that are channels-last
    model = run.model.eval().to(memory_format=torch.contiguous_format)
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # torchattacks would compute their gradients too
    images = data.test.images[:IMAGES].float() / 255
    labels = data.test.labels[:IMAGES]
    rows = []
    for norm, epsilon in SETTINGS:
        for steps in STEPS:
            attackers = {
                "seewhy": _seewhy(model, norm, epsilon, steps),
                "torchattacks": _torchattacks(model, norm, epsilon, steps),
            }
            reached = {
                name: None if attacker is None else _reached(model, images, labels, attacker)
                for name, attacker in attackers.items()
            }
            radius = f"{255 * epsilon:g}/255" if norm == "linf" else f"{epsilon:g}"
            for restarts in RESTARTS:
                title = f"{norm}, ε = {radius}, {steps} steps, {_restarts(restarts)}"
                rows.append(_row(title, *reached.values(), restarts))
                print(rows[-1], flush=True)
    clean = (model(images).argmax(1) == labels).float().mean().item()
    note = (
        f"`benchmarks/attacks.py`: the cross entropy that PGD reaches on {IMAGES} test images, "
        "with the same steps of 2.5 ε / steps from random starts; of several restarts, the largest "
        "of each image. The model is a speednet of a quarter of the width, trained on "
        f"{len(data.train):,} images; its accuracy on the images is {clean:.1%}."
    )
    columns = ("attack", "loss", "torchattacks", "ratio", "accuracy", "torchattacks")
    keep("attacks", "Attacks", rows, note=note, columns=columns)


def _seewhy(model: nn.Module, norm: Norm, epsilon: float, steps: int) -> Attacker:
    def attack(images: Tensor, labels: Tensor, seed: int) -> Tensor:
        return pgd(model, images, labels, epsilon, norm, steps, seed=seed).images

    return attack


def _torchattacks(model: nn.Module, norm: Norm, epsilon: float, steps: int) -> Attacker | None:
    """torchattacks with the step size of seewhy, or None if it is missing."""
    try:
        import torchattacks  # type: ignore[import-not-found]
    except ImportError:
        return None
    kind = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm]
    attacker = kind(model, eps=epsilon, alpha=2.5 * epsilon / steps, steps=steps)

    def attack(images: Tensor, labels: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        adversarial: Tensor = attacker(images, labels)
        length = (
            0.0 if norm == "linf" else float((adversarial - images).flatten(1).norm(dim=1).max())
        )
        assert length <= 1.001 * epsilon
        return adversarial

    return attack


@torch.no_grad()
def _reached(
    model: nn.Module, images: Tensor, labels: Tensor, attacker: Attacker
) -> tuple[Tensor, Tensor]:  # (R, N) float32, (R, N) bool
    """Cross entropy and correctness of every restart."""
    losses, correct = [], []
    for seed in range(max(RESTARTS)):
        with torch.enable_grad():
            adversarial = attacker(images, labels, seed)
        logits = model(adversarial)
        losses.append(F.cross_entropy(logits, labels, reduction="none"))
        correct.append(logits.argmax(1) == labels)
    return torch.stack(losses), torch.stack(correct)


def _row(
    title: str,
    ours: tuple[Tensor, Tensor] | None,
    theirs: tuple[Tensor, Tensor] | None,
    restarts: int,
) -> AttackRow:
    def loss(reached: tuple[Tensor, Tensor] | None) -> float:
        return nan if reached is None else reached[0][:restarts].amax(0).mean().item()

    def accuracy(reached: tuple[Tensor, Tensor] | None) -> float:
        return nan if reached is None else reached[1][:restarts].all(0).float().mean().item()

    def shown(value: float, form: str) -> str:
        return "not measured" if isnan(value) else f"{value:{form}}"

    return AttackRow(
        title,
        shown(loss(ours), ".4f"),
        shown(loss(theirs), ".4f"),
        shown(loss(ours) / loss(theirs), ".4f"),
        shown(accuracy(ours), ".1%"),
        shown(accuracy(theirs), ".1%"),
    )


def _restarts(count: int) -> str:
    return "1 restart" if count == 1 else f"{count} restarts"


if __name__ == "__main__":
    main(sys.argv[1:])
