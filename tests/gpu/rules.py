"""Tests on a simulated GPU; test_gpu.py runs them in a process that has one."""

import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pretended
import pytest
import torch
import torch.nn.functional as F

from seewhy.attribution.explanation import explain
from seewhy.attribution.methods import METHODS
from seewhy.cli.main import main
from seewhy.data.augment import AUGMENTATIONS
from seewhy.data.dataset import Dataset
from seewhy.diagnosis.attacks import ATTACKS, attack
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.inference import compute_logits
from seewhy.models.registry import build_model
from seewhy.models.tta import TTA
from seewhy.runs.lr_search import find_lr
from seewhy.runs.training import fit
from seewhy.train.device import find_precision
from seewhy.train.loop import train
from seewhy.train.optimizers import OPTIMIZERS
from seewhy.train.plan import TrainingPlan, make_plan
from seewhy.train.recipe import Recipe
from seewhy.train.state import TrainState, load_state_dict, new_state, state_dict

pretended.install()

SETTINGS = [
    {"precision": "fp32"},
    {"precision": "bf16", "grad_accum_steps": 2, "clip_grad_norm": 1.0, "l1": 1e-5},
    {"ema": 0.9, "lookahead": 2, "freeze": ("whiten:0.2",)},
    {"resolution": "linear:warmup=0.9,start=0.5,end=1", "class_weights": True},
    {"schedule": "plateau", "momentum_schedule": "dip"},
]
# momentum is nesterov with another flag of one torch optimizer; adam is adamw likewise
DISTINCT_OPTIMIZERS = [name for name in OPTIMIZERS if name not in ("momentum", "adam")]
SMALL = {  # fewer passes
    "rise": "rise:masks=8",
    "smooth-grad": "smooth-grad:samples=3",
    "integrated-gradients": "integrated-gradients:steps=4",
    "minimal-fgsm": "minimal-fgsm:steps=20",
}
NAMES = ["plain", "accumulated", "averaged", "resized", "plateau"]


@pytest.fixture(autouse=True)
def narrow_resnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called and where it waits do not depend on the number of channels."""
    monkeypatch.setattr("seewhy.models.resnet.WIDTHS", (8, 8, 16, 16))


def begin(recipe: Recipe, data: Dataset) -> tuple[TrainState, TrainingPlan]:
    torch.manual_seed(recipe.seed)
    plan = make_plan(recipe, data, "cuda")
    return new_state(plan), plan


def assert_waits_for_nothing(recipe: Recipe, data: Dataset) -> None:
    events = train(*begin(recipe, data))
    next(events)
    with pretended.waits() as waits:
        steps = list(islice(events, 4))
    assert [event.step for event in steps] == [2, 3, 4, 5]
    assert waits == []


def test_pretended_gpu_follows_the_rules() -> None:
    """Without this, nothing below would mean much."""
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    assert there.device.type == "cuda"
    with pytest.raises(RuntimeError, match="same device"):
        here + there
    with pytest.raises(RuntimeError, match="same device"):
        here.add_(there)
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    with pretended.waits() as waits:
        torch._foreach_copy_([there, there], [here, there])
    assert waits == ["a copy from one device to the other"]
    with pretended.waits() as waits, pretended.launches() as launches:
        total = (there * 2).sum()
        assert waits == []
        assert total.item() == 6
        assert bool(total > 5)
        there[there > 0]
        there.cpu()
        there[torch.tensor([0, 1])]
    assert [wait.split(" in ")[0] for wait in waits] == [
        "_local_scalar_dense",
        "_local_scalar_dense",
        "index where a mask is true",
        "a copy from one device to the other",
        "index at places that the host knows",
    ]
    assert launches[:2] == ["mul", "sum"]


@pytest.mark.parametrize("optimizer", DISTINCT_OPTIMIZERS)
def test_no_step_waits_by_optimizer(optimizer: str, recipe: Recipe, data: Dataset) -> None:
    """In fp16: what bf16 does besides is among the settings below."""
    assert_waits_for_nothing(replace(recipe, optimizer=optimizer, lr=0.01, precision="fp16"), data)


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_no_step_waits_by_settings(
    settings: dict[str, object], recipe: Recipe, data: Dataset
) -> None:
    assert_waits_for_nothing(replace(recipe, **settings), data)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_no_step_waits_by_augmentation(name: str, recipe: Recipe, data: Dataset) -> None:
    assert_waits_for_nothing(
        replace(recipe, augment=(f"{name}:4" if name == "cutout" else name,)), data
    )


@pytest.mark.parametrize("optimizer", DISTINCT_OPTIMIZERS)
def test_fit_equals_the_cpu(optimizer: str, recipe: Recipe, data: Dataset) -> None:
    """Both use the same kernels here, so every branch for a GPU must give equal bits."""
    recipe = replace(recipe, optimizer=optimizer, lr=0.01, epochs=1, precision="fp32")
    one, other = (fit(recipe, data, device=device, quiet=True) for device in ("cuda", "cpu"))
    assert one.environment.accelerator == "pretended GPU"
    for mine, theirs in zip(
        one.model.state_dict().values(), other.model.state_dict().values(), strict=True
    ):
        assert torch.equal(mine.cpu(), theirs)


@pytest.mark.parametrize("optimizer", DISTINCT_OPTIMIZERS)
def test_fp16_skips_an_overflow(optimizer: str, recipe: Recipe, data: Dataset) -> None:
    """No weight moves, the scale falls, and the training goes on."""
    state, plan = begin(replace(recipe, optimizer=optimizer, lr=0.01, precision="fp16"), data)
    state.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**60)
    events = train(state, plan)
    before = [parameter.detach().clone() for parameter in state.model.parameters()]
    list(islice(events, 6 if optimizer == "gd" else 1))  # one update
    assert all(
        torch.equal(old, new) for old, new in zip(before, state.model.parameters(), strict=True)
    )
    assert state.scaler.get_scale() == 2.0**59
    assert all(
        value.isfinite().all()
        for o in state.optimizers
        for kept in o.state.values()
        for value in kept.values()
    )


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_nonfinite_step_moves_no_weight(optimizer: str, recipe: Recipe, data: Dataset) -> None:
    """The device decides it: the host may learn of it some steps later."""
    recipe = replace(recipe, optimizer=optimizer, lr=0.01, precision="fp32", schedule="constant")
    state, plan = begin(recipe, data)
    events = train(state, plan)
    next(events)
    before = [parameter.detach().clone() for parameter in state.model.parameters()]
    *_, last = state.model.parameters()
    with torch.no_grad():
        last.fill_(float("nan"))
    with pytest.raises(SeewhyError, match=r"not finite at step 2"):
        list(events)
    for old, new in zip(before, state.model.parameters(), strict=True):
        assert new is last or torch.equal(old, new)


def test_train_resumes_to_the_same_end(recipe: Recipe, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(recipe, augment=("crop:1", "cutmix"), ema=0.9, grad_accum_steps=4, epochs=2)
    (whole, plan), (part, _), (resumed, _) = (begin(recipe, data) for _ in range(3))
    list(train(whole, plan))
    list(islice(train(part, plan), 7))  # amid an epoch and an update
    torch.save(state_dict(part), tmp_path / "state.pt")
    load_state_dict(resumed, torch.load(tmp_path / "state.pt", weights_only=True))
    list(train(resumed, plan))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
        assert torch.equal(whole.ema[name], resumed.ema[name]), name


def kernels(launches: list[str]) -> int:
    """Number of launches that compute; views and uninitialized memory are no kernels."""
    free = {
        "detach",
        "view",
        "_unsafe_view",
        "t",
        "transpose",
        "permute",
        "unsqueeze",
        "squeeze",
        "expand",
        "slice",
        "select",
    }
    free |= {
        "alias",
        "as_strided",
        "split",
        "split_with_sizes",
        "unbind",
        "empty_like",
        "empty",
        "diagonal",
        "_reshape_alias",
    }
    return sum(name not in free for name in launches)


@pytest.mark.parametrize(("optimizer", "most"), [("nesterov", 65), ("adamw", 65), ("muon", 110)])
def test_step_launches_few_extra_kernels(optimizer: str, most: int, data: Dataset) -> None:
    """Launches limit the speed of small models. Bare step: forward, backward, optimizer."""
    recipe = Recipe(
        model="resnet18",
        epochs=2,
        batch_size=4,
        lr=0.01,
        optimizer=optimizer,
        augment=(),
        ema=0.99,
        precision="bf16",
    )
    state, plan = begin(recipe, data)
    events = train(state, plan)
    next(events)
    with pretended.launches() as ours:
        next(events)
    bare, _ = begin(recipe, data)
    images, labels = (
        torch.rand(4, 3, 8, 8, device="cuda"),
        torch.zeros(4, dtype=torch.long, device="cuda"),
    )
    for _ in range(2):
        with pretended.launches() as theirs:
            with torch.autocast("cuda", torch.bfloat16):
                outputs = bare.model(images)
            F.cross_entropy(outputs.float(), labels).backward()
            for each in bare.optimizers:
                each.step()
                each.zero_grad()
    assert 0 < kernels(ours) - kernels(theirs) < most


def test_explain_equals_the_cpu(data: Dataset) -> None:
    torch.manual_seed(0)
    model = build_model("resnet18", 3, data.train).eval()
    images = data.test.images[:3]
    methods = [SMALL.get(name, name) for name in METHODS if name not in ("score-cam", "cam")]
    asked = {
        "methods": methods,
        "layers": ["layer2"],
        "target": torch.tensor([0, 1, 2]),
        "warn": False,
    }
    here = explain(model, images, **asked)
    there = explain(copy.deepcopy(model).to("cuda"), images, **asked)
    assert here.maps.keys() == there.maps.keys()
    for key, maps in there.maps.items():
        torch.testing.assert_close(
            torch.as_tensor(maps),
            torch.as_tensor(here.maps[key]),
            rtol=1e-4,
            atol=1e-4,
            equal_nan=True,
        )


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_equals_the_cpu(name: str, data: Dataset) -> None:
    torch.manual_seed(0)
    model = build_model("speednet:width=0.25", 3, data.train).eval()
    result = [
        attack(net, data.test.images[:8], data.test.labels[:8], SMALL.get(name, name))
        for net in (model, copy.deepcopy(model).to("cuda"))
    ]
    torch.testing.assert_close(result[0].images, result[1].images.cpu())


@pytest.mark.parametrize("tta", TTA)
def test_compute_logits_equals_the_cpu(tta: str, data: Dataset) -> None:
    torch.manual_seed(0)
    model = build_model("speednet:width=0.25", 3, data.train)
    here, there = (
        compute_logits(Classifier(net, tta=tta), data.test.images)
        for net in (model, copy.deepcopy(model).to("cuda"))
    )
    assert there.device.type == "cpu"
    torch.testing.assert_close(here, there)


def test_auto_precision_is_bf16() -> None:
    assert find_precision("auto", torch.device("cuda")) == "bf16"


def test_find_lr_equals_the_cpu(recipe: Recipe, data: Dataset) -> None:
    recipe = replace(recipe, precision="fp32")
    here, there = (find_lr(recipe, data, updates=20, device=device) for device in ("cpu", "cuda"))
    assert here.losses == there.losses


@pytest.mark.usefixtures("blank_figures")
def test_commands_from_train_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, gpu = str(tmp_path / "run"), ["--device", "cuda"]
    small = ["--model", "speednet:width=0.1", "--epochs", "1", "--precision", "fp32"]
    assert (
        main(["train", "demo", "--data", "shapes:train=20,test=10", *small, *gpu, "--output", run])
        == 0
    )
    assert "in fp32 on cuda" in capsys.readouterr().out
    assert (tmp_path / "run/report.html").stat().st_size > 100_000
    few = ["--methods", "grad-cam", "--layers", "group3", "--images", "4"]
    assert main(["trust", run, *few, *gpu]) == 0
    assert main(["explain", run, *gpu, "--output", str(tmp_path / "maps")]) == 0
    assert main(["evaluate", run, *gpu]) == 0
