import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import SeewhyError
from seewhy.train.muon import Muon, orthogonalize
from seewhy.train.optimizers import bind_optimizer


def newton_schulz(matrix: Tensor, iterations: int) -> Tensor:
    """The iteration as its author writes it, on the matrix itself and in float64."""
    x = matrix.double() / (matrix.double().norm() + 1e-7)
    for _ in range(iterations):
        square = x @ x.T
        x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ square @ x
    return x


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (16, 16), (32, 144)])
@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_orthogonalize_equals_newton_schulz(shape: tuple[int, int], iterations: int) -> None:
    matrices = random(3, *shape)
    for matrix, result in zip(matrices, orthogonalize(matrices, iterations), strict=True):
        torch.testing.assert_close(
            result.double(), newton_schulz(matrix, iterations), rtol=1e-4, atol=1e-4
        )


def test_orthogonalize_keeps_singular_vectors() -> None:
    left, _ = torch.linalg.qr(random(8, 8))
    right, _ = torch.linalg.qr(random(20, 8, seed=1))
    values = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05])
    result = left.T @ orthogonalize((left @ values.diag() @ right.T)[None])[0] @ right
    assert (result - result.diag().diag()).abs().max() < 1e-4
    assert 0.65 < result.diag().min() < result.diag().max() < 1.25


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_step_by_hand(nesterov: bool) -> None:
    """Convolutions are matrices; a tall one moves by more; decay is decoupled."""
    wide, tall = nn.Parameter(random(4, 2, 3, 3)), nn.Parameter(random(12, 3))
    expected = [wide.detach().double().reshape(4, 18), tall.detach().double()]
    buffers = [torch.zeros(4, 18).double(), torch.zeros(12, 3).double()]
    optimizer = Muon(
        [wide, tall], lr=0.1, momentum=0.9, nesterov=nesterov, ns_steps=4, weight_decay=0.5
    )
    for step in range(3):
        for index, parameter in enumerate((wide, tall)):
            parameter.grad = random(*parameter.shape, seed=10 * step + index)
            gradient = parameter.grad.double().reshape(expected[index].shape)
            buffers[index] = 0.9 * buffers[index] + gradient
            direction = gradient + 0.9 * buffers[index] if nesterov else buffers[index]
            flat = (
                newton_schulz(direction, 4) if index == 0 else newton_schulz(direction.T, 4).T * 2.0
            )  # sqrt(12 / 3)
            expected[index] = expected[index] * (1 - 0.1 * 0.5) - 0.1 * flat
        optimizer.step()
    for parameter, matrix in zip((wide, tall), expected, strict=True):
        torch.testing.assert_close(
            parameter.detach().double().reshape(matrix.shape), matrix, rtol=1e-4, atol=1e-4
        )


def test_muon_does_not_mix_weights() -> None:
    alone, beside, other = (nn.Parameter(random(4, 6)) for _ in range(3))
    alone.grad, beside.grad, other.grad = (
        random(4, 6, seed=1),
        random(4, 6, seed=1),
        random(4, 6, seed=2),
    )
    Muon([alone], lr=0.1).step()
    Muon([beside, other], lr=0.1).step()
    torch.testing.assert_close(alone, beside)
    assert not torch.allclose(alone, other)


def test_muon_normalize_rows() -> None:
    weight = nn.Parameter(7 * random(4, 6))
    start = weight.detach().clone()
    weight.grad = random(4, 6, seed=1)
    Muon([weight], lr=0.1, normalize_rows=True).step()
    plain = nn.Parameter(start * 2 / start.norm())  # the root of four rows
    plain.grad = random(4, 6, seed=1)
    Muon([plain], lr=0.1).step()
    torch.testing.assert_close(weight, plain)


def test_muon_skips_weights_without_gradient() -> None:
    weight = nn.Parameter(random(4, 6))
    before = weight.detach().clone()
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(weight, before)


@pytest.mark.parametrize(
    ("fallback", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)]
)
def test_muon_trains_hidden_weights_only(fallback: str, kind: type) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 2)
    )
    optimizers = bind_optimizer(f"muon:fallback={fallback},head_lr_factor=3,bias_lr_factor=7")(
        net, 0.5, 0.01
    )
    muon, others = optimizers
    assert isinstance(muon, Muon)
    assert isinstance(others, kind)
    assert {id(p) for p in muon.param_groups[0]["params"]} == {id(net[0].weight), id(net[3].weight)}
    head, biases = others.param_groups
    assert head["params"][0] is net[4].weight
    assert (head["lr"], head["weight_decay"]) == (1.5, 0.01)
    assert {id(p) for p in biases["params"]} == {id(p) for p in net.parameters() if p.ndim == 1}
    assert (biases["lr"], biases["weight_decay"]) == (3.5, 0.0)


def test_muon_without_hidden_weights() -> None:
    (only,) = bind_optimizer("muon")(nn.Linear(3, 2), 0.1, 5e-4)
    assert isinstance(only, torch.optim.SGD)
    (only,) = bind_optimizer("muon")(nn.BatchNorm2d(3), 0.1, 5e-4)
    assert isinstance(only, torch.optim.SGD)
    assert len(only.param_groups) == 1


def test_muon_of_a_zero_weight_is_finite() -> None:
    weight = nn.Parameter(torch.zeros(4, 6))
    weight.grad = random(4, 6)
    Muon([weight], lr=0.1, normalize_rows=True).step()
    assert weight.isfinite().all()


@pytest.mark.parametrize(
    "text", ["muon:momentum=1", "muon:ns_steps=0", "muon:fallback=lion", "muon:head_lr_factor=0"]
)
def test_muon_rejects_settings_out_of_range(text: str) -> None:
    with pytest.raises(SeewhyError):
        bind_optimizer(text)(nn.Linear(2, 2), 0.1, 5e-4)
