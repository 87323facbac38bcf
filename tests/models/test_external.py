"""Models of timm and torchvision, with small stand-ins for the two packages."""

import copy
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from seewhy.attribution.explanation import explain
from seewhy.attribution.layers import list_layers
from seewhy.data.decode import Preprocessing
from seewhy.errors import SeewhyError
from seewhy.models.classifier import pretrained_classifier
from seewhy.models.graph import model_graph
from seewhy.models.inspection import check_eval_mode
from seewhy.models.pretrained import pretrained_info
from seewhy.models.published import PretrainedInfo
from seewhy.models.registry import blank_sample, build_model, untrained_spec
from seewhy.models.summary import model_summary
from seewhy.models.weights_file import loading_note
from seewhy.train.freezing import freezable

RGB = blank_sample(3, 8, 8)


class Net(nn.Module):
    """Channel means into a linear layer; fails for images whose side is no multiple of 8."""

    def __init__(self, channels, num_classes):
        super().__init__()
        self.body = nn.Conv2d(channels, 6, kernel_size=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, num_classes)

    def forward(self, x):
        if x.shape[-1] % 8:
            raise AssertionError(
                f"Input height ({x.shape[-2]}) doesn't match model (8).\nsecond line"
            )
        return self.head(self.drop(self.body(x).mean((2, 3))))


class SqueezeNet(Net):
    """With a convolution for its last layer."""

    def __init__(self, channels, num_classes):
        super().__init__(channels, num_classes)
        self.head = nn.Conv2d(6, num_classes, kernel_size=1)

    def forward(self, x):
        return self.head(self.body(x)).mean((2, 3))


class Inception(Net):
    """With a second set of logits in training mode."""

    def __init__(self, channels, num_classes):
        super().__init__(channels, num_classes)
        self.aux_logits = True
        self.AuxLogits = nn.Linear(6, num_classes)

    def forward(self, x):
        logits = super().forward(x)
        return (
            (logits, self.AuxLogits(self.body(x).mean((2, 3))))
            if self.training and self.aux_logits
            else logits
        )


class GoogLeNet(Net):
    """Turns the normalization of its published weights into another one, as torchvision's does."""

    def __init__(self, channels, num_classes):
        super().__init__(channels, num_classes)
        self.transform_input = False

    def forward(self, x):
        if self.transform_input:
            x = (
                x * per_channel([0.229, 0.224, 0.225]) / 0.5
                + (per_channel([0.485, 0.456, 0.406]) - 0.5) / 0.5
            )
        return super().forward(x)


def per_channel(values):
    return torch.tensor(values).view(1, 3, 1, 1)


@pytest.fixture
def timm(monkeypatch):
    def create_model(name, pretrained, num_classes, in_chans, **settings):
        if name == "resnet50.nope":
            raise RuntimeError("Invalid pretrained tag (nope) for resnet50.")
        net = Net(in_chans, num_classes)
        net.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
        net.created = (name, pretrained)
        net.settings = settings
        return net

    package = ModuleType("timm")
    package.create_model = create_model
    package.list_models = lambda: ["resnet50", "vit_tiny"]
    monkeypatch.setitem(sys.modules, "timm", package)


@pytest.fixture
def torchvision(monkeypatch):
    nets = {
        "resnet50": Net,
        "squeezenet": SqueezeNet,
        "inception": Inception,
        "googlenet": GoogLeNet,
    }
    preset = SimpleNamespace(
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        crop_size=[8],
        resize_size=[10],
        interpolation=SimpleNamespace(value="bilinear"),
    )

    def get_model(name, weights=None, num_classes=1000):
        if weights is not None and num_classes != 1000:
            raise ValueError("The parameter 'num_classes' expected value 1000")
        net = nets[name](3, num_classes)
        if weights is not None and hasattr(net, "transform_input"):
            net.transform_input = True
        return net

    package = ModuleType("torchvision")
    package.models = ModuleType("torchvision.models")
    package.models.list_models = lambda module: sorted(nets)
    package.models.get_model = get_model
    package.models.get_model_weights = lambda name: SimpleNamespace(
        DEFAULT=SimpleNamespace(
            transforms=lambda: preset, meta={"categories": list(map(str, range(1000)))}
        )
    )
    monkeypatch.setitem(sys.modules, "torchvision", package)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_timm_channels(channels):
    model = build_model("timm:resnet50", 4, blank_sample(channels, 8, 8))
    assert model(torch.rand(2, channels, 8, 8)).shape == (2, 4)
    assert model.net.created == ("resnet50", False)
    assert torch.equal(
        model.normalize.mean, torch.zeros(1, channels, 1, 1)
    )  # those of the blank sample


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("channels", "mean", "std"),
    [
        (3, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
        (1, [0.2], [0.5]),
        (5, [0.1, 0.2, 0.3, 0.1, 0.2], [0.4, 0.5, 0.6, 0.4, 0.5]),
    ],
)
def test_timm_pretrained_mean_and_std(channels, mean, std):
    model = build_model("timm:resnet50.a1_in1k,pretrained=true", 4, blank_sample(channels, 8, 8))
    assert model.net.created == ("resnet50.a1_in1k", True)
    torch.testing.assert_close(model.normalize.mean.flatten(), torch.tensor(mean))
    torch.testing.assert_close(model.normalize.std.flatten(), torch.tensor(std))


@pytest.mark.usefixtures("timm", "torchvision")
@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_external_normalizes_first(package):
    sample = blank_sample(3, 8, 8)
    sample.images[:, 0, ::2] = 255
    model = build_model(f"{package}:resnet50", 4, sample).eval()
    pixels = torch.rand(2, 3, 8, 8)
    expected = pixels.clone()
    expected[:, 0] = (pixels[:, 0] - 0.5) / 0.5
    torch.testing.assert_close(model(pixels), model.net(expected))


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("name", ["resnet50", "squeezenet", "inception"])
@pytest.mark.parametrize("pretrained", [False, True])
def test_torchvision_without_auxiliary_logits(name, pretrained):
    model = build_model(f"torchvision:{name},pretrained={pretrained}", 4, RGB).train()
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 4)
    assert not any("AuxLogits" in key for key in model.state_dict())
    mean = model.normalize.mean.flatten()
    torch.testing.assert_close(
        mean, torch.tensor([0.485, 0.456, 0.406]) if pretrained else torch.zeros(3)
    )


@pytest.mark.usefixtures("torchvision")
def test_torchvision_transform_input_is_folded():
    pixels = torch.rand(2, 3, 8, 8)
    text = "torchvision:googlenet,true"
    with torch.no_grad():
        trained = build_model(text, 4, RGB).eval()
        logits = trained(pixels)
        rebuilt = build_model(untrained_spec(text), 4, RGB).eval()
        rebuilt.load_state_dict(trained.state_dict())
        torch.testing.assert_close(rebuilt(pixels), logits)
        trained.net.transform_input = True
        published = (pixels - per_channel([0.485, 0.456, 0.406])) / per_channel(
            [0.229, 0.224, 0.225]
        )
        torch.testing.assert_close(trained.net(published), logits)


@pytest.mark.usefixtures("torchvision")
def test_torchvision_needs_rgb():
    with pytest.raises(SeewhyError, match="needs RGB images, found 1 channel; choose a timm model"):
        build_model("torchvision:resnet50", 4, blank_sample(1, 8, 8))


@pytest.mark.usefixtures("timm", "torchvision")
@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_external_wrong_names_and_sizes(package):
    with pytest.raises(
        SeewhyError, match=f"unknown {package} model 'resnet5' \\(did you mean 'resnet50'\\?\\)"
    ):
        build_model(f"{package}:resnet5", 4, RGB)
    with pytest.raises(SeewhyError, match=f"model '{package}': {package} needs name"):
        build_model(package, 4, RGB)
    with pytest.raises(
        SeewhyError, match=f"{package}:resnet50 cannot take images of 9x12 pixels: Input height"
    ) as error:
        build_model(f"{package}:resnet50", 4, blank_sample(3, 9, 12))
    assert "\n" not in str(error.value)
    assert "resize the images" in str(error.value)


@pytest.mark.usefixtures("timm")
def test_external_errors_are_one_line():
    with pytest.raises(
        SeewhyError, match=r"timm cannot create 'resnet50\.nope': Invalid pretrained tag"
    ):
        build_model("timm:resnet50.nope", 4, RGB)


@pytest.mark.usefixtures("timm")
def test_external_probe_leaves_no_trace():
    generator = torch.get_rng_state()
    model = build_model("timm:resnet50", 4, RGB)
    assert all(module.training for module in model.modules())
    torch.set_rng_state(generator)
    again = build_model("timm:resnet50", 4, RGB)
    assert torch.equal(model.net.head.weight, again.net.head.weight)


@pytest.mark.usefixtures("timm")
def test_external_layers_have_the_names_of_the_package():
    """Everywhere where a name is shown, and wherever one is taken."""
    model = build_model("timm:resnet50", 4, RGB)
    net = model.net
    outside = {"(model)", "normalize"}
    inside = {name for name, _ in net.named_modules() if name}
    rows = model_summary(model, tuple(RGB.images.shape[1:])).layers
    assert outside | inside == {row.name for row in rows}
    assert (rows[0].type, rows[0].depth) == ("Net", 0)
    assert {row.depth for row in rows[1:]} == {1}
    assert sum(row.parameters for row in rows[1:]) == rows[0].parameters
    for name in ("head", "net.head", "net.head.weight"):
        assert freezable(model, {name: 1.0})[0][0] is net.head.weight
    with pytest.raises(SeewhyError, match=r"possible: body, head$"):
        freezable(model, {"no": 1.0})
    model.head = new = nn.Linear(net.head.in_features, 7)
    assert net.head is model.head is new
    assert set(dict(model.named_children())) == {"normalize", "net"}
    model.eval().head.train()
    with pytest.raises(SeewhyError, match="its layer 'head' is in training mode"):
        check_eval_mode(model)


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_external_missing_package(package, monkeypatch):
    monkeypatch.setattr(
        "importlib.import_module",
        importing(ModuleNotFoundError(f"No module named {package!r}", name=package)),
    )
    with pytest.raises(SeewhyError, match=r"pip install 'seewhy\[zoo\]'$"):
        build_model(f"{package}:resnet50", 4, RGB)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operator torchvision::nms does not exist\nmore"),
        ModuleNotFoundError("No module named 'other'", name="other"),
        OSError("libcudart.so: cannot open shared object file"),
    ],
)
def test_external_broken_package(error, monkeypatch):
    monkeypatch.setattr("importlib.import_module", importing(error))
    first_line = str(error).partition("\n")[0]
    with pytest.raises(
        SeewhyError, match=f"torchvision is installed but cannot be imported: {first_line}"
    ) as raised:
        build_model("torchvision:resnet50", 4, RGB)
    assert "\n" not in str(raised.value)


def importing(error):
    def import_module(name):
        raise error

    return import_module


def test_pretrained_info_of_timm(timm):
    module = sys.modules["timm"]
    module.data = SimpleNamespace(
        ImageNetInfo=lambda: SimpleNamespace(index_to_description=lambda index: f"class {index}")
    )
    config = SimpleNamespace(
        num_classes=1000,
        input_size=(3, 32, 48),
        crop_pct=0.875,
        interpolation="bilinear",
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    )
    module.get_pretrained_cfg = lambda name, allow_unregistered: config
    info = pretrained_info("timm:resnet50.a1_in1k")
    assert (len(info.classes), info.classes[999]) == (1000, "class 999")
    assert (info.image_size, info.preprocessing) == (48, Preprocessing(0.875, "bilinear"))
    assert (info.mean, info.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    config.num_classes, config.interpolation = 3, "bicubic"
    assert pretrained_info("timm:name=vit_tiny,pretrained=true").classes == ("0", "1", "2")
    assert pretrained_info("timm:vit_tiny").preprocessing.interpolation == "bicubic"


@pytest.mark.parametrize(("resized", "crop"), [(256, 0.875), (224, 1.0), (200, 1.0)])
def test_pretrained_info_of_torchvision(torchvision, resized, crop):
    weights = SimpleNamespace(
        meta={"categories": ["cat", "dog"]},
        transforms=lambda: SimpleNamespace(
            crop_size=[224],
            resize_size=[resized],
            interpolation=SimpleNamespace(value="bilinear"),
            mean=[0.1],
            std=[0.2],
        ),
    )
    models = sys.modules["torchvision"].models
    models.get_model_weights = lambda name: SimpleNamespace(DEFAULT=weights)
    info = pretrained_info("torchvision:resnet50")
    assert info == PretrainedInfo(
        ("cat", "dog"), 224, Preprocessing(crop, "bilinear"), (0.1,), (0.2,)
    )


def test_pretrained_info_without_a_name_or_weights():
    assert pretrained_info("resnet18") is None
    with pytest.raises(
        SeewhyError, match="'timm:' has no model name; add one, as in timm:resnet50"
    ):
        pretrained_info("timm:")


@pytest.mark.usefixtures("timm")
def test_layers_of_an_external_model_have_its_own_names():
    model = copy.deepcopy(build_model("timm:resnet50", 4, RGB).eval())
    assert [layer.name for layer in list_layers(model, RGB.images)] == ["normalize", "body"]
    assert model.get_submodule("body") is model.get_submodule("net.body") is model.net.body
    for name in ("body", "net.body"):
        maps = explain(model, torch.rand(1, 3, 8, 8), "grad-cam", name, 0, warn=False)
        assert maps.layers == ("body",)
    graph = model_graph(model, (3, 8, 8), 4)
    assert [step.layer for step in graph.steps if step.parameters] == ["body", "head"]
    assert graph.types["body"] == "Conv2d"
    with pytest.raises(AttributeError, match="nothing"):
        model.get_submodule("nothing")
    assert not hasattr(model, "created")  # only modules of the network are found


@pytest.mark.usefixtures("timm")
def test_timm_takes_any_setting():
    model = build_model("timm:resnet50,img_size=32,drop_rate=0.1,features=[1,2]", 4, RGB)
    assert model.net.settings == {"img_size": 32, "drop_rate": 0.1, "features": (1, 2)}


@pytest.mark.usefixtures("timm")
def test_timm_weights_of_a_file(tmp_path, monkeypatch):
    """Mean and std are those of the model's published weights; the head is new."""
    config = SimpleNamespace(
        num_classes=1000,
        input_size=(3, 32, 32),
        crop_pct=0.9,
        interpolation="bicubic",
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        classifier="head",
    )
    timm = sys.modules["timm"]
    timm.get_pretrained_cfg = lambda name, **_: config
    timm.data = SimpleNamespace(
        ImageNetInfo=lambda: SimpleNamespace(index_to_description=lambda index: f"class {index}")
    )
    torch.manual_seed(0)
    published = Net(3, 1000)
    torch.save(published.state_dict(), tmp_path / "w.pth")
    spec = f"timm:resnet50,weights={tmp_path / 'w.pth'}"
    model = build_model(spec, 4, RGB)
    assert loading_note(model) == "w.pth: a head for 1,000 classes; the one for 4 classes is new"
    assert torch.equal(model.net.body.weight, published.body.weight)
    torch.testing.assert_close(model.normalize.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    assert untrained_spec(spec) == "timm:resnet50"
    info = pretrained_info(spec)
    assert (info.classes[1], info.image_size, info.std) == ("class 1", 32, (0.4, 0.5, 0.6))
    classifier = pretrained_classifier(spec)
    pixels = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        shifted = (pixels - per_channel([0.1, 0.2, 0.3])) / per_channel([0.4, 0.5, 0.6])
        torch.testing.assert_close(classifier.model(pixels), published.eval()(shifted))
    assert len(classifier.classes) == 1000
    # the file of a run has the names of our wrapper
    torch.save(model.state_dict(), tmp_path / "w.pth")
    again = build_model(spec, 4, RGB)
    assert torch.equal(again.net.head.weight, model.net.head.weight)
    foreign = {"stem.weight": torch.zeros(3), "body.bias": torch.zeros(6)}
    torch.save(foreign, tmp_path / "w.pth")
    with pytest.raises(SeewhyError, match=r"layout of timm:resnet50: missing: body\.weight; unexp"):
        build_model(spec, 4, RGB)


def test_torchvision_weights_of_a_file_list_what_is_left_over(torchvision, tmp_path):
    published = Inception(3, 4)
    torch.save(published.state_dict(), tmp_path / "w.pth")
    model = build_model(f"torchvision:inception,weights={tmp_path / 'w.pth'}", 4, RGB)
    assert loading_note(model) == "w.pth: left over: AuxLogits.weight, AuxLogits.bias"
    assert torch.equal(model.net.head.weight, published.head.weight)


def test_models_of_transformers_need_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SeewhyError, match=r"transformers models need the package .*seewhy\[zoo\]"):
        build_model("hf:owner/name", 4, RGB)
