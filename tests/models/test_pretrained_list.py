"""Published weights by name and limits, from what stand-ins of the packages say."""

import sys
from types import SimpleNamespace

import pytest

from seewhy.cli import main
from seewhy.errors import SeewhyError
from seewhy.models import pretrained_list
from seewhy.models.pretrained_list import PublishedModel, find_published


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"small": (96, 2_000_000, 61.5), "large": (224, 30_000_000, 80.0)}

    def weights(name: str) -> SimpleNamespace:
        size, parameters, accuracy = sizes[name]
        metrics = {"_metrics": {"ImageNet-1K": {"acc@1": accuracy}}}
        return SimpleNamespace(
            DEFAULT=SimpleNamespace(
                transforms=lambda: SimpleNamespace(crop_size=[size]),
                meta={"categories": ["a", "b"], "num_params": parameters, **metrics},
            )
        )

    torchvision = SimpleNamespace(
        models=SimpleNamespace(list_models=lambda module: list(sizes), get_model_weights=weights)
    )
    timm = SimpleNamespace(
        list_pretrained=lambda: ["small_vit.tag"],
        get_pretrained_cfg=lambda name: SimpleNamespace(input_size=(3, 64, 64), num_classes=0),
    )
    modules = {"torchvision": torchvision, "timm": timm}
    monkeypatch.setattr(pretrained_list, "imported", modules.__getitem__)
    monkeypatch.setattr(pretrained_list, "cached_models", lambda: ["o/small", "timm/small.x"])
    ours = (PublishedModel("ours:weights=FILE", 224, 1000, 4_652_008),)
    monkeypatch.setattr(pretrained_list, "_ours", lambda: ours)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    ("query", "specs"),
    [
        ("small", ["hf:o/small", "torchvision:small", "timm:small_vit.tag"]),
        ("SMALL vit", ["timm:small_vit.tag"]),
        ("torchvision: size<=96", ["torchvision:small"]),
        ("parameters>4.6M parameters<5M", ["ours:weights=FILE"]),
        ("accuracy>=80", ["torchvision:large"]),
        ("classes=2 accuracy<70", ["torchvision:small"]),
        ("nothing", []),
    ],
)
def test_published_models_are_found(query: str, specs: list[str]) -> None:
    found, remarks = find_published(query)
    assert [model.spec for model in found] == specs
    assert not remarks


@pytest.mark.usefixtures("packages")
def test_published_models_hold_what_is_known() -> None:
    large, vit = find_published("large")[0][0], find_published("vit")[0][0]
    assert large == PublishedModel("torchvision:large", 224, 2, 30_000_000, 80.0)
    assert vit == PublishedModel("timm:small_vit.tag", 64, None, None, None)


@pytest.mark.parametrize("query", ["siz<3", "size<", "size<a", "size<1.2.3"])
def test_published_models_refuse_wrong_limits(query: str) -> None:
    with pytest.raises(SeewhyError, match=r"possible( fields)?: size, classes|is not a number"):
        find_published(query)


@pytest.mark.slow
def test_list_models_without_the_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("timm", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(pretrained_list, "cached_models", list)
    monkeypatch.setenv("COLUMNS", "60")
    assert main.main(["list", "models", "--pretrained", "lite0"]) == 0
    out = capsys.readouterr().out
    assert "efficientnet-lite0:weights=FILE" in out
    assert "4.7M" in out
    assert "top-1" not in out
    assert "pip install 'seewhy[zoo]'" in out.replace("\n", " ")
    assert max(map(len, out.splitlines())) <= 60
    assert main.main(["list", "optimizers", "--pretrained", "x"]) == 2
    assert "--pretrained is for models" in capsys.readouterr().err
