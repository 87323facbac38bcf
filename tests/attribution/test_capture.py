"""Activations and gradients against plain autograd; the model is left unchanged."""

import random
import sys
from collections import OrderedDict, defaultdict, namedtuple
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import seewhy.attribution.capture as capture_module
from seewhy.attribution.capture import capture_layers
from seewhy.attribution.hooks import record_outputs
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier

Pair = namedtuple("Pair", ["main", "other"])
HEIGHT, WIDTH = 6, 10


def images_of(count=3, dtype=torch.float64):
    return torch.rand(
        count, 2, HEIGHT, WIDTH, dtype=dtype, generator=torch.Generator().manual_seed(0)
    )


class Net(nn.Module):
    """Stem, two stages, the second nested and in place, and a head; no gradient is constant."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        )
        self.layer1 = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1, stride=2), nn.Tanh())
        self.layer2 = nn.Sequential(
            nn.Sequential(nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6)), nn.ReLU(inplace=True)
        )
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(6 * 3 * 5, 4)

    def head(self, x):
        return self.linear(self.dropout(x).flatten(1)).tanh()

    def forward(self, x):
        return self.head(self.layer2(self.layer1(self.stem(x))))


def net_of(dtype=torch.float64):
    model = Net()
    with torch.no_grad():
        model.train()(
            torch.rand(8, 2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
        )  # running statistics
    return model.to(dtype).eval()


def by_hand(below, above, images, target=None):
    """A layer's output, and the gradient of the class's logit with respect to it."""
    for module in (below, above):
        assert not (isinstance(module, nn.Module) and module.training)
    output = below(images).detach().requires_grad_()
    logits = above(output.clone())
    target = logits.argmax(1) if target is None else target
    (gradient,) = torch.autograd.grad(logits[torch.arange(len(logits)), target].sum(), output)
    return output.detach(), gradient


def assert_captured(captured, expected):
    activation, gradient = expected
    torch.testing.assert_close(captured.activation, activation, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(captured.gradient, gradient, rtol=1e-12, atol=1e-14)
    assert captured.gradient.abs().sum() > 0


class Steps:
    """The ways through `Net` as plain functions that share no hook with it."""

    def __init__(self, model):
        def stem(x):
            return F.relu(model.stem[1](model.stem[0](x)))

        def before_relu(x):
            return model.layer2[0](model.layer1(stem(x)))

        self.layers = {
            "stem.0": (
                lambda x: model.stem[0](x),
                lambda h: model.head(model.layer2(model.layer1(F.relu(model.stem[1](h))))),
            ),
            "stem.1": (
                lambda x: model.stem[1](model.stem[0](x)),
                lambda h: model.head(model.layer2(model.layer1(F.relu(h)))),
            ),
            "stem.2": (stem, lambda h: model.head(model.layer2(model.layer1(h)))),
            "stem": (stem, lambda h: model.head(model.layer2(model.layer1(h)))),
            "layer1": (lambda x: model.layer1(stem(x)), lambda h: model.head(model.layer2(h))),
            "layer1.1": (lambda x: model.layer1(stem(x)), lambda h: model.head(model.layer2(h))),
            "layer2.0": (before_relu, lambda h: model.head(F.relu(h))),
            "layer2.0.1": (before_relu, lambda h: model.head(F.relu(h))),
            "layer2.1": (lambda x: F.relu(before_relu(x)), model.head),
            "layer2": (lambda x: F.relu(before_relu(x)), model.head),
        }


ALL = [
    "stem.0",
    "stem.1",
    "stem.2",
    "stem",
    "layer1",
    "layer1.1",
    "layer2.0",
    "layer2.0.1",
    "layer2.1",
    "layer2",
]


@pytest.mark.parametrize(
    "layers", [[name] for name in ALL] + [ALL, ALL[::-1], ["layer2", "stem.1", "layer2"]]
)
def test_capture_matches_model_split_by_hand(layers):
    model, images = net_of(), images_of()
    steps = Steps(model).layers
    expected = {name: by_hand(*steps[name], images) for name in layers}
    captured = capture_layers(model, images, layers)
    assert list(captured) == list(dict.fromkeys(layers))
    for name in layers:
        assert_captured(captured[name], expected[name])
        assert captured[name].layer == name
        assert captured[name].layout.grid == captured[name].activation.shape[2:]


def test_capture_before_in_place_relu():
    captured = capture_layers(net_of(), images_of(), ["stem.1", "stem.2"])
    assert (captured["stem.1"].activation < 0).any()
    assert torch.equal(captured["stem.1"].activation.clamp(min=0), captured["stem.2"].activation)


@pytest.mark.parametrize("first", [True, False])
def test_record_outputs_shares_no_memory(first):
    model, images = nn.Sequential(nn.Identity()), images_of().requires_grad_(not first) * 1
    with record_outputs(model, ["0"], 2) as seen:
        model(images).zero_()
        images.zero_()
    assert torch.equal(seen["0"], images_of())
    assert seen["0"].requires_grad


def test_capture_takes_modules():
    model = net_of()
    captured = capture_layers(model, images_of(), [model.layer2, "stem", model.layer1[1]])
    assert list(captured) == ["layer2", "stem", "layer1.1"]
    assert torch.equal(
        capture_layers(model, images_of(), model.layer1)["layer1"].gradient,
        captured["layer1.1"].gradient,
    )


def test_capture_runs_one_pass_to_first_layer(monkeypatch):
    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            forwards.append(len(x))
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            backwards.append(len(gradient))
            return gradient

    class Spied(nn.Module):
        def forward(self, x):
            return Spy.apply(x)

    forwards, backwards, model = [], [], net_of()
    model.stem.insert(0, Spied().eval())  # below all layers
    model.layer2.append(Spied().eval())  # above all
    capture_layers(model, images_of(), ["layer2.0", "layer1", "stem"])
    assert (forwards, backwards) == ([3, 3], [3])


@pytest.mark.parametrize("target", [2, torch.tensor([3, 0, 1])])
def test_gradient_of_target(target):
    model, images = net_of(), images_of()
    expected = by_hand(
        *Steps(model).layers["layer1"],
        images,
        target if isinstance(target, int) else target.tolist(),
    )
    assert_captured(capture_layers(model, images, "layer1", target)["layer1"], expected)


def test_gradient_of_pair_is_difference():
    model, images = net_of(), images_of()
    one, other = (by_hand(*Steps(model).layers["stem"], images, target)[1] for target in (3, 1))
    classifier = Classifier(model, ("cat", "t-shirt", "bird", "dog"))
    result = capture_layers(classifier, images, "stem", ("dog", "t-shirt"))["stem"]
    torch.testing.assert_close(result.gradient, one - other)
    assert torch.equal(result.forward.target, torch.tensor([3, 3, 3]))


def test_gradient_of_true_classes():
    model, images, labels = net_of(), images_of(), torch.tensor([1, 2, 0])
    expected = by_hand(*Steps(model).layers["stem"], images, labels)
    assert_captured(capture_layers(model, images, "stem", "true", labels=labels)["stem"], expected)


def test_capture_holds_forward_pass():
    model, images = net_of(), images_of()
    forward = capture_layers(model, images, "stem")["stem"].forward
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(forward.logits, expected)
    torch.testing.assert_close(forward.scores, expected.amax(1))
    assert torch.equal(forward.images, images)


# Networks whose parts are used in unusual ways


class Twice(nn.Module):
    """One convolution that runs three times."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.alias = self.conv
        self.linear = nn.Linear(2 * HEIGHT * WIDTH, 3)

    def below(self, x):
        return self.conv(torch.tanh(self.conv(torch.tanh(self.conv(x)))))

    def above(self, h):
        return self.linear(torch.tanh(h).flatten(1))

    def forward(self, x):
        return self.above(self.below(x))


@pytest.mark.parametrize("name", ["conv", "alias"])
def test_capture_of_repeated_layer_is_last_output(name):
    model, images = Twice().double().eval(), images_of()
    assert_captured(
        capture_layers(model, images, name)[name], by_hand(model.below, model.above, images)
    )


class Branches(nn.Module):
    """Two parallel convolutions, a shortcut around them, and what is only added, not made."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(2, 3, 1)
        self.left, self.right = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.shortcut, self.dropout = nn.Sequential(), nn.Dropout(0.5)
        self.linear = nn.Linear(3 * HEIGHT * WIDTH, 3)

    def above(self, left, right, shortcut, dropout):
        return self.linear(torch.tanh(left * right + shortcut - dropout**2).flatten(1))

    def forward(self, x):
        x = self.stem(x)
        return self.above(self.left(x), self.right(x), self.shortcut(x), self.dropout(x))


@pytest.mark.parametrize("others", [[], ["stem"], ["dropout", "left", "right", "shortcut", "stem"]])
@pytest.mark.parametrize("name", ["left", "right", "shortcut", "dropout"])
def test_capture_of_parallel_branches(name, others):
    """Also those that return their input, whose gradient includes the other branches."""
    model, images = Branches().double().eval(), images_of()
    x = model.stem(images).detach()
    outputs = {
        "left": model.left(x).detach(),
        "right": model.right(x).detach(),
        "shortcut": x,
        "dropout": x,
    }
    expected = by_hand(
        lambda images: outputs[name], lambda h: model.above(**{**outputs, name: h}), images
    )
    assert_captured(
        capture_layers(model, images, list(dict.fromkeys([*others, name])))[name], expected
    )


class Returning(nn.Module):
    """A convolution that wraps its output."""

    def __init__(self, wrap):
        super().__init__()
        self.conv, self.wrap = nn.Conv2d(2, 3, 3, padding=1), wrap

    def forward(self, x):
        return self.wrap(self.conv(x))


class Unwrapping(nn.Module):
    """Goes on with the part of a wrapped output at `key`, and checks its type."""

    def __init__(self, wrap, key):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.key, self.type = Returning(wrap), key, type(wrap(torch.zeros(1)))
        self.linear = nn.Linear(3 * HEIGHT * WIDTH, 3)

    def above(self, h):
        return self.linear(torch.tanh(h).flatten(1))

    def forward(self, x):
        output = self.layer(x)
        assert type(output) is self.type
        if isinstance(output, dict) and "other" in output:
            assert output["other"].dtype == torch.int64
        return self.above(
            getattr(output, self.key)
            if isinstance(self.key, str) and self.key == "main"
            else output[self.key]
        )


class Odd(OrderedDict):
    """A dictionary whose constructor takes no dictionary."""

    def __init__(self, *, main=None, other=None):
        super().__init__()
        self["other"], self["x"] = other, main


def counts():
    return torch.arange(3)


WRAPPINGS = {
    "tuple": (lambda h: (h, counts()), 0),
    "tuple, second": (lambda h: (None, counts(), h), 2),
    "list": (lambda h: [counts(), h], 1),
    "twice the same": (lambda h: (h, h), 1),
    "namedtuple": (lambda h: Pair(h, None), "main"),
    "dict": (lambda h: {"other": counts(), "x": h}, "x"),
    "defaultdict": (lambda h: defaultdict(list, other=counts(), x=h), "x"),
    "a dict of its own": (lambda h: Odd(main=h, other=counts()), "x"),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_capture_of_structured_layer_output(wrapping):
    wrap, key = WRAPPINGS[wrapping]
    model, images = Unwrapping(wrap, key).double().eval(), images_of()
    expected = by_hand(model.layer.conv, model.above, images)
    for layers in (["layer"], ["layer.conv", "layer"]):
        for captured in capture_layers(model, images, layers).values():
            assert_captured(captured, expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: (y, None),
        lambda y: {"features": torch.zeros(1), "logits": y},
        lambda y: Pair(y, y[:, :, None]),
        lambda y: SimpleNamespace(logits=y),
    ],
)
def test_capture_of_structured_model_output(wrap):
    class Wrapped(Net):
        def forward(self, x):
            return wrap(super().forward(x))

    model, images = net_of(), images_of()
    wrapped = Wrapped().double().eval()
    wrapped.load_state_dict(model.state_dict())
    assert_captured(
        capture_layers(wrapped, images, "layer1")["layer1"],
        by_hand(*Steps(model).layers["layer1"], images),
    )


class Checkpointed(Net):
    """Forgets its middle, and runs it again on the way back."""

    def forward(self, x):
        return self.head(
            checkpoint(lambda x: self.layer2(self.layer1(x)), self.stem(x), use_reentrant=False)
        )


@pytest.mark.slow
@pytest.mark.parametrize("layers", [["layer1"], ["stem", "layer1", "layer2.0"]])
def test_capture_of_checkpointed_model(layers):
    model, images, checkpointed = net_of(), images_of(), Checkpointed().double().eval()
    checkpointed.load_state_dict(model.state_dict())
    for name, captured in capture_layers(checkpointed, images, layers).items():
        assert_captured(captured, by_hand(*Steps(model).layers[name], images))


def test_capture_ignores_dropout():
    model, without = net_of(), net_of()
    without.dropout = nn.Identity()
    assert torch.equal(
        capture_layers(model, images_of(), "layer1")["layer1"].gradient,
        capture_layers(without.eval(), images_of(), "layer1")["layer1"].gradient,
    )


# Chunks


class Counting(nn.Module):
    """Autograd keeps 8 bytes per position and channel, for tanh; the mean keeps a shape."""

    def __init__(self):
        super().__init__()
        self.sizes, self.body, self.tanh = [], nn.Conv2d(2, 3, 1), nn.Tanh()

    def forward(self, x):
        self.sizes.append(len(x))
        return self.tanh(self.body(x)).mean((2, 3))


@pytest.mark.parametrize("at_first", [1, 2])
@pytest.mark.parametrize("images_that_fit", [1, 2, 3, 5])
def test_chunk_fits_memory(monkeypatch, at_first, images_that_fit):
    torch.manual_seed(0)
    monkeypatch.setattr(capture_module, "FIRST_PIXELS", at_first * HEIGHT * WIDTH)
    model, each = (
        Counting().double().eval(),
        8 * 3 * HEIGHT * WIDTH + 8 * 3,
    )  # and the weights of the logits
    capture_layers(model, images_of(9), "body", memory=images_that_fit * each + each // 2)
    rest = 9 - at_first
    full = [at_first] + [images_that_fit] * (rest // images_that_fit)
    assert model.sizes == full + [rest % images_that_fit] * (rest % images_that_fit > 0)


def test_chunk_memory_excludes_weights(monkeypatch):
    monkeypatch.setattr(capture_module, "FIRST_PIXELS", 1)
    torch.manual_seed(0)
    model = Counting()
    model.tanh = nn.Sequential(
        nn.Tanh(), nn.Conv2d(3, 1000, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(2)
    )  # 24 kB of weights
    model.forward = lambda x: (model.sizes.append(len(x)), model.tanh(model.body(x)).mean(2))[1]
    capture_layers(
        model.double().eval(),
        images_of(6),
        "body",
        memory=5 * (8 * 3 * HEIGHT * WIDTH + 8 * 1000) + 100,
    )
    assert model.sizes == [1, 5]


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    "target",
    [
        "predicted",
        "true",
        torch.arange(7) % 4,
        torch.rand(7, 4, generator=torch.Generator().manual_seed(3)),
    ],
)
@pytest.mark.parametrize("memory", [1, 10_000, 2**30])
def test_chunks_match_single_pass(monkeypatch, memory, target):
    model, images, labels = net_of(), images_of(7), torch.tensor([3, 1, 0, 2, 2, 0, 1])
    whole = capture_layers(model, images, ["stem", "layer2"], target, labels=labels)
    monkeypatch.setattr(capture_module, "FIRST_PIXELS", 2 * HEIGHT * WIDTH)
    parts = capture_layers(model, images, ["stem", "layer2"], target, labels=labels, memory=memory)
    for name in ("stem", "layer2"):
        assert_captured(parts[name], (whole[name].activation, whole[name].gradient))
        for field in ("images", "weights", "logits"):
            torch.testing.assert_close(
                getattr(parts[name].forward, field), getattr(whole[name].forward, field)
            )


def test_capture_rejects_in_place_conflict(monkeypatch):
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(2, 3, 1)

        def forward(self, x):
            y = torch.sigmoid(self.body(x))
            return y.mul_(2).mean((2, 3))  # sigmoid's gradient is made of its output

    model = Overwriting().double().eval()
    for first in (10**6, 1):  # whole, and in chunks whose memory is measured
        monkeypatch.setattr(capture_module, "FIRST_PIXELS", first)
        with pytest.raises(
            SeewhyError,
            match=r"the backward pass of this model fails.*modified by an in-?place operation",
        ):
            capture_layers(model, images_of(), "body", memory=1)


# No trace


def stance():
    """That of torch.compile, which is imported only where something is compiled."""
    compiler = sys.modules.get("torch._dynamo")
    return None if compiler is None else compiler.eval_frame._stance


def state_of(model):
    """All that a caller would notice, of the model and around it."""
    return {
        "ids": [(name, id(module), type(module)) for name, module in model.named_modules()],
        "modes": [module.training for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "hooks": [
            {
                key: dict(value)
                for key, value in vars(module).items()
                if "hook" in key and isinstance(value, dict)
            }
            for module in model.modules()
        ],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [
            (id(parameter.grad), None if parameter.grad is None else parameter.grad.tolist())
            for parameter in model.parameters()
        ],
        "parameters": [(id(parameter), parameter._version) for parameter in model.parameters()],
        "state": {key: value.tolist() for key, value in model.state_dict().items()},
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002  # the global one is what is looked at
        "python": random.getstate(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "dtype": torch.get_default_dtype(),
        "stance": stance(),
    }


class Failing(nn.Module):
    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def forward(self, x):
        torch.rand(1)  # a random number in the pass
        if self.error is not None:
            raise self.error
        return x


def marked_net():
    """A net with hooks, frozen parameters and gradients that were there before."""
    model = net_of()
    model.dropout = Failing().eval()
    model.stem[0].requires_grad_(False)
    model.layer1[0].bias.requires_grad_(False)
    model.linear.weight.grad = torch.ones_like(model.linear.weight)
    model.layer1.register_forward_hook(lambda module, args, output: output * 1.5)
    model.layer2.register_forward_pre_hook(lambda module, args: None)
    model.layer2.register_full_backward_hook(lambda module, args, output: None)
    model.linear.register_forward_hook(
        lambda module, args, kwargs, output: None, with_kwargs=True, always_call=True
    )
    return model


@pytest.mark.parametrize(
    "around",
    [torch.enable_grad, torch.no_grad, torch.inference_mode, partial(torch.autocast, "cpu")],
)
def test_capture_leaves_model_unchanged(around):
    model, images = marked_net(), images_of()
    recorded = images.clone()
    with around():
        before = state_of(model)
        capture_layers(model, images, ["stem", "layer1.1", "layer2"])
        capture_layers(model, images)
        assert state_of(model) == before
    assert torch.equal(images, recorded)


@pytest.mark.parametrize(
    "error", [RuntimeError("in the pass"), KeyError("in the pass"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("around", [torch.enable_grad, torch.inference_mode])
def test_model_unchanged_after_exception_in_pass(around, error):
    model = marked_net()
    model.dropout.error = error
    with around():
        before = state_of(model)
        with pytest.raises((SeewhyError, KeyError, KeyboardInterrupt)):
            capture_layers(model, images_of(), ["stem", "layer2"])
        assert state_of(model) == before


def test_model_unchanged_after_exception_in_hook():
    def fail(*args):
        raise ZeroDivisionError

    model = marked_net()
    model.layer2.register_forward_hook(fail)
    before = state_of(model)
    with pytest.raises(ZeroDivisionError):
        capture_layers(model, images_of(), ["stem", "layer2"])
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("layers", "target"),
    [(["stem", "nope"], 0), (["stem", "linear"], 0), (["stem"], 9), (["stem"], "nope")],
)
def test_model_unchanged_after_error(layers, target):
    model = marked_net()
    before = state_of(model)
    with pytest.raises(SeewhyError):
        capture_layers(model, images_of(), layers, target)
    assert state_of(model) == before


# Wherever it runs, however it is wrapped


@pytest.mark.parametrize(
    "around",
    [torch.no_grad, torch.inference_mode, partial(torch.autocast, "cpu", dtype=torch.bfloat16)],
)
def test_capture_ignores_outer_grad_modes(around):
    model = net_of(torch.float32)
    alone = capture_layers(model, images_of(dtype=torch.float32), ["stem", "layer2"])
    with around():
        inside = capture_layers(model, images_of(dtype=torch.float32), ["stem", "layer2"])
    for name, captured in inside.items():
        assert torch.equal(captured.activation, alone[name].activation)
        assert torch.equal(captured.gradient, alone[name].gradient)
        assert torch.equal(captured.forward.logits, alone[name].forward.logits)
        assert not captured.gradient.is_inference()


def test_capture_of_frozen_model():
    model = net_of()
    expected = capture_layers(model, images_of(), "layer1")["layer1"].gradient
    assert torch.equal(
        capture_layers(model.requires_grad_(False), images_of(), "layer1")["layer1"].gradient,
        expected,
    )


def test_capture_in_bf16():
    model, images = net_of(torch.float32), images_of(dtype=torch.float32)
    exact, rounded = (
        capture_layers(Classifier(model, precision=precision), images, ["stem", "layer1"], 0)
        for precision in ("fp32", "bf16")
    )
    for name in ("stem", "layer1"):
        for field in ("activation", "gradient"):
            one, other = getattr(exact[name], field), getattr(rounded[name], field)
            assert other.dtype == torch.float32
            assert 0 < (one - other).norm() < 0.03 * one.norm()


def test_capture_of_channels_last_model():
    model, images = net_of(), images_of()
    expected = capture_layers(model, images, ["stem", "layer1"])
    result = capture_layers(
        model.to(memory_format=torch.channels_last),
        images.contiguous(memory_format=torch.channels_last),
        ["stem", "layer1"],
    )
    for name in expected:
        assert_captured(result[name], (expected[name].activation, expected[name].gradient))


def test_capture_of_uint8_images():
    stored = torch.randint(
        0, 256, (2, 2, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    model = net_of(torch.float32)
    one, other = (
        capture_layers(model, images, "stem")["stem"] for images in (stored, stored / 255)
    )
    torch.testing.assert_close(one.gradient, other.gradient)
    torch.testing.assert_close(one.activation, other.activation)


def compiled(model, graphs):
    """`model` compiled by a backend that only counts how often it compiles."""

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    return torch.compile(model, backend=backend)


@pytest.mark.slow
def test_capture_of_compiled_model():
    model, images, graphs = net_of(), images_of(), []
    expected = capture_layers(model, images, ["stem", "layer1.1"])
    wrapped = compiled(model, graphs)
    with torch.no_grad():
        wrapped(images)
        count = len(graphs)
        assert count > 0
        for name, captured in capture_layers(wrapped, images, ["stem", "layer1.1"]).items():
            assert torch.equal(captured.gradient, expected[name].gradient)
        wrapped(images)
    assert len(graphs) == count


@pytest.mark.slow
def test_capture_of_compiled_parts():
    model, images, graphs = net_of(), images_of(), []
    expected = capture_layers(model, images, ["layer1", "layer1.1", "layer2.0"])
    model.layer1 = compiled(model.layer1, graphs)
    model.layer2.compile(backend="eager")
    with torch.no_grad():
        model(images)
        count = len(graphs)
        assert count > 0
        captured = capture_layers(model, images, [model.layer1, "layer1.1", "layer2.0"])
        assert list(captured) == ["layer1", "layer1.1", "layer2.0"]
        for name in captured:
            assert torch.equal(captured[name].gradient, expected[name].gradient)
        model(images)
    assert len(graphs) == count


def test_capture_of_data_parallel():
    model = net_of()
    expected = capture_layers(model, images_of(), "layer1")["layer1"]
    result = capture_layers(nn.DataParallel(model).eval(), images_of(), "layer1")["layer1"]
    assert torch.equal(result.gradient, expected.gradient)
    assert result.forward.model is model


@pytest.mark.slow
def test_capture_of_distributed_data_parallel(tmp_path):
    model = net_of()
    expected = capture_layers(model, images_of(), "layer1")["layer1"]
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        before = state_of(wrapped)
        result = capture_layers(wrapped, images_of(), "layer1")["layer1"]
        assert state_of(wrapped) == before
        assert torch.equal(result.gradient, expected.gradient)
    finally:
        distributed.destroy_process_group()


# Mistakes


def refused(message, *args, model=None, **settings):
    with pytest.raises(SeewhyError, match=message) as error:
        capture_layers(net_of() if model is None else model, *args, **settings)
    assert "\n" not in str(error.value)


def test_capture_rejects_training_mode():
    refused(
        r"it is in training mode.*call model.eval\(\)", images_of(), "stem", model=net_of().train()
    )
    model = net_of()
    model.layer2[0].train()
    refused("its layer 'layer2.0' is in training mode", images_of(), "stem", model=model)
    model.eval().dropout.train()
    refused("its layer 'dropout'", images_of(), "stem", model=model)


def test_capture_rejects_images():
    refused("found int64", images_of().long(), "stem")
    refused(r"found \(2, 6, 10\)", images_of()[0], "stem")
    refused(
        "found 0 to 2", torch.linspace(0, 2, 120, dtype=torch.float64).reshape(1, 2, 6, 10), "stem"
    )
    refused("found nan", images_of() * torch.nan, "stem")
    refused("found ndarray", images_of().numpy(), "stem")
    refused(
        "cannot take images of 3x6x10 float64: Given groups=1",
        torch.rand(2, 3, 6, 10, dtype=torch.float64),
        "stem",
    )
    refused(
        "cannot take images of 3x6x10 float64: Given groups=1",
        torch.rand(2, 3, 6, 10, dtype=torch.float64),
    )
    refused(
        "cannot take images of 2x8x8 float64: mat1 and mat2",
        torch.rand(2, 2, 8, 8, dtype=torch.float64),
        "stem",
    )


def test_capture_rejects_targets(monkeypatch):
    refused("class 4 does not exist", images_of(), "stem", 4)
    refused(
        r"unknown target 'dgo' \(did you mean 'dog'\?\)",
        images_of(),
        "stem",
        "dgo",
        model=Classifier(net_of(), ("cat", "dog")),
    )
    refused("needs the true classes", images_of(), "stem", "true")
    monkeypatch.setattr(
        capture_module, "FIRST_PIXELS", 1
    )  # so that a part of a tensor that is too long would fit
    refused(
        r"labels must have an entry for each of the 3 images.*\(4,\)",
        images_of(),
        "stem",
        labels=torch.zeros(4).long(),
    )
    refused(
        r"target must have an entry for each of the 3 images.*\(5, 4\)",
        images_of(),
        "stem",
        torch.zeros(5, 4),
    )
    refused(
        r"target must have an entry for each of the 3 images.*\(\)",
        images_of(),
        "stem",
        torch.tensor(1),
    )


class Dead(Net):
    """`unused` never runs, `side` has no effect, and the others have no spatial output."""

    def __init__(self):
        super().__init__()
        self.unused, self.side, self.texts = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), Texts()
        self.pooled, self.vector = nn.AdaptiveAvgPool2d(1), nn.Flatten()

    def forward(self, x):
        self.side(x)
        self.texts(x)
        h = self.layer1(self.stem(x))
        gate = self.vector(self.pooled(h)).mean(1)
        return self.head(self.layer2(h)) * gate[:, None]


class Texts(nn.Module):
    def forward(self, x):
        return "no tensor"


def test_capture_rejects_layers():
    model = Dead().double().eval()
    for layer in ("unused", "texts"):
        refused(
            f"layer '{layer}' did not run, or returned no tensor",
            images_of(),
            ["stem", layer],
            model=model,
        )
    refused(
        "no gradient reaches layer 'side': the logits do not depend on it",
        images_of(),
        ["stem", "side"],
        model=model,
    )
    refused(
        "layer 'pooled' has an output of 5x1x1, which is not a spatial grid for images of 6x10",
        images_of(),
        "pooled",
        model=model,
    )
    refused(
        "layer 'vector' has an output of 5, which is not a spatial grid",
        images_of(),
        ["vector", "stem"],
        model=model,
    )


def without_gradient(around):
    class Silent(Net):
        def forward(self, x):
            with around():
                return super().forward(x)

    return Silent().double().eval()


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("layers", ["layer1", ["stem", "layer2.1"], "auto"])
def test_capture_rejects_models_without_gradient(around, layers):
    message = "no gradient flows from the logits to .*: the model detaches a tensor.*rise"
    refused(message, images_of(), layers, model=without_gradient(around))


def test_capture_rejects_detached_step():
    class Detached(Net):
        def forward(self, x):
            return self.head(self.layer2(self.layer1(self.stem(x)).detach()))

    model = Detached().double().eval()
    refused("no gradient flows from the logits to stem", images_of(), "stem", model=model)
    refused("no gradient reaches layer 'stem'", images_of(), ["stem", "layer2"], model=model)
    assert capture_layers(model, images_of(), "layer2")["layer2"].gradient.any()


def test_capture_rejects_windows():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.linear = nn.Linear(2, 2), nn.Linear(2 * 6 * 10, 3)

        def forward(self, x):
            n = len(x)
            windows = (
                x.unfold(2, 3, 3).unfold(3, 5, 5).permute(0, 2, 3, 4, 5, 1).reshape(n * 4, 15, 2)
            )
            return self.linear(self.attention(windows).reshape(n, -1))

    message = (
        "layer 'attention' has an output of 15x2 and a batch of 12 for 3 images, which is not a"
    )
    refused(message, images_of(), "attention", model=Windows().double().eval())
