import pytest
import torch
from torch import nn

from seewhy.train.averaging import clone_weights, look_ahead, swap_weights, update_ema


def network(value: float) -> nn.Module:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    with torch.no_grad():
        net[0].weight.fill_(value)
    return net


def test_update_ema_weights_the_past_by_powers_of_its_decay() -> None:
    net = network(1.0)
    average = clone_weights(net)
    expected = 1.0
    for update in range(1, 40):
        with torch.no_grad():
            net[0].weight.fill_(float(update))
            net[1].running_mean.fill_(10.0 * update)
            net[1].num_batches_tracked.fill_(update)
        update_ema(average, net, 0.7, update)
        decay = min(0.7, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
    assert average["0.weight"].item() == pytest.approx(expected, rel=1e-6)
    assert average["1.running_mean"].item() > 300
    assert average["1.num_batches_tracked"].item() == 39


def test_look_ahead_moves_halfway() -> None:
    net = network(1.0)
    slow = clone_weights(net)
    with torch.no_grad():
        net[0].weight.fill_(5.0)
    look_ahead(slow, net)
    assert slow["0.weight"].item() == net[0].weight.item() == 3.0


def test_averages_include_running_statistics() -> None:
    net = network(1.0)
    slow = clone_weights(net)
    net.train()(torch.arange(8.0)[:, None])
    look_ahead(slow, net)
    assert net[1].running_mean.item() != 0
    assert slow["1.running_mean"].item() == net[1].running_mean.item()
    assert slow["1.num_batches_tracked"].item() == 1


def test_swap_weights_restores_the_weights() -> None:
    net, other = network(1.0), clone_weights(network(2.0))
    with swap_weights(other, net):
        assert net[0].weight.item() == 2.0
    assert net[0].weight.item() == 1.0
    with pytest.raises(ZeroDivisionError), swap_weights(other, net):
        raise ZeroDivisionError
    assert net[0].weight.item() == 1.0
    with swap_weights(None, net):
        assert net[0].weight.item() == 1.0
