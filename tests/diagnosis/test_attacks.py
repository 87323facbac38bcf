"""Attacks against optima in closed form, loops written out, and what a model must not notice."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax
from scipy.stats import kstest
from torch import Tensor, nn
from torch.nn import functional as F

from seewhy.diagnosis.attacks import ATTACKS, Attack, attack, fgsm, minimal_fgsm, pgd
from seewhy.errors import SeewhyError

SHAPE = (3, 4, 4)


class Linear(nn.Module):
    """Logits are `weight` (K, C*H*W) times the pixels, plus `bias`."""

    def __init__(self, weight: Tensor, bias: Tensor | float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.register_buffer("bias", torch.as_tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


class Calls:
    """What a model was given, call by call, as float64 numpy arrays."""

    def __init__(self, model: nn.Module) -> None:
        self.seen: list[np.ndarray] = []
        model.register_forward_pre_hook(lambda _, inputs: self.seen.append(numbers(inputs[0])))


def numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(classes: int, scale: float = 1.0, seed: int = 0) -> Linear:
    return Linear(scale * torch.randn(classes, 48, generator=seeded(seed))).eval()


def pixels(count: int, low: float = 0.0, high: float = 1.0, seed: int = 1) -> Tensor:
    return low + (high - low) * torch.rand((count, *SHAPE), generator=seeded(seed))


def at_the_edges(count: int) -> Tensor:
    """Images most of whose pixels are black or white."""
    return (3 * pixels(count) - 1).clamp(0, 1)


def labels_of(count: int, classes: int) -> Tensor:
    return torch.randint(0, classes, (count,), generator=seeded(2))


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(128, 5),
        )
        model = nn.Sequential(*layers)
        for parameter in model.parameters():
            parameter.data.mul_(3)  # so that its gradient turns within the distances of these tests
        return model.eval()


def cross_entropies(logits: np.ndarray, labels: Tensor) -> np.ndarray:
    return logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels.numpy()]


def lengths(change: np.ndarray, norm: str) -> np.ndarray:
    flat = np.abs(change).reshape(len(change), -1)
    return flat.max(1) if norm == "linf" else np.sqrt((flat**2).sum(1))


# --- linear models, whose optima are known


@pytest.mark.parametrize("targeted", [False, True])
def test_fgsm_steps_along_the_sign_of_the_gradient(targeted: bool) -> None:
    model, images, labels = linear(4), at_the_edges(20), labels_of(20, 4)
    found = fgsm(model, images, labels, epsilon=0.1, targeted=targeted)
    weight, clean = numbers(model.weight), numbers(images)
    gradient = (softmax(clean.reshape(20, 48) @ weight.T, axis=1) - np.eye(4)[labels]) @ weight
    expected = np.clip(
        clean + (-0.1 if targeted else 0.1) * np.sign(gradient).reshape(clean.shape), 0, 1
    )
    np.testing.assert_allclose(numbers(found.images), expected, atol=1e-6)
    assert found.steps.tolist() == [1] * 20


def test_fgsm_default_epsilon() -> None:
    images = pixels(5, 0.3, 0.7)
    change = fgsm(linear(3), images, labels_of(5, 3)).images - images
    torch.testing.assert_close(change.abs(), torch.full_like(change, 8 / 255), atol=1e-6, rtol=0)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_pgd_linf_reaches_the_optimal_corner(targeted: bool, seed: int) -> None:
    model, images, labels = linear(2), at_the_edges(20), labels_of(20, 2)
    found = pgd(model, images, labels, epsilon=0.1, targeted=targeted, seed=seed)
    weight, clean = numbers(model.weight), numbers(images)
    away = (
        weight[1 - labels.numpy()] - weight[labels.numpy()]
    )  # with two classes this direction is the gradient's everywhere
    expected = np.clip(
        clean + (-0.1 if targeted else 0.1) * np.sign(away).reshape(clean.shape), 0, 1
    )
    np.testing.assert_allclose(numbers(found.images), expected, atol=1e-6)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    "settings", [{"random_start": False}, {"seed": 3, "step_size": 0.2, "steps": 40}]
)
def test_pgd_l2_reaches_the_optimal_point(targeted: bool, settings: dict[str, float]) -> None:
    model, images, labels = linear(2).double(), pixels(20, 0.3, 0.7).double(), labels_of(20, 2)
    found = pgd(model, images, labels, epsilon=0.2, norm="l2", targeted=targeted, **settings)
    weight, clean = numbers(model.weight), numbers(images)
    away = weight[1 - labels.numpy()] - weight[labels.numpy()]
    away *= (-1 if targeted else 1) / np.linalg.norm(away, axis=1, keepdims=True)
    np.testing.assert_allclose(
        numbers(found.images), clean + 0.2 * away.reshape(clean.shape), atol=1e-7
    )


def best_in_ball_and_box(clean: np.ndarray, away: np.ndarray, epsilon: float) -> np.ndarray:
    """The point in [0, 1] within `epsilon` (L2) of `clean` farthest along `away`, by KKT."""
    low, high = -clean, 1 - clean

    def change(scale: float) -> np.ndarray:
        return np.clip(scale * away, low, high)

    return clean + change(brentq(lambda scale: np.linalg.norm(change(scale)) - epsilon, 0, 1e6))


@pytest.mark.slow
@pytest.mark.parametrize("images_of", [pixels, at_the_edges])
def test_pgd_l2_spends_its_radius_on_movable_pixels(
    images_of: Callable[[int], Tensor],
) -> None:
    model, images, labels = linear(2).double(), images_of(20).double(), labels_of(20, 2)
    weight = numbers(model.weight)
    found = numbers(
        pgd(model, images, labels, epsilon=1.5, norm="l2", step_size=0.3, steps=100).images
    )
    for image, label, reached in zip(numbers(images), labels.tolist(), found, strict=True):
        away = weight[1 - label] - weight[label]
        best = best_in_ball_and_box(image.ravel(), away, 1.5)
        gained, possible = away @ (reached - image).ravel(), away @ (best - image.ravel())
        assert (
            0.9985 * possible < gained < possible * (1 + 1e-9)
        )  # 0.98 where the change is shrunk once and clipped


@pytest.mark.parametrize(
    "method",
    ["fgsm:epsilon=0.5", "pgd:epsilon=0.5", "pgd:epsilon=4,norm=l2", "minimal-fgsm:step_size=0.01"],
)
def test_targeted_attacks_reach_the_target(method: str) -> None:
    model, images, labels = linear(2), pixels(20), labels_of(20, 2)
    found = attack(model, images, labels, f"{method},targeted=true")
    assert not (found.clean_logits.argmax(1) == labels).all()
    assert found.changed.all()
    reached = numbers(found.images).reshape(20, 48) @ numbers(model.weight).T
    assert (reached.argmax(1) == labels.numpy()).all()


# --- any model


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "method",
    [
        "fgsm:epsilon=0.07",
        "pgd:epsilon=0.07",
        "pgd:epsilon=0.3,norm=l2",
        "minimal-fgsm:0.02,steps=4",
    ],
)
@pytest.mark.parametrize("targeted", [False, True])
def test_attack_result_agrees_with_the_model(method: str, targeted: bool) -> None:
    model, images, labels = network(), pixels(30), labels_of(30, 5)
    found = attack(model, images, labels, f"{method},targeted={targeted}")
    with torch.no_grad():
        torch.testing.assert_close(found.clean_logits, model(images))
        torch.testing.assert_close(found.logits, model(found.images))
    before, after = found.clean_logits.argmax(1), found.logits.argmax(1)
    assert torch.equal(found.changed, after == labels if targeted else after != before)
    assert 0 < found.changed.sum() < 30
    assert (found.changed != (after != labels)).any()  # some were wrong from the start


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.07), ("l2", 0.6)])
@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_stays_in_the_ball_and_the_box(norm: str, epsilon: float, random_start: bool) -> None:
    model, images = network(), at_the_edges(20)
    calls = Calls(model)
    found = pgd(
        model, images, labels_of(20, 5), epsilon, norm, step_size=epsilon, random_start=random_start
    )
    clean, visited = numbers(images), [*calls.seen[3:], numbers(found.images)]
    assert len(visited) == 12
    for points in visited:
        assert points.min() >= 0
        assert points.max() <= 1
        assert lengths(points - clean, norm).max() <= epsilon * (1 + 1e-6)
    assert lengths(visited[-1] - clean, norm).max() == pytest.approx(epsilon, rel=1e-5)


@pytest.mark.parametrize("targeted", [False, True])
def test_pgd_keeps_the_best_visited_point(targeted: bool) -> None:
    model, images, labels = network().double(), pixels(20).double(), labels_of(20, 5)
    calls = Calls(model)
    found = pgd(model, images, labels, epsilon=0.15, steps=6, step_size=0.11, targeted=targeted)
    visited = calls.seen[3:]  # after the number of classes, the batch size, and the clean images
    assert len(visited) == 7
    with torch.no_grad():
        logits = [numbers(model(torch.from_numpy(points))) for points in visited]
    losses = np.stack([cross_entropies(row, labels) for row in logits]) * (-1 if targeted else 1)
    success = np.stack([(row.argmax(1) == labels.numpy()) == targeted for row in logits])
    for index in range(20):
        best = max(range(7), key=lambda step, i=index: (success[step, i], losses[step, i]))
        assert found.steps[index] == best
        np.testing.assert_array_equal(numbers(found.images)[index], visited[best][index])
    assert len(found.steps.unique()) > 2


def test_pgd_prefers_a_misclassified_image_to_a_higher_loss() -> None:
    table = torch.tensor(
        [[3.0, 0.0, 0.0], [0.0, 0.2, -10.0], [0.1, 0.0, 0.0]]
    )  # cross entropy 0.09, 0.80, 1.03

    class Table(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return table[(10 * x[:, 0] - 5).round().long()] + (x - x.detach()) * torch.tensor(
                [-1.0, 0.0, 0.0]
            )

    found = pgd(
        Table().eval(),
        torch.full((1, 1, 1, 1), 0.5),
        torch.tensor([0]),
        0.2,
        steps=2,
        step_size=0.1,
        random_start=False,
    )
    assert found.steps.tolist() == [1]
    assert found.changed.tolist() == [True]
    assert found.images.item() == pytest.approx(0.6)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("sign", [False, True])
def test_minimal_fgsm_stops_when_the_class_changes(sign: bool, targeted: bool) -> None:
    model, images, labels = network().double(), pixels(16).double(), labels_of(16, 5)
    labels = (
        labels if targeted else torch.where(torch.arange(16) < 12, model(images).argmax(1), labels)
    )
    step, steps = (0.02 if sign else 0.1), 8
    found = minimal_fgsm(
        model, images, labels, step_size=step, steps=steps, sign=sign, targeted=targeted
    )
    for index in range(16):
        point, label, taken = images[index : index + 1].clone(), labels[index : index + 1], 0
        before = model(point).argmax(1)
        while taken < steps and (
            model(point).argmax(1) != label if targeted else model(point).argmax(1) == before
        ):
            point = point.detach().requires_grad_()
            loss = F.cross_entropy(model(point), label) * (-1 if targeted else 1)
            (gradient,) = torch.autograd.grad(loss, point)
            move = gradient.sign() if sign else gradient / gradient.norm()
            point, taken = (point + step * move).clamp(0, 1).detach(), taken + 1
        assert found.steps[index] == taken
        torch.testing.assert_close(found.images[index], point[0], atol=1e-9, rtol=0)
    assert len(found.steps.unique()) > 4
    assert (found.steps == steps).any()
    assert (found.steps == 0).any() == targeted
    assert 0 < found.changed.sum() < 16


@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", ["fgsm", "pgd", "pgd:norm=l2", "minimal-fgsm"])
def test_attack_of_uint8_images_equals_that_of_floats(method: str) -> None:
    stored = torch.randint(0, 256, (6, *SHAPE), dtype=torch.uint8, generator=seeded())
    before, labels = stored.clone(), labels_of(6, 3)
    found, expected = (
        attack(linear(3), stored, labels, method),
        attack(linear(3), stored / 255, labels, method),
    )
    assert found.images.dtype == torch.float32
    torch.testing.assert_close(found.images, expected.images)
    assert torch.equal(stored, before)


def test_attack_keeps_float64() -> None:
    found = pgd(network().double(), pixels(2).double(), labels_of(2, 5))
    assert found.images.dtype == found.logits.dtype == found.clean_logits.dtype == torch.float64


@pytest.mark.parametrize("method", ["fgsm:epsilon=0", "pgd:epsilon=0", "pgd:epsilon=0,norm=l2"])
def test_attack_of_radius_zero_changes_nothing(method: str) -> None:
    images = pixels(4)
    found = attack(network(), images, labels_of(4, 5), method)
    assert torch.equal(found.images, images)
    assert not found.changed.any()


# --- gradients that vanish


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "method", ["fgsm", "pgd", "pgd:norm=l2", "minimal-fgsm", "minimal-fgsm:sign=false"]
)
def test_attack_of_a_confident_model(method: str) -> None:
    model, images = linear(3, scale=0.01), pixels(4, 0.3, 0.7)
    model.bias = torch.tensor([200.0, 0.0, 0.0])
    point = images.clone().requires_grad_()
    F.cross_entropy(model(point), torch.zeros(4, dtype=torch.int64)).backward()
    assert not point.grad.any()  # what the attack would have to go by
    found = attack(model, images, torch.zeros(4, dtype=torch.int64), method)
    margins = found.logits[:, 0] - found.logits[:, 1:].amax(1)
    clean = found.clean_logits[:, 0] - found.clean_logits[:, 1:].amax(1)
    assert (margins < clean).all()


def test_attack_of_a_nearly_confident_model_follows_the_exact_gradient() -> None:
    # In float32 the label's probability rounds to 1, which leaves only the other class's share of
    # the gradient: the wrong sign.
    weight = torch.stack([torch.linspace(0.5, 1, 48), torch.linspace(0.1, 0.4, 48)])
    model, images = Linear(weight, torch.tensor([20.0, 0.0])).eval(), pixels(4, 0.3, 0.7)
    found = fgsm(model, images, torch.zeros(4, dtype=torch.int64), epsilon=0.1)
    torch.testing.assert_close(found.images, images - 0.1)


@pytest.mark.parametrize(
    "method",
    [
        "fgsm",
        "pgd:random_start=false",
        "pgd:norm=l2,random_start=false",
        "minimal-fgsm:sign=false",
    ],
)
def test_attack_with_zero_gradient_changes_nothing(method: str) -> None:
    images = pixels(4)
    found = attack(
        Linear(torch.zeros(3, 48)).eval(), images, torch.zeros(4, dtype=torch.int64), method
    )
    assert torch.equal(found.images, images)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_pgd_l2_does_not_depend_on_the_gradient_scale(scale: float) -> None:
    images, labels = pixels(4, 0.3, 0.7), labels_of(4, 2)
    settings = {"epsilon": 0.2, "norm": "l2", "random_start": False}
    found, expected = (pgd(linear(2, scale=by), images, labels, **settings) for by in (scale, 1.0))
    torch.testing.assert_close(found.images, expected.images)


# --- chance


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_seed_does_not_depend_on_batch_size(norm: str) -> None:
    images, labels, model = pixels(7), labels_of(7, 5), network()
    calls = Calls(model)
    expected = pgd(model, images, labels, norm=norm, seed=5)
    for batch_size in (1, 3):
        calls.seen.clear()
        found = pgd(model, images, labels, norm=norm, seed=5, batch_size=batch_size)
        torch.testing.assert_close(found.images, expected.images, atol=1e-5, rtol=0)
        assert max(len(batch) for batch in calls.seen) == batch_size
    assert not torch.equal(pgd(model, images, labels, norm=norm, seed=6).images, expected.images)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_does_not_use_the_global_generator(norm: str) -> None:
    found = []
    with torch.random.fork_rng():
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(pgd(linear(5), pixels(3), labels_of(3, 5), 0.1, norm, steps=1).images)
    assert torch.equal(*found)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_start_distribution(norm: str) -> None:
    model = linear(2)
    calls = Calls(model)
    pgd(
        model, torch.full((500, *SHAPE), 0.5), labels_of(500, 2), 0.4, norm, steps=1, batch_size=500
    )
    start = (calls.seen[2] - 0.5) / 0.4
    uniform = 4 * lengths(start, "l2") if norm == "l2" else (start[:, 0, 0, 0] + 1) / 2
    assert kstest(uniform, "uniform").pvalue > 0.01
    assert np.abs(start.mean(0)).max() < 0.15


def test_pgd_l2_step_is_not_shortened_by_the_box() -> None:
    """Pixels at 0 or 1 whose gradient points outwards take no part in the step."""
    model, images, labels = linear(2), at_the_edges(20), labels_of(20, 2)
    found = pgd(
        model, images, labels, 9.0, "l2", steps=1, step_size=0.01, random_start=False
    ).images
    away = (model.weight[1 - labels] - model.weight[labels]).view_as(images).detach()
    free = ~((images == 0) & (away < 0) | (images == 1) & (away > 0))
    step = 0.01 * F.normalize((away * free).flatten(1), dim=1).view_as(images)
    torch.testing.assert_close(found, (images + step).clamp(0, 1), atol=1e-6, rtol=0)


# --- the model is left as it was


@pytest.mark.slow
@pytest.mark.parametrize("around", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["fgsm", "pgd", "pgd:norm=l2", "minimal-fgsm"])
def test_attack_restores_the_model(around: type, method: str) -> None:
    model, expected = network(), attack(network(), pixels(3), labels_of(3, 5), method)
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    required, grads = (
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
    )
    generator = torch.get_rng_state()
    with around():
        images, labels = pixels(3), labels_of(3, 5)
        before = images.clone()
        found = attack(model, images, labels, method)
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(images, before)
    assert [p.requires_grad for p in model.parameters()] == required
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
    assert (model[4].weight.grad == 1).all()
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not found.images.requires_grad
    assert not found.images.is_inference()
    torch.testing.assert_close(found.images, expected.images)


def test_attack_of_a_model_with_an_in_place_first_layer() -> None:
    class InPlace(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5).mul_(2))

    weight, images, labels = linear(2).weight.detach(), pixels(4, 0.3, 0.7), labels_of(4, 2)
    before = images.clone()
    found = pgd(InPlace(weight).eval(), images, labels, epsilon=0.1)
    assert torch.equal(images, before)
    torch.testing.assert_close(
        found.images, pgd(Linear(weight).eval(), images, labels, epsilon=0.1).images
    )


def test_attack_ignores_an_outer_autocast() -> None:
    expected = pgd(network(), pixels(4), labels_of(4, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pgd(network(), pixels(4), labels_of(4, 5))
    assert torch.equal(found.logits, expected.logits)


def test_attack_of_a_model_with_dict_output() -> None:
    class Wrapped(Linear):
        def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"features": x, "logits": super().forward(x)}

    model = linear(3)
    found = fgsm(Wrapped(model.weight.detach()).eval(), pixels(4), labels_of(4, 3))
    assert torch.equal(found.images, fgsm(model, pixels(4), labels_of(4, 3)).images)


# --- the table, and what is refused


def test_attack_notation_sets_arguments() -> None:
    model, images, labels = network(), pixels(4), labels_of(4, 5)
    found = attack(
        model,
        images,
        labels,
        "pgd:epsilon=0.3,norm=l2,steps=3,step_size=1,random-start=false,seed=4,batch_size=2",
    )
    expected = pgd(
        model,
        images,
        labels,
        0.3,
        "l2",
        steps=3,
        step_size=1.0,
        random_start=False,
        seed=4,
        batch_size=2,
    )
    assert torch.equal(found.images, expected.images)
    assert torch.equal(attack(model, images, labels).images, pgd(model, images, labels).images)


def test_attack_of_a_custom_method(monkeypatch: pytest.MonkeyPatch) -> None:
    def invert(model: nn.Module, images: Tensor, labels: Tensor, amount: float = 1.0) -> Attack:
        moved, none = images + amount * (1 - 2 * images), torch.zeros_like(labels)
        return Attack(moved, model(images), model(moved), none.bool(), none)

    monkeypatch.setitem(ATTACKS, "invert", invert)
    images = pixels(2)
    assert torch.equal(
        attack(linear(3), images, labels_of(2, 3), "invert:amount=0.5").images,
        images + 0.5 * (1 - 2 * images),
    )


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("pdg", "unknown attack 'pdg' .did you mean 'pgd'.*possible: fgsm, minimal-fgsm, pgd"),
        ("fgsm:norm=l2", "fgsm has no argument 'norm'"),
        ("pgd:norm=l1", "unknown norm 'l1'.*possible: linf, l2"),
        (
            "fgsm:8",
            "epsilon must be at most 1, because pixels are in .0, 1., found 8.0; did you mean 8/",
        ),
        ("pgd:8", "epsilon must be at most 1"),
        ("pgd:epsilon=-0.1", "epsilon must be a number of at least 0, found -0.1"),
        ("pgd:epsilon=small", "epsilon must be a number of at least 0, found 'small'"),
        ("pgd:steps=0", "steps must be a whole number of at least 1, found 0"),
        ("pgd:step_size=-1", "step_size must be a number of at least 0, found -1"),
        ("minimal-fgsm:step_size=-1", "step_size must be a number of at least 0, found -1.0"),
        ("minimal-fgsm:steps=0", "steps must be a whole number of at least 1, found 0"),
        ("fgsm:batch_size=0", "batch_size must be a whole number of at least 1, found 0"),
    ],
)
def test_attack_refuses_wrong_settings(method: str, message: str) -> None:
    with pytest.raises(SeewhyError, match=message):
        attack(linear(3), pixels(2), labels_of(2, 3), method)


def test_attack_functions_refuse_wrong_settings() -> None:
    with pytest.raises(
        SeewhyError, match=r"unknown norm 'L2' .did you mean 'l2'.*possible: l2, linf"
    ):
        pgd(linear(3), pixels(2), labels_of(2, 3), 0.1, "L2")  # type: ignore[arg-type]
    with pytest.raises(SeewhyError, match="epsilon must be a number of at least 0, found nan"):
        fgsm(linear(3), pixels(2), labels_of(2, 3), epsilon=float("nan"))
    with pytest.raises(
        SeewhyError, match=r"steps must be a whole number of at least 1, found 2\.5"
    ):
        pgd(linear(3), pixels(2), labels_of(2, 3), steps=2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            torch.tensor([0]),
            r"labels must be a tensor \(2,\) int64, one class index per image, found \(1,\)",
        ),
        (torch.tensor([[0], [1]]), r"labels must be a tensor \(2,\) int64.*found \(2, 1\)"),
        (torch.tensor([0.0, 1.0]), "labels must be a tensor .* found .*float32"),
        ([0, 1], "labels must be a tensor .* found list"),
        (
            torch.tensor([0, 3]),
            "labels must be from 0 to 2, because there are 3 classes, found 0 to 3",
        ),
        (
            torch.tensor([-1, 0]),
            "labels must be from 0 to 2, because there are 3 classes, found -1 to 0",
        ),
    ],
)
def test_attack_refuses_wrong_labels(labels: Tensor, message: str) -> None:
    with pytest.raises(SeewhyError, match=message):
        fgsm(linear(3), pixels(2), labels)


def test_attack_refuses_wrong_images_and_models() -> None:
    labels = labels_of(2, 3)
    with pytest.raises(SeewhyError, match=r"values in \[0, 1\]"):
        fgsm(linear(3), pixels(2) * 2, labels)
    with pytest.raises(SeewhyError, match="evaluation mode"):
        fgsm(linear(3).train(), pixels(2), labels)
    with pytest.raises(SeewhyError, match="at least 2 classes, found 1"):
        fgsm(linear(1), pixels(2), labels * 0)

    class Detached(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(
        SeewhyError, match="the model detaches a tensor, is quantized, or runs under"
    ):
        fgsm(Detached(linear(3).weight.detach()).eval(), pixels(2), labels)


@pytest.mark.parametrize("method", list(ATTACKS))
def test_attack_refuses_values_that_are_not_finite(method: str) -> None:
    class Root(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sqrt())

    images, labels = pixels(3, 0.5, 1), labels_of(3, 3)
    images[1, 0, 0, 0] = 0  # where the root is steep without end
    arguments = {"random_start": False} if method == "pgd" else {}
    with pytest.raises(SeewhyError, match="logits or gradients of 1 of 3 images are not finite"):
        ATTACKS[method](Root(linear(3).weight.detach()).eval(), images, labels, **arguments)
    with pytest.raises(SeewhyError, match="logits or gradients of 3 of 3 images are not finite"):
        attack(Linear(torch.full((3, 48), torch.nan)).eval(), images, labels, method)
