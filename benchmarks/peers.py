"""The packages that our explanations are compared with: installed from PyPI, used unmodified.

They are installed in a separate directory, outside the project's environment, and share its torch.
"""

import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stderr
from importlib import import_module, invalidate_caches
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DIRECTORY = Path(__file__).parent / ".peers"

# module -> requirement; installed without dependencies, which would replace torch
PACKAGES = {
    "pytorch_grad_cam": "grad-cam==1.5.7",
    "torchcam": "torchcam==0.5.0",
    "captum": "captum==0.9.0",
    "ttach": "ttach==0.0.3",
    "zennit": "zennit==0.5.1",
    "cv2": "opencv-python-headless",
    "tqdm": "tqdm",
    "torchvision": "torchvision==0.{}.*".format(
        int(torch.__version__.split(".")[1]) + 15
    ),  # 0.28 goes with torch 2.13
}
FINETUNING = {
    "torchvision": PACKAGES["torchvision"],
    "fastai": "fastai==2.8.12",
    "fastcore": "fastcore<3",
    "fastdownload": "fastdownload<2",
    "fasttransform": "fasttransform",
    "fastprogress": "fastprogress==1.0.3",
    "plum": "plum-dispatch<2.10",
    "beartype": "beartype",
    "requests": "requests",
    "urllib3": "urllib3",
    "idna": "idna",
    "certifi": "certifi",
    "charset_normalizer": "charset-normalizer",
    "yaml": "pyyaml",
    "cloudpickle": "cloudpickle",
}
GRAD_CAM = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "hires-cam": "HiResCAM",
    "xgrad-cam": "XGradCAM",
    "layer-cam": "LayerCAM",
    "eigen-cam": "EigenCAM",
    "eigen-grad-cam": "EigenGradCAM",
    "score-cam": "ScoreCAM",
    "ablation-cam": "AblationCAM",
}
TORCHCAM = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMpp",
    "xgrad-cam": "XGradCAM",
    "layer-cam": "LayerCAM",
}
CAPTUM = ("grad-cam", "hires-cam")

_OPERATORS: list[torch.library.Library] = []  # keep declarations alive


def bring(packages: Mapping[str, str] = PACKAGES) -> str:
    """Install missing packages and make all importable; return names and versions of the peers."""
    if str(DIRECTORY) not in sys.path:
        sys.path.append(str(DIRECTORY))  # last, so that the project's packages take precedence
    missing = [requirement for module, requirement in packages.items() if find_spec(module) is None]
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--target", str(DIRECTORY), *missing], check=True)
        invalidate_caches()
    _declare_operators()
    known = {"grad-cam": "pytorch_grad_cam"} | {
        name: name for name in ("torchcam", "captum", "zennit", "fastai")
    }
    names = [name for name, module in known.items() if module in packages]
    return ", ".join(f"{name} {version(name)}" for name in names)


def grad_cams(
    model: nn.Module, images: Tensor, methods: Sequence[str], layers: Sequence[str]
) -> dict[tuple[str, str], np.ndarray]:  # (N, H, W) float32 in [0, 1]
    """pytorch-grad-cam's maps of the predicted classes, in the images' size.

    One call for each method and layer.
    """
    package, maps = import_module("pytorch_grad_cam"), {}
    for method in methods:
        for layer in layers:
            extractor = getattr(package, GRAD_CAM[method])(
                model=model, target_layers=[model.get_submodule(layer)]
            )
            with extractor as cam, redirect_stderr(io.StringIO()):  # its progress bars
                maps[layer, method] = cam(input_tensor=images, targets=None)
    return maps


def scaled(maps: Tensor, size: int) -> np.ndarray:  # (N, size, size) float32 in [0, 1]
    """Maps (N, h, w) scaled as pytorch-grad-cam does: clipped at 0, in [0, 1] before and after."""
    scale = import_module("pytorch_grad_cam.utils.image").scale_cam_image
    result: np.ndarray = scale(scale(np.maximum(maps.numpy(), 0), (size, size)))
    return result


def torchcam(
    model: nn.Module, images: Tensor, layers: Sequence[str]
) -> dict[tuple[str, str], Tensor]:
    """Each of TORCHCAM at all layers, as documented: one forward pass for each method."""
    found, modules = {}, [model.get_submodule(layer) for layer in layers]
    for method, name in TORCHCAM.items():
        with getattr(import_module("torchcam.methods"), name)(model, modules) as extractor:
            logits = model(images)
            maps = extractor(logits.argmax(1).tolist(), logits)
        found.update({(layer, method): each for layer, each in zip(layers, maps, strict=True)})
    return found


def torchcam_at_once(
    model: nn.Module, images: Tensor, layers: Sequence[str]
) -> dict[tuple[str, str], Tensor]:
    """The same from one forward pass; each method has its own backward pass."""
    module, found = import_module("torchcam.methods"), {}
    modules = [model.get_submodule(layer) for layer in layers]
    with ExitStack() as stack:
        extractors = {
            method: stack.enter_context(getattr(module, name)(model, modules))
            for method, name in TORCHCAM.items()
        }
        logits = model(images)
        classes = logits.argmax(1).tolist()
        for number, (method, extractor) in enumerate(extractors.items(), start=1):
            maps = extractor(classes, logits, retain_graph=number < len(extractors))
            found.update({(layer, method): each for layer, each in zip(layers, maps, strict=True)})
    return found


def captum(
    model: nn.Module, images: Tensor, layers: Sequence[str], classes: Tensor
) -> dict[tuple[str, str], Tensor]:
    """CAPTUM at all layers: a call for each layer for Grad-CAM, one for all layers for HiResCAM.

    The classes are an argument, so the time to predict them is not counted.
    """
    attr = import_module("captum.attr")
    modules = [model.get_submodule(layer) for layer in layers]
    found = {
        (layer, "grad-cam"): attr.LayerGradCam(model, module).attribute(
            images, classes, relu_attributions=True
        )[:, 0]
        for layer, module in zip(layers, modules, strict=True)
    }
    products = attr.LayerGradientXActivation(model, modules).attribute(images, classes)
    found.update(
        {(layer, "hires-cam"): each.sum(1) for layer, each in zip(layers, products, strict=True)}
    )
    return {key: maps.detach() for key, maps in found.items()}


def zennit(
    net: nn.Module, inputs: Tensor, bounds: tuple[Tensor, Tensor], classes: Tensor, gamma: float
) -> Tensor:  # (N, H, W)
    """Relevance in a ResNet of torchvision: LRP-gamma, LRP-epsilon, and z^B between the bounds."""
    composites, rules = (import_module(f"zennit.{name}") for name in ("composites", "rules"))
    first = next(name for name, part in net.named_modules() if isinstance(part, nn.Conv2d))
    box = rules.ZBox(*bounds, zero_params="bias")
    by_type = [
        (nn.Conv2d, rules.Gamma(gamma)),
        (nn.Linear, rules.Epsilon(1e-6)),
        *composites.layer_map_base(),
    ]
    canonizer = import_module("zennit.torchvision").ResNetCanonizer()
    composite = composites.MixedComposite(
        [
            composites.NameMapComposite([([first], box)]),
            composites.LayerMapComposite(by_type, canonizers=[canonizer]),
        ]
    )
    inputs = inputs.detach().requires_grad_()
    with composite.context(net) as modified:
        logits = modified(inputs)
        chosen = nn.functional.one_hot(classes, logits.shape[1])
        (relevance,) = torch.autograd.grad(logits, inputs, logits.detach() * chosen)
    return relevance.sum(1)


def road(
    model: nn.Module,
    images: Tensor,
    maps: np.ndarray,
    classes: Sequence[int],
    percentiles: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:  # (N,), (N,)
    """pytorch-grad-cam's ROAD, most and least relevant first.

    Change of the probability, mean over the removed percentages.
    """
    metrics, targets = (
        import_module("pytorch_grad_cam.metrics.road"),
        import_module("pytorch_grad_cam.utils.model_targets"),
    )
    goals = [targets.ClassifierOutputSoftmaxTarget(each) for each in classes]
    kept = [100 - each for each in percentiles]  # its percentiles count the pixels kept
    kinds = (metrics.ROADMostRelevantFirstAverage, metrics.ROADLeastRelevantFirstAverage)
    most, least = (kind(percentiles=kept)(images, maps, goals, model) for kind in kinds)
    return most, least


def imputed(image: Tensor, removed: Tensor) -> Tensor:  # (C, H, W)
    """pytorch-grad-cam's imputation of an image (C, H, W) at `removed` (H, W) bool, no noise."""
    imputer = import_module("pytorch_grad_cam.metrics.road").NoisyLinearImputer(noise=0)
    result: Tensor = imputer(image, (~removed).float())
    return result


def _declare_operators() -> None:
    """Declare torchvision's operators if its binary does not fit this build of torch."""
    if _OPERATORS:
        return
    spec: Any = find_spec("torchvision")
    try:
        binary = next(Path(spec.origin).parent.glob("_C.*"))
        torch.ops.load_library(str(binary))  # type: ignore[no-untyped-call]
    except (OSError, StopIteration):
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            signature = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(signature)  # type: ignore[no-untyped-call]
        _OPERATORS.append(library)
