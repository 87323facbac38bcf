"""Two processes on this machine train as one: on the CPU, through gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from seewhy.data.sources import load
from seewhy.errors import SeewhyError
from seewhy.runs.run import open_run
from seewhy.train.distributed import _torch_sync_batch_norm, broadcast_from_rank0
from seewhy.train.world import World, is_first_process


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 7, 10])
def test_shards_cover_everything_once(size: int, count: int) -> None:
    parts = [range(count)[World(rank, size).shard(count)] for rank in range(size)]
    assert [index for part in parts for index in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_is_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
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


EXCHANGE = """
import os
from dataclasses import replace

import torch
from torch import nn

from seewhy.data import load
from seewhy.errors import SeewhyError
from seewhy.runs.training import fit
from seewhy.train.distributed import (
    all_reduce_mean, all_reduce_sum, broadcast_from_rank0, distributed_session, sync_batch_norm
)
from seewhy.train.recipes import RECIPES

torch.manual_seed(0)
images, gradient = 3 + 2 * torch.randn(7, 4, 5, 5), torch.randn(7, 4, 5, 5)
whole, sharded = nn.BatchNorm2d(4, momentum=0.3), nn.BatchNorm2d(4, momentum=0.3)
for norm in (whole, sharded):
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
with distributed_session("cpu") as (world, device):
    assert (world.size, device) == (2, "cpu")
    inputs = images.clone().requires_grad_()
    expected = whole(inputs)
    (expected * gradient).sum().backward()
    shard = world.shard(7)  # three images in one process, four in the other
    shard_inputs = images[shard].clone().requires_grad_()
    with sync_batch_norm(sharded, world):
        outputs = sharded(shard_inputs)
        (outputs * gradient[shard]).sum().backward()
    assert "forward" not in vars(sharded)
    torch.testing.assert_close(outputs, expected[shard], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shard_inputs.grad, inputs.grad[shard], rtol=1e-4, atol=1e-5)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(sharded.state_dict()[name], tensor)
    gradients = [sharded.weight.grad, sharded.bias.grad]
    all_reduce_mean(gradients, world)
    torch.testing.assert_close(2 * gradients[0], whole.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(2 * gradients[1], whole.bias.grad, rtol=1e-4, atol=1e-4)
    assert all_reduce_sum(torch.tensor([world.rank + 1.0]), world).item() == 3
    with sync_batch_norm(sharded.eval(), world):
        torch.testing.assert_close(sharded(shard_inputs), whole.eval()(shard_inputs))
    stateless = nn.BatchNorm2d(4, track_running_stats=False).eval()
    with sync_batch_norm(stateless, world):
        outputs = stateless(shard_inputs)
    torch.testing.assert_close(outputs, stateless(shard_inputs))
print("batch norm done")

with distributed_session("cpu") as (again, device):  # a second run of one process
    assert again == world
    assert all_reduce_sum(torch.tensor([1.0]), again).item() == 2

calls = []

def value():
    calls.append(os.environ["RANK"])
    return {"lr": 0.1 + int(os.environ["RANK"])}

def fails():
    calls.append(os.environ["RANK"])
    raise SeewhyError("no lr in process " + os.environ["RANK"])

assert broadcast_from_rank0(value, world) == {"lr": 0.1}
try:
    broadcast_from_rank0(fails, world)
except SeewhyError as error:
    assert str(error) == "no lr in process 0"
else:
    raise AssertionError("nothing was raised")
assert broadcast_from_rank0(value, world) == {"lr": 0.1}  # the processes are still in step
assert calls == (["0"] * 3 if world.is_first else [])
print("broadcast done")

recipe = replace(
    RECIPES["demo"], lr="find", model="speednet:width=0.05", epochs=0.5, precision="fp32"
)
run = fit(recipe, load("digits", quiet=True), "run", "cpu")
print(f"trained at {run.recipe.lr!r}")
"""


@pytest.mark.slow
@pytest.mark.train
def test_exchange_between_two_processes(tmp_path: Path) -> None:
    """BatchNorm, gradients, broadcasts, and a learning rate that the first process finds."""
    load("digits", quiet=True)
    (tmp_path / "exchange.py").write_text(EXCHANGE)
    done = together(["exchange.py"], tmp_path)
    assert done.stdout.count("batch norm done") == 2, done.stderr
    assert done.stdout.count("broadcast done") == 2, done.stderr
    lr = open_run(tmp_path / "run").recipe.lr
    assert done.stdout.count(f"trained at {lr!r}\n") == 2, done.stderr
    assert done.stderr.count("by a range test") == 1
    assert "Warning" not in done.stderr


def test_sync_batch_norm_on_a_gpu_shares_its_tensors() -> None:
    """Only its evaluation runs on the CPU."""
    norm = nn.BatchNorm2d(3)
    nn.init.normal_(norm.weight)
    norm.running_mean.add_(1)
    images = torch.randn(2, 3, 4, 4)
    synced = _torch_sync_batch_norm(norm)
    norm.eval()
    torch.testing.assert_close(synced(images), norm(images))
    norm.running_mean.add_(1)
    torch.testing.assert_close(synced(images), norm(images))


def test_broadcast_from_rank0_in_one_process() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    assert broadcast_from_rank0(lambda: 7, World()) == 7
    with pytest.raises(ZeroDivisionError):
        broadcast_from_rank0(fails, World())


@pytest.mark.slow
@pytest.mark.train
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """With an odd batch size, label mixing, clipping, averaging, and two optimizers."""
    load("digits", quiet=True)
    options = [
        "demo",
        "--data",
        "digits",
        "--limit",
        "400",
        "--epochs",
        "1.5",
        "--lr",
        "0.05",
        "--optimizer",
        "muon:bias_lr=4",
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
    done = together(["-m", "seewhy", "train", *options, "--output", "two"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two" / "report.html").exists()
    assert done.stdout.count("test images correct") == 1  # only the first process speaks
    one, two = open_run(tmp_path / "one"), open_run(tmp_path / "two")
    assert one.predictions is not None
    assert two.predictions is not None
    assert len(two.history) == len(one.history) == 2
    for mine, other in zip(one.history, two.history, strict=True):
        assert mine.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert mine.eval_loss == pytest.approx(other.eval_loss, rel=1e-3)
    torch.testing.assert_close(one.predictions.logits, two.predictions.logits, rtol=1e-2, atol=1e-2)
    for (name, tensor), result in zip(
        one.model.state_dict().items(), two.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(tensor, result, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.slow
def test_error_of_two_processes_is_one_line(tmp_path: Path) -> None:
    done = together(
        ["-m", "seewhy", "train", "demo", "--data", "digits", "--model", "nosuch"], tmp_path
    )
    assert done.returncode != 0
    assert "seewhy: unknown model 'nosuch'" in done.stderr
    assert "Traceback" not in done.stderr.split("torch")[0]
