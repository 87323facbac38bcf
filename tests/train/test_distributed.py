"""Two processes on this machine train as one: on the CPU, through gloo."""

import os
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from seewhy.cli.main import main
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


COMMANDS = """
import os
import sys
from dataclasses import replace

import torch
from matplotlib.figure import Figure
from torch import nn

import seewhy.diagnosis.diagnosis
import seewhy.diagnosis.saliency
import seewhy.figures.style
from seewhy.cli.main import main
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

def blank(figure, file, **options):
    file.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1" />')

# drawing and measuring on many images take longer than all the rest
seewhy.figures.style.fix_layout = lambda figure: None
Figure.savefig = blank
seewhy.diagnosis.saliency.TRUST_IMAGES = 4
seewhy.diagnosis.diagnosis.ATTACK_IMAGES = seewhy.diagnosis.diagnosis.CORRUPTION_IMAGES = 20
recipe = replace(
    RECIPES["demo"], lr="find", model="speednet:width=0.05", epochs=0.5, precision="fp32"
)
run = fit(recipe, load("digits", quiet=True), "run", "cpu")
print(f"trained at {run.recipe.lr!r}")

print("exit code", main(["train", *sys.argv[1:], "--output", "two"]))
broadcast_from_rank0(lambda: None, world)  # torchrun ends all processes when the first one fails
sys.exit(main(["train", "demo", "--data", "digits", "--model", "nosuch"]))
"""
# a probe, an odd batch size, label mixing, clipping, averaging, class weights, two optimizers
OPTIONS = shlex.split(
    "demo --data digits --limit 400 --model speednet:width=0.05 --epochs 1.5 --batch-size 97 "
    "--lr 0.05 --optimizer muon:bias_lr_factor=4 --augment crop:1 mixup --clip-grad-norm 5 "
    "--ema 0.9 --grad-accum-steps 2 --class-weights --l1 1e-4 --precision fp32 "
    "--probe logistic:views=flip,c=0.1"
)


@dataclass(frozen=True)
class TwoProcesses:
    """What two processes printed that ran COMMANDS in a directory."""

    directory: Path
    stdout: str
    stderr: str
    returncode: int


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> TwoProcesses:
    """Two processes that torchrun starts; the start takes longer than what they do."""
    directory = tmp_path_factory.mktemp("two-processes")
    (directory / "commands.py").write_text(COMMANDS)
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "commands.py"]
    completed = subprocess.run(
        [sys.executable, "-m", *launcher, *OPTIONS],
        cwd=directory,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "SEEWHY_CACHE": str(tmp_path_factory.getbasetemp() / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    return TwoProcesses(directory, completed.stdout, completed.stderr, completed.returncode)


@pytest.mark.slow
@pytest.mark.train
def test_exchange_between_two_processes(two_processes: TwoProcesses) -> None:
    """BatchNorm, gradients, broadcasts, and a learning rate that the first process finds."""
    stdout, stderr = two_processes.stdout, two_processes.stderr
    assert stdout.count("batch norm done") == 2, stderr
    assert stdout.count("broadcast done") == 2, stderr
    lr = open_run(two_processes.directory / "run").recipe.lr
    assert stdout.count(f"trained at {lr!r}\n") == 2, stderr
    assert stderr.count("by a range test") == 1
    assert "Warning" not in stderr


@pytest.mark.slow
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
@pytest.mark.usefixtures("blank_figures")
def test_two_processes_train_like_one(
    two_processes: TwoProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a probe, an odd batch size, label mixing, clipping, averaging, two optimizers."""
    directory, stdout = two_processes.directory, two_processes.stdout
    assert stdout.count("exit code 0\n") == 2, two_processes.stderr
    assert (directory / "two" / "report.html").exists()
    assert stdout.count("test images correct") == 1  # only the first process speaks
    monkeypatch.setenv("SEEWHY_CACHE", str(tmp_path / "cache"))  # without the features of the two
    assert main(["train", *OPTIONS, "--output", str(tmp_path / "one"), "--no-report"]) == 0
    one, two = open_run(tmp_path / "one"), open_run(directory / "two")
    assert one.predictions is not None
    assert two.predictions is not None
    assert len(two.history) == len(one.history) == 3
    for mine, other in zip(one.history, two.history, strict=True):
        assert mine.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert mine.eval_loss == pytest.approx(other.eval_loss, rel=1e-3)
    torch.testing.assert_close(one.predictions.logits, two.predictions.logits, rtol=1e-2, atol=1e-2)
    for (name, tensor), result in zip(
        one.model.state_dict().items(), two.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(tensor, result, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.train
def test_error_of_two_processes_is_one_line(two_processes: TwoProcesses) -> None:
    """The last command of both processes fails."""
    assert two_processes.returncode != 0
    assert "\nseewhy: unknown model 'nosuch'" in two_processes.stderr
    assert "Traceback" not in two_processes.stderr.partition("torch/distributed/elastic")[0]


LOST = """
import os
import signal
import sys
from datetime import timedelta

import torch

from seewhy.errors import SeewhyError
from seewhy.train import distributed
from seewhy.train.distributed import all_reduce_sum, distributed_session

silent = sys.argv[1] == "silent"
if silent:
    distributed.TIMEOUT = timedelta(seconds=6)
try:
    with distributed_session("cpu") as (world, _):
        all_reduce_sum(torch.ones(1), world)
        if world.rank == 1:
            signal.pause() if silent else os._exit(1)
        all_reduce_sum(torch.ones(1), world)
except SeewhyError as error:
    print(error)
    os._exit(2)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signal.pause")
@pytest.mark.parametrize("kind", ["ended", "silent"])
def test_a_lost_process_is_one_line(kind: str) -> None:
    """Also one that does not answer, as behind a cut link."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", LOST, kind],
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    )
    try:
        output, _ = first.communicate(timeout=120)
    finally:
        if kind == "silent":
            second.kill()
        second.communicate(timeout=120)
    assert first.returncode == 2
    minutes = "5" if kind == "ended" else "0.1"
    assert output.startswith(f"another process has ended or did not answer for {minutes} minutes; ")


KILLED = """
import os
import signal
import sys

from seewhy.cli.main import main
from seewhy.data.augment import AUGMENTATIONS


def killed(batch, generator):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and os.environ["RANK"] == "1" and batch.epoch >= 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


AUGMENTATIONS["killed"] = killed
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_restarts_of_torchrun_resume_the_run(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    launcher = "torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 1 killed.py"
    options = "train demo --data digits --limit 40 --model speednet:width=0.05 --epochs 4"
    rest = "--augment killed --output out --no-report"
    completed = subprocess.run(
        [sys.executable, "-m", *shlex.split(f"{launcher} {options} {rest}")],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "SEEWHY_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,  # a restart that waits for the processes that have ended
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stderr.count("seewhy: restarted by torchrun: resuming out") == 1
    run = open_run(tmp_path / "out")
    assert [row.epoch for row in run.history] == [1, 2, 3, 4]
    assert [each.step for each in run.environment.resumed] in ([1], [2])
