"""What happens between gradients and weights, on a network small enough to compute by hand."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from linear_training import (
    PLAIN,
    assert_equal,
    batch,
    begin,
    by_hand,
    entropy,
    linear,
    trained,
)
from torch import Tensor, nn

from seewhy.data.dataset import Dataset, Split
from seewhy.errors import SeewhyError
from seewhy.models.registry import MODELS
from seewhy.runs.checkpoint import CheckpointPolicy, load_checkpoint
from seewhy.runs.environment import current_environment
from seewhy.runs.recorder import Recorder, Session
from seewhy.runs.training import fit
from seewhy.train.batches import resize_images
from seewhy.train.loop import EpochStats, StepStats, train
from seewhy.train.optimizers import OPTIMIZERS, bind_optimizer, momentum_of
from seewhy.train.recipe import Recipe
from seewhy.train.update import step_if_finite


def test_accumulate_equals_one_large_batch(data: Dataset) -> None:
    """Six batches, four to an update: the last update of an epoch has only two."""
    state, events = trained(replace(PLAIN, grad_accum_steps=4), data)
    assert_equal(state.model, by_hand(data, entropy, [0, 160, 240]))
    assert state.updates == 2
    assert len([event for event in events if isinstance(event, StepStats)]) == 6


def test_gd_updates_once_per_epoch(
    data: Dataset,
) -> None:
    state, _ = trained(replace(PLAIN, optimizer="gd"), data)
    assert_equal(state.model, by_hand(data, entropy, [0, 240]))
    assert state.updates == 1


def test_clip_limits_the_gradient_norm(data: Dataset) -> None:
    state, _ = trained(replace(PLAIN, clip_grad_norm=0.05), data)
    assert_equal(state.model, by_hand(data, entropy, [*range(0, 241, 40)], clip=0.05))


def test_l1_penalizes_weights_only(data: Dataset) -> None:
    def loss(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return entropy(net, images, labels) + 0.01 * net[1].weight.abs().sum()

    state, events = trained(replace(PLAIN, l1=0.01, grad_accum_steps=2), data)
    assert_equal(state.model, by_hand(data, loss, [0, 80, 160, 240]))
    assert events[0].train_loss == pytest.approx(
        entropy(linear(), *batch(data, 0, 40)).item(), rel=1e-5
    )  # without the penalty


@pytest.mark.train
def test_ema_is_evaluated_and_kept(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "linear", lambda num_classes, sample: linear())
    averaged = replace(PLAIN, model="linear", ema=0.9, epochs=2)
    plain = fit(replace(averaged, ema=0.0), data, quiet=True)
    run = fit(averaged, data, quiet=True)
    assert run.result is not None
    assert (
        run.history[-1].train_loss == plain.history[-1].train_loss
    )  # the training itself is the same
    assert run.history[-1].eval_loss == pytest.approx(run.result.test_nll, rel=1e-5)
    assert run.history[-1].eval_loss != plain.history[-1].eval_loss


def test_lookahead(data: Dataset) -> None:
    state, _ = trained(replace(PLAIN, lookahead=2), data)
    net, slow = linear(), [p.detach().clone() for p in linear().parameters()]
    for step in range(6):
        net.zero_grad()
        entropy(net, *batch(data, 40 * step, 40 * step + 40)).backward()
        with torch.no_grad():
            for p, s in zip(net.parameters(), slow, strict=True):
                assert p.grad is not None
                p -= 0.1 * p.grad
                if step % 2 == 1:
                    s += 0.5 * (p - s)
                    p.copy_(s)
    assert_equal(state.model, net)
    assert state.averaged is not None
    for kept, expected in zip(state.averaged.values(), slow, strict=True):
        torch.testing.assert_close(kept, expected)


class Exploding(nn.Module):
    """Finite until its `after`-th batch; then the loss, or only the gradient, is not."""

    def __init__(self, after: int, only_gradient: bool) -> None:
        super().__init__()
        self.net, self.after, self.only_gradient, self.calls = linear(), after, only_gradient, 0

    def forward(self, pixels: Tensor) -> Tensor:
        outputs: Tensor = self.net(pixels)
        self.calls += self.training  # the estimate of memory evaluates the model
        if self.calls < self.after:
            return outputs
        # the root has an infinite slope at zero, and zero is what it adds
        return (
            outputs + (outputs - outputs).sqrt() if self.only_gradient else outputs * float("inf")
        )


@pytest.mark.parametrize("only_gradient", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd:momentum=0.9", "adam", "muon"])
def test_nonfinite_gradient_reaches_no_weight(
    only_gradient: bool, optimizer: str, data: Dataset
) -> None:
    model = Exploding(4, only_gradient)
    recipe = replace(PLAIN, optimizer=optimizer, schedule="linear", weight_decay=0.1)
    state, plan = begin(recipe, data, model)
    events = train(state, plan)
    for _ in range(3):
        next(events)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(
        SeewhyError,
        match=r"not finite at step 4 \(epoch 0\.67\), "
        r"at a learning rate of 0\.04; the weights before",
    ):
        next(events)
    assert state.step == 4
    assert all(
        torch.equal(parameter, kept)
        for parameter, kept in zip(model.parameters(), before, strict=True)
    )


@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_step_if_finite_without_waiting(name: str, sound: bool) -> None:
    """What runs on a GPU, where the device holds the flag: the host must not read it."""

    class Flag(Tensor):
        def __bool__(self) -> bool:
            raise AssertionError("the host waited for the device")

    def after_a_step(on_host: bool) -> tuple[list[Tensor], list[Tensor]]:
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
        model.load_state_dict(weights)
        optimizers = bind_optimizer(name)(model, 0.1, 5e-4)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5 if sound else float("inf"))
        step_if_finite(
            torch.tensor(sound) if on_host else torch.tensor(sound).as_subclass(Flag),
            optimizers,
            on_host,
        )
        kept = [
            value
            for optimizer in optimizers
            for state in optimizer.state.values()
            for value in state.values()
        ]
        return list(model.parameters()), [value for value in kept if isinstance(value, Tensor)]

    weights = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)
    ).state_dict()
    (waited, _), (result, remembered) = after_a_step(True), after_a_step(False)
    assert all(torch.equal(one, other) for one, other in zip(waited, result, strict=True))
    assert sound != torch.equal(result[0], weights["0.weight"])
    assert all(value.isfinite().all() for value in remembered)


@pytest.mark.train
def test_fp16_learns(recipe: Recipe, data: Dataset) -> None:
    run = fit(replace(recipe, precision="fp16"), data, quiet=True)
    assert run.predictions is not None
    assert run.predictions.accuracy > 0.95
    assert run.environment.precision == "fp16"


@pytest.mark.parametrize(
    "optimizer", ["sgd", "sgd:momentum=0.9", "adam", "muon:fallback_momentum=0.5", "rmsprop"]
)
def test_fp16_skips_an_overflow(optimizer: str, data: Dataset) -> None:
    changes = {"optimizer": optimizer, "lr": 0.01, "clip_grad_norm": 1.0}
    state, plan = begin(replace(PLAIN, precision="fp16", epochs=3, **changes), data)  # type: ignore[arg-type]
    state.scaler._init_scale = 2.0**40  # far too much for float16 gradients
    before = [p.detach().clone() for p in state.model.parameters()]
    events = train(state, plan)
    next(events)
    assert all(
        torch.equal(p, kept) for p, kept in zip(state.model.parameters(), before, strict=True)
    )
    rest = list(events)
    assert state.scaler.get_scale() < 2.0**40
    assert all(p.isfinite().all() for p in state.model.parameters())
    assert rest[-1].train_loss < rest[0].train_loss


def test_fp16_fails_if_no_scale_helps(data: Dataset) -> None:
    model = Exploding(0, only_gradient=True)
    before = [p.detach().clone() for p in model.parameters()]
    state, plan = begin(replace(PLAIN, precision="fp16", batch_size=5), data, model)
    with pytest.raises(SeewhyError, match=r"not finite at step 48"):
        list(train(state, plan))
    assert all(torch.equal(p, kept) for p, kept in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": ("0:0", "1:0.5")}, "freeze: the model has no trainable parameter '0'"),
        (
            {"freeze": ("1:0.5",)},
            r"freeze 1:0\.5 leaves no parameter to train at epoch 0\.5; freeze fewer",
        ),
        (
            {"resolution": "linear:warmup=0.5,start=0.5,end=1", "epochs": 4},
            "makes images of 4x4, which resnet18 does not accept",
        ),
    ],
)
def test_new_state_checks_the_plan(changes: dict[str, Any], message: str, data: Dataset) -> None:
    with pytest.raises(SeewhyError, match=message):
        begin(replace(PLAIN, **changes), data)


@pytest.mark.parametrize("error", [AssertionError(), ValueError("too small")])
def test_a_model_may_refuse_small_images_with_any_error(error: Exception, data: Dataset) -> None:
    class Picky(nn.Flatten):
        def forward(self, images: Tensor) -> Tensor:
            if images.shape[2] < 8:
                raise error
            return super().forward(images)

    recipe = replace(PLAIN, resolution="linear:warmup=0.5,start=0.5,end=1", epochs=4)
    reason = str(error) or "AssertionError"
    with pytest.raises(SeewhyError, match=rf"images of 4x4, which \w+ does not accept \({reason}"):
        begin(recipe, data, nn.Sequential(Picky(), nn.Linear(192, 3)))


def test_fit_checks_tta_first(recipe: Recipe, data: Dataset) -> None:
    with pytest.raises(
        SeewhyError, match=r"pixels must be at least 1 and below the image's side, found 40"
    ):
        fit(replace(recipe, tta="flip-shift:pixels=40", epochs=1e6), data, quiet=True)


@pytest.mark.parametrize("optimizer", ["sgd:momentum=0.9", "rmsprop:momentum=0.9", "adam", "muon"])
def test_momentum_schedule_from_zero(optimizer: str, data: Dataset) -> None:
    _, events = trained(
        replace(PLAIN, optimizer=optimizer, lr=1e-3, momentum_schedule="linear:warmup=0.5"), data
    )
    assert events[-1].train_loss < 2


def test_resolution_grows(data: Dataset) -> None:
    seen: list[tuple[int, ...]] = []

    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, pixels: Tensor) -> Tensor:
            seen.append(tuple(pixels.shape[2:]))
            return self.head(pixels.mean((2, 3)))

    recipe = replace(
        PLAIN,
        batch_size=240,
        epochs=8,
        eval_every=0,
        resolution="linear:warmup=0.5,start=0.5,end=1",
    )
    trained(recipe, data, Looking())
    # the smallest size is tried beforehand, and memory is estimated at the largest one
    assert seen[:2] == [(4, 4), (8, 8)]
    # the last two are the evaluation, which looks at one image to choose its batches
    assert seen[2:] == [(4, 4)] * 2 + [(8, 8)] * 8


def test_resize_images() -> None:
    images = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))
    assert resize_images(images, 1.0) is images
    assert resize_images(images, 0.5).shape == (2, 3, 16, 12)
    assert resize_images(images, 0.7).shape == (2, 3, 24, 16)
    assert resize_images(images, 0.01).shape == (2, 3, 4, 4)
    assert resize_images(images, 3.0).shape == (2, 3, 32, 24)
    flat = torch.full((1, 3, 32, 32), 0.25)
    torch.testing.assert_close(resize_images(flat, 0.5), flat[..., :16, :16])


@pytest.mark.train
def test_patience_stops_early(recipe: Recipe, data: Dataset) -> None:
    with_validation = replace(data, validation=data.test)
    run = fit(replace(recipe, epochs=40, patience=3), with_validation, quiet=True)
    accuracies = [row.eval_accuracy for row in run.history]
    assert run.result is not None
    best = accuracies.index(max(row for row in accuracies if row is not None))
    assert len(run.history) == best + 1 + 3 < 40
    assert run.result.selected_epoch == best + 1


def test_plateau_watches_the_training_loss(
    data: Dataset,
) -> None:
    recipe = replace(
        PLAIN, epochs=6, lr=1e-6, schedule="plateau:factor=0.5,patience=0,threshold=0.5"
    )
    _, events = trained(recipe, replace(data, test=data.train))
    rates = [event.lr for event in events if isinstance(event, EpochStats)]
    assert rates == pytest.approx(
        [1e-6, 1e-6, 5e-7, 2.5e-7, 1.25e-7, 6.25e-8]
    )  # losses stand still, after the first


def test_momentum_schedule(data: Dataset) -> None:
    for optimizer in (
        "sgd:momentum=0.8",
        "adam:beta1=0.8",
        "rmsprop:momentum=0.8",
        "muon:momentum=0.8,fallback_momentum=0.8",
    ):
        recipe = replace(PLAIN, optimizer=optimizer, momentum_schedule="dip:pct_start=0.4,low=0.5")
        state, plan = begin(recipe, data)
        events = train(state, plan)
        momenta = []
        for _ in range(6):
            next(events)
            momenta.append(momentum_of(state.optimizers[-1].param_groups[0]))
        assert momenta == pytest.approx(
            [0.8, 0.6, 0.4, 0.8 * (1 - 0.5 * 2 / 3), 0.8 * (1 - 0.5 / 3), 0.8]
        )
        (row,) = events
        assert row.momentum == pytest.approx(0.8)


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of its own parts
def test_compile_once_per_image_size(
    recipe: Recipe, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(num_classes: int, sample: Split) -> nn.Module:
        pool = nn.AdaptiveAvgPool2d(2)
        return nn.Sequential(pool, nn.Flatten(), nn.GELU(), nn.Linear(12, num_classes))

    monkeypatch.setitem(MODELS, "small", small)
    eager = replace(
        recipe, model="small", epochs=4, resolution="linear:warmup=0.5,start=0.5,end=1", seed=1
    )
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled = fit(replace(eager, compile=True), data, quiet=True)
    assert counters["stats"]["unique_graphs"] == 2
    losses = [stats.train_loss for stats in fit(eager, data, quiet=True).history]
    assert [stats.train_loss for stats in compiled.history] == pytest.approx(losses, rel=1e-4)


@pytest.mark.train
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    "changes", [{"grad_accum_steps": 4}, {"optimizer": "gd"}], ids=["accumulated", "gd"]
)
def test_nonfinite_loss_within_an_update(
    precision: str,
    changes: dict[str, Any],
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second of the four or six batches of an update; no checkpoint has a later state."""
    monkeypatch.setitem(
        MODELS, "exploding", lambda num_classes, sample: Exploding(2, only_gradient=False)
    )
    recipe = replace(PLAIN, model="exploding", precision=precision, **changes)
    with pytest.raises(SeewhyError, match=r"not finite at step 2 \(epoch 0\.33\)"):
        fit(
            recipe,
            data,
            tmp_path / "run",
            quiet=True,
            checkpoint=CheckpointPolicy(checkpoint_seconds=0),
        )
    kept = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["state"]
    assert kept["step"] == 1
    assert all(gradient.isfinite().all() for gradient in kept["gradients"].values())


def test_no_checkpoint_after_a_failure(data: Dataset, tmp_path: Path) -> None:
    """On a GPU the host learns of it some steps later, and may want a checkpoint before."""
    state, plan = begin(PLAIN, data)
    environment = current_environment(torch.device("cpu"), "fp32")
    with Recorder(state, Session(plan, environment, tmp_path / "run")) as recorder:
        recorder.checkpoint()
        written = (tmp_path / "run/checkpoints/last.pt").stat().st_mtime_ns
        state.totals.mark_failure(torch.tensor(False), 5)
        recorder.checkpoint()
        assert (tmp_path / "run/checkpoints/last.pt").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({"optimizer": "gd", "epochs": 1}, [1.0]),
        ({"optimizer": "gd", "epochs": 3}, [1.0, 0.5, 0.0]),
        ({"grad_accum_steps": 4, "epochs": 2}, [1.0, 0.6, 0.4, 0.0]),  # from steps 0, 4, 6 and 10
        ({"epochs": 0.5}, [1.0, 0.5, 0.0]),
    ],
)
def test_update_has_the_lr_of_its_first_batch(
    settings: dict[str, Any], factors: list[float], data: Dataset
) -> None:
    state, plan = begin(replace(PLAIN, schedule="linear", **settings), data)
    rates, updates = [], 0
    for event in train(state, plan):
        if state.updates > updates and isinstance(event, StepStats):
            rates.append(event.lr)
            updates = state.updates
    assert rates == pytest.approx([0.1 * factor for factor in factors], abs=1e-12)


def test_lookahead_counts_updates_at_epoch_ends(data: Dataset) -> None:
    """Six batches an epoch and eight an update are one update an epoch."""
    recipe = replace(PLAIN, epochs=3, grad_accum_steps=8, lookahead=3)
    state, _ = trained(recipe, data)
    assert state.updates == 3
    with pytest.raises(SeewhyError, match="lookahead 4 is more than the updates of this run, 3"):
        trained(replace(recipe, lookahead=4), data)


def test_momentum_schedule_stays_below_one(data: Dataset) -> None:
    recipe = replace(PLAIN, optimizer="adam", momentum_schedule="exponential:start=1,end=1.2")
    with pytest.raises(
        SeewhyError, match=r"raises the momentum from 0\.9 to 1\.08; it must stay below 1"
    ):
        trained(recipe, data)


@pytest.mark.parametrize(
    ("outputs", "found"), [(nn.Linear(192, 5), r"\(40, 5\)"), (nn.LSTM(192, 3), "a tuple")]
)
def test_train_rejects_other_outputs(outputs: nn.Module, found: str, data: Dataset) -> None:
    with pytest.raises(
        SeewhyError, match=rf"to logits \(N, 3\), one per class; 40 images gave {found}"
    ):
        trained(PLAIN, data, nn.Sequential(nn.Flatten(), outputs))


def test_train_raises_the_recompile_limit(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own limit is eight graphs; what is beyond runs uncompiled. Nothing is compiled here."""
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: model)
    monkeypatch.setattr("seewhy.train.plan.shutil.which", lambda name: name)
    recipe = replace(PLAIN, epochs=12, resolution="linear:start=0.5,warmup=0.9", compile=True)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    events = train(*begin(recipe, data, model))
    from torch._dynamo import config  # takes seconds

    before = config.recompile_limit
    next(events)
    assert before < 24 <= config.recompile_limit  # twelve sizes, each before and after a freeze
    events.close()
    assert config.recompile_limit == before
