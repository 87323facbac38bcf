"""Two processes on this machine train as one: on the CPU, through gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seewhy.data.sources import load
from seewhy.errors import SeewhyError
from seewhy.runs.run import open_run
from seewhy.train.distributed import broadcast_from_rank0
from seewhy.train.world import World, is_first_process


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 7, 10])
def test_parts_share_everything_once(size: int, count: int) -> None:
    parts = [range(count)[World(rank, size).shard(count)] for rank in range(size)]
    assert [place for part in parts for place in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_process_alone_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_first_process()
    monkeypatch.setenv("RANK", "1")
    assert is_first_process()  # a rank of what?
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_first_process()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(
        SeewhyError, match="WORLD_SIZE must be a whole number of at least 1, found 'two'"
    ):
        is_first_process()


def together(
    arguments: list[str], directory: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with `arguments` in two processes that torchrun starts."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *arguments,
    ]
    variables = os.environ | {"OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        launcher, cwd=directory, env=variables, capture_output=True, text=True, check=False
    )


BATCH_NORM = """
import torch
from torch import nn
from seewhy.train.distributed import all_reduce_mean, all_reduce_sum, distributed_session, sync_batch_norm

torch.manual_seed(0)
images, gradient = 3 + 2 * torch.randn(7, 4, 5, 5), torch.randn(7, 4, 5, 5)
whole, part = nn.BatchNorm2d(4, momentum=0.3), nn.BatchNorm2d(4, momentum=0.3)
for norm in (whole, part):
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
with distributed_session("cpu") as (world, device):
    assert (world.size, device) == (2, "cpu")
    inputs = images.clone().requires_grad_()
    expected = whole(inputs)
    (expected * gradient).sum().backward()
    mine = world.shard(7)  # three images here, four there
    own = images[mine].clone().requires_grad_()
    with sync_batch_norm(part, world):
        found = part(own)
        (found * gradient[mine]).sum().backward()
    assert "forward" not in vars(part)
    torch.testing.assert_close(found, expected[mine], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.grad, inputs.grad[mine], rtol=1e-4, atol=1e-5)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(part.state_dict()[name], tensor)
    gradients = [part.weight.grad, part.bias.grad]
    all_reduce_mean(gradients, world)
    torch.testing.assert_close(2 * gradients[0], whole.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(2 * gradients[1], whole.bias.grad, rtol=1e-4, atol=1e-4)
    assert all_reduce_sum(torch.tensor([world.rank + 1.0]), world).item() == 3
    with sync_batch_norm(part.eval(), world):
        torch.testing.assert_close(part(own), whole.eval()(own))
    forgetful = nn.BatchNorm2d(4, track_running_stats=False).eval()
    with sync_batch_norm(forgetful, world):
        found = forgetful(own)
    torch.testing.assert_close(found, forgetful(own))
with distributed_session("cpu") as (again, device):  # a second training of one process
    assert again == world
    assert all_reduce_sum(torch.tensor([1.0]), again).item() == 2
print("all of it holds")
"""


@pytest.mark.slow
def test_batch_norm_over_processes_is_batch_norm_over_the_whole_batch(tmp_path: Path) -> None:
    (tmp_path / "norm.py").write_text(BATCH_NORM)
    done = together(["norm.py"], tmp_path)
    assert done.stdout.count("all of it holds") == 2, done.stderr
    assert "Warning" not in done.stderr


FROM_FIRST = """
import os
from seewhy.errors import SeewhyError
from seewhy.train.distributed import broadcast_from_rank0, distributed_session

made = []
def value():
    made.append(os.environ["RANK"])
    return {"rate": 0.1 + int(os.environ["RANK"])}

def fails():
    made.append(os.environ["RANK"])
    raise SeewhyError("no rate was found in process " + os.environ["RANK"])

with distributed_session("cpu") as (world, device):
    assert broadcast_from_rank0(value, world) == {"rate": 0.1}
    try:
        broadcast_from_rank0(fails, world)
    except SeewhyError as error:
        assert str(error) == "no rate was found in process 0"
    else:
        raise AssertionError("nothing was raised")
    assert broadcast_from_rank0(value, world) == {"rate": 0.1}  # all are still in step
    assert made == (["0"] * 3 if world.is_first else [])
print("all of it holds")
"""


def test_alone_a_value_is_just_made() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    assert broadcast_from_rank0(lambda: 7, World()) == 7
    with pytest.raises(ZeroDivisionError):
        broadcast_from_rank0(fails, World())


@pytest.mark.slow
def test_what_the_first_process_makes_all_have(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(FROM_FIRST)
    done = together(["first.py"], tmp_path)
    assert done.stdout.count("all of it holds") == 2, done.stderr


FINDS = """
from seewhy.data import load
from seewhy.errors import SeewhyError
from seewhy.runs.training import fit
from seewhy.train.recipes import RECIPES
from dataclasses import replace

recipe = replace(RECIPES["demo"], lr="find", model="speednet:width=0.05", epochs=0.5, precision="fp32")
run = fit(recipe, load("digits", quiet=True), "run", "cpu")
print(f"trained at {run.recipe.lr!r}")
"""


@pytest.mark.slow
def test_two_processes_train_at_the_rate_that_the_first_one_finds(tmp_path: Path) -> None:
    load("digits", quiet=True)
    (tmp_path / "finds.py").write_text(FINDS)
    done = together(["finds.py"], tmp_path)
    rate = open_run(tmp_path / "run").recipe.lr
    assert done.stdout.count(f"trained at {rate!r}\n") == 2, done.stderr
    assert done.stderr.count("by a range test") == 1


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["nesterov", "muon:bias_lr=4"])
def test_two_processes_end_where_one_does(optimizer: str, tmp_path: Path) -> None:
    """Same batches, same augmentation: an odd batch size, label mixing, clipping and averaging included."""
    load("digits", quiet=True)
    options = [
        "demo",
        "--data",
        "digits",
        "--epochs",
        "1.5",
        "--lr",
        "0.05",
        "--optimizer",
        optimizer,
        "--precision",
        "fp32",
    ]
    options += [
        "--batch-size",
        "97",
        "--augment",
        "crop:1",
        "mixup",
        "--clip",
        "5",
        "--ema",
        "0.9",
        "--accumulate",
        "2",
    ]
    alone = [sys.executable, "-m", "seewhy", "train", *options, "--output", "one", "--no-report"]
    subprocess.run(
        alone,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    with_report = ["--report"] if optimizer == "nesterov" else ["--no-report"]
    done = together(["-m", "seewhy", "train", *options, "--output", "two", *with_report], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two" / "report.html").exists() == (optimizer == "nesterov")
    assert done.stdout.count("test images correct") == 1  # only the first process speaks
    one, two = open_run(tmp_path / "one"), open_run(tmp_path / "two")
    assert one.test is not None
    assert two.test is not None
    assert len(two.history) == len(one.history) == 2
    for mine, other in zip(one.history, two.history, strict=True):
        assert mine.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert mine.eval_loss == pytest.approx(other.eval_loss, rel=1e-3)
    torch.testing.assert_close(one.test.logits, two.test.logits, rtol=1e-2, atol=1e-2)
    for (name, tensor), found in zip(
        one.model.state_dict().items(), two.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(tensor, found, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.slow
def test_what_a_user_can_mend_is_still_one_line(tmp_path: Path) -> None:
    done = together(
        ["-m", "seewhy", "train", "demo", "--data", "digits", "--model", "nosuch"], tmp_path
    )
    assert done.returncode != 0
    assert "seewhy: unknown model 'nosuch'" in done.stderr
    assert "Traceback" not in done.stderr.split("torch")[0]
