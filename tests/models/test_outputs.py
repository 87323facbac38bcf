"""The logits are found by name or by the number of classes, or the model's output is refused."""

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from seewhy.attribution.explanation import explain
from seewhy.diagnosis.attacks import attack
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.features import extract_features
from seewhy.models.inference import compute_logits
from seewhy.models.outputs import extract_logits

Pair = namedtuple("Pair", ["logits", "features"])  # as torchvision's models return
Heads = namedtuple("Heads", ["aux", "main"])


@pytest.mark.parametrize(
    "output",
    [
        lambda logits: logits,
        lambda logits: (logits, torch.zeros(3, 4, 2, 2)),
        lambda logits: [None, logits],
        lambda logits: {"logits": logits, "features": torch.zeros(3, 4)},
        lambda logits: {"features": torch.zeros(3, 4), "logits": logits},
        lambda logits: OrderedDict(out=logits),
        lambda logits: Pair(logits, torch.zeros(3, 4)),
        lambda logits: SimpleNamespace(features=torch.zeros(3, 4), logits=logits),
    ],
)
def test_extract_logits(output):
    logits = torch.rand(3, 5)
    assert extract_logits(output(logits)) is logits


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (torch.zeros(3), r"found \(3,\) float32; for two classes, .* two logits"),
        (torch.zeros(3, 5, 8, 8), r"found \(3, 5, 8, 8\)"),
        (None, "found NoneType"),
        ({}, "found dict"),
        ((), "found tuple"),
        ({"loss": 1.0}, "found dict"),
        (SimpleNamespace(logits=None), "found SimpleNamespace"),
    ],
)
def test_extract_logits_errors(output, found):
    with pytest.raises(SeewhyError, match=rf"must return logits \(N, K\).*{found}"):
        extract_logits(output)


FEATURES, AUX, MAIN = torch.zeros(3, 8), torch.zeros(3, 5), torch.ones(3, 5)


@pytest.mark.parametrize(
    "output",
    [
        (FEATURES, MAIN),
        {"features": FEATURES, "main": MAIN},
        SimpleNamespace(features=FEATURES, main=MAIN),
        (torch.zeros(3, 5).long(), MAIN),  # such as the indices of the best classes
        (torch.zeros(()), torch.zeros(3, 5, 5), MAIN),
    ],
)
def test_extract_logits_by_number_of_classes(output):
    assert extract_logits(output, num_classes=5) is MAIN


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ((AUX, MAIN), 1),
        ({"aux": AUX, "main": MAIN, "logits": AUX}, "main"),
        (Heads(AUX, MAIN), "main"),
        (SimpleNamespace(aux=AUX, main=MAIN), "main"),
    ],
)
def test_extract_logits_by_name(output, name):
    assert extract_logits(output, 5, name) is MAIN


@pytest.mark.parametrize(
    ("output", "num_classes", "message"),
    [
        ((FEATURES, MAIN), None, r"several .*: 0 \(3, 8\) float32, 1 \(3, 5\) float32; pass the c"),
        ({"aux": AUX, "main": MAIN}, 5, r"several logits of 5 .*: aux .*, main .*output='aux'"),
        (Heads(AUX, MAIN), 5, "several logits of 5 classes"),
        ((FEATURES, AUX), 7, "no logits of 7 classes among its outputs"),
    ],
)
def test_extract_logits_refuses_what_nothing_decides(output, num_classes, message):
    with pytest.raises(SeewhyError, match=message):
        extract_logits(output, num_classes)


def test_extract_logits_unknown_name():
    with pytest.raises(
        SeewhyError, match=r"no output 'head'; it returns aux \(3, 5\) float32, main"
    ):
        extract_logits(Heads(AUX, MAIN), 5, "head")
    with pytest.raises(SeewhyError, match=r"no output 1; it returns 0 \(3, 5\) float32"):
        extract_logits(MAIN, 5, 1)


class TwoHeads(nn.Module):
    """`main` is the answer to explain, `aux` another one on the same features."""

    def __init__(self, only=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.aux, self.main, self.only = nn.Linear(4, 5), nn.Linear(4, 5), only

    def forward(self, pixels):
        features = self.conv(pixels).mean((2, 3))
        outputs = {"features": features, "aux": self.aux(features), "main": self.main(features)}
        return outputs if self.only is None else outputs[self.only]


IMAGES = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
METHODS = (
    "grad-cam",
    "score-cam",
    "ablation-cam",
    "finer-cam",
    "integrated-gradients:steps=4",
    "full-grad",
)


def maps(classifier, methods, layers="conv"):
    explanation = explain(classifier, IMAGES, methods, layers)
    return torch.stack(list(explanation.maps.values()))


CONSUMERS = {
    **{method: lambda classifier, m=method: maps(classifier, [m]) for method in METHODS},
    "auto": lambda classifier: maps(classifier, ["grad-cam"], "auto"),
    "logits": lambda classifier: compute_logits(classifier, IMAGES),
    "features": lambda classifier: extract_features(classifier, IMAGES),
    "attack": lambda classifier: attack(classifier, IMAGES, torch.tensor([0, 1])).images,
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("consumer", CONSUMERS)
def test_output_chooses_the_logits_everywhere(consumer):
    compute, classes = CONSUMERS[consumer], tuple("abcde")
    expected = compute(Classifier(TwoHeads("main").eval(), classes))
    assert torch.equal(compute(Classifier(TwoHeads().eval(), classes, output="main")), expected)
    with pytest.raises(SeewhyError, match="several logits of 5 classes among its outputs: aux"):
        compute(Classifier(TwoHeads().eval(), classes))
