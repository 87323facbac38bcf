"""Class activation maps: what a layer's activation and gradient say about where the evidence for a score lies.

Each is a function of a Capture and returns maps (N, h, w) of the layer's own resolution in the dtype of the activation, with
their sign: the ReLU that ends most of the papers' equations comes afterwards (see METHODS), so that what it cuts is known.
With `eigen`, contributions of channels are not added but projected on their first right singular vector: less noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy.attribution.capture import Capture, capture_layers
from seewhy.attribution.gradients import guided_gradients
from seewhy.attribution.hooks import record_outputs
from seewhy.attribution.maps import resize_maps
from seewhy.attribution.perturbation import ablation_cam, score_cam
from seewhy.attribution.target import batch_size, outputs
from seewhy.errors import SeewhyError
from seewhy.models.classifier import Classifier
from seewhy.models.inference import autocasting
from seewhy.models.inspection import inspecting


def grad_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Channels weighted by the mean of their gradient (Selvaraju et al. 2017, arXiv 1610.02391, eqs. 1 and 2)."""
    return weighted_sum(capture.gradient.mean((2, 3)), capture.activation, eigen)


def grad_cam_plus_plus(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Channels weighted by their positive gradients, places by alpha (Chattopadhay et al. 2018, arXiv 1710.11063, eqs. 10, 19).

    Of an exponential score every derivative is a power of the logit's gradient g, up to a factor that all weights share, so
    that alpha = g^2 / (2 g^2 + S g^3) with S the sum of the channel's activation. Where alpha counts, at g > 0, that is
    1 / (2 + S g): no small number has to save it from 0 / 0. The paper's activations are not negative; a negative S counts as 0.
    """
    gradient = capture.gradient.clamp(min=0)
    total = capture.activation.sum((2, 3), keepdim=True).clamp(min=0)
    return weighted_sum((gradient / (2 + total * gradient)).sum((2, 3)), capture.activation, eigen)


def hires_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Gradient times activation, summed over channels (Draelos & Carin 2020, arXiv 2011.08891); no ReLU."""
    return sum_channels(capture.gradient * capture.activation, eigen)


def xgrad_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Channels weighted by the mean of their gradient, weighted by activation (Fu et al. 2020, arXiv 2008.02312)."""
    total, size = capture.activation.sum((2, 3)), capture.activation.abs().sum((2, 3))
    products = (capture.gradient * capture.activation).sum((2, 3))
    nothing = (
        total.abs() <= torch.finfo(size.dtype).eps * size
    )  # but for rounding, which would have all the weight
    return weighted_sum(torch.where(nothing, 0, products / total), capture.activation, eigen)


def layer_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Each place weighted by its own positive gradient (Jiang et al. 2021, LayerCAM)."""
    return sum_channels(capture.gradient.clamp(min=0) * capture.activation, eigen)


def element_wise_grad_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """The positive part of gradient times activation, summed over channels: what no channel can take back."""
    return sum_channels((capture.gradient * capture.activation).clamp(min=0), eigen)


def eigen_cam(capture: Capture) -> Tensor:  # (N, h, w)
    """The activation projected on its first right singular vector (Muhammad & Yeasin 2020, arXiv 2008.00299).

    It looks at no class. A singular vector has no sign of its own: the one taken is positive where the activation is strong.
    """
    return principal(capture.activation, capture.activation.abs().sum(1))


def eigen_grad_cam(capture: Capture) -> Tensor:  # (N, h, w)
    """Eigen-CAM of gradient times activation; its sign is that of the plain sum over channels, HiResCAM's."""
    contributions = capture.gradient * capture.activation
    return principal(contributions, contributions.sum(1))


def shapley_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Grad-CAM with the gradient minus half of Hessian times activation (Cai 2025, arXiv 2501.06261).

    With a logit as the utility. In a network of ReLUs and max-pooling the Hessian is zero and this is Grad-CAM.
    """
    weights = (capture.gradient - hessian_product(capture) / 2).mean((2, 3))
    return weighted_sum(weights, capture.activation, eigen)


def finer_cam(
    capture: Capture, gamma: float = 1.0, classes: int = 3, eigen: bool = False
) -> Tensor:  # (N, h, w)
    """Grad-CAM of the logit minus `gamma` times those of similar classes (Zhang et al. 2025, arXiv 2501.11309).

    Similar are the `classes` other classes with the nearest logits; each counts by its probability, held constant.
    """
    logits, target = capture.question.logits, capture.question.target
    if classes < 1 or logits.shape[1] < 2:
        raise SeewhyError(
            f"finer-cam compares with at least one other class, found classes={classes} of {logits.shape[1] - 1}"
        )
    distance = (logits - logits.gather(1, target[:, None])).abs().scatter(1, target[:, None], -1)
    similar = distance.argsort(1)[:, 1 : classes + 1]
    shares = logits.gather(1, similar).softmax(1)
    weights = capture.question.weights - gamma * torch.zeros_like(logits).scatter(
        1, similar, shares
    )
    return grad_cam(recapture(capture, weights), eigen)


def cam(capture: Capture) -> Tensor:  # (N, h, w)
    """Channels weighted by the linear layer behind global average pooling (Zhou et al. 2016, arXiv 1512.04150, eq. 2).

    Raises SeewhyError where the layer is not the one that is pooled for such a head.
    """
    question, pooled = capture.question, capture.activation.mean((2, 3))
    error = (1e-3 if question.precision == "fp32" else 2e-2) * question.logits.abs().max()
    for head in question.model.modules():
        if isinstance(head, nn.Linear) and (head.out_features, head.in_features) == (
            question.logits.shape[1],
            pooled.shape[1],
        ):
            rows = head.weight.detach().to(pooled)  # (K, C)
            bias = 0 if head.bias is None else head.bias.detach().to(pooled)
            if ((pooled @ rows.T + bias - question.logits).abs() <= error).all():
                return weighted_sum(question.weights.to(pooled) @ rows, capture.activation)
    raise SeewhyError(
        f"cam needs a linear layer on the global average of {capture.layer!r}, and this model has another head there; "
        "hires-cam is the same where cam exists, and exists everywhere"
    )


def guided_grad_cam(capture: Capture) -> Tensor:  # (N, H, W), not negative
    """Guided backpropagation where Grad-CAM, enlarged bilinearly, has heat (Selvaraju et al. 2017, section 3.2)."""
    heat = resize_maps(grad_cam(capture).clamp(min=0), capture.question.images.shape[2:])
    return heat * guided_gradients(capture.question).abs().amax(1)


CAMS: dict[str, Callable[..., Tensor]] = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "hires-cam": hires_cam,
    "xgrad-cam": xgrad_cam,
    "layer-cam": layer_cam,
    "element-wise-grad-cam": element_wise_grad_cam,
    "eigen-cam": eigen_cam,
    "eigen-grad-cam": eigen_grad_cam,
    "shapley-cam": shapley_cam,
    "finer-cam": finer_cam,
    "cam": cam,
    "guided-grad-cam": guided_grad_cam,
    "score-cam": score_cam,
    "ablation-cam": ablation_cam,
}


def weighted_sum(weights: Tensor, activation: Tensor, eigen: bool = False) -> Tensor:  # (N, h, w)
    """The channels of an activation (N, C, h, w) times their weights (N, C), added up."""
    if eigen:
        return sum_channels(weights[:, :, None, None] * activation, eigen)
    return torch.einsum("nc,nchw->nhw", weights, activation)


def sum_channels(contributions: Tensor, eigen: bool) -> Tensor:  # (N, h, w)
    """Contributions (N, C, h, w) added over channels, or projected on their first right singular vector."""
    total = contributions.sum(1)
    return principal(contributions, total) if eigen else total


def principal(values: Tensor, like: Tensor) -> Tensor:  # (N, h, w)
    """`values` (N, C, h, w) at each place, projected on their first right singular vector, with the sign of `like` (N, h, w).

    By the smaller of the two Gram matrices, for all images at once. Where a value is not finite, no place is.
    """
    scale = values.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    rows = (
        torch.where(scale.isfinite(), values / scale, 0).flatten(2).transpose(1, 2)
    )  # (N, places, C)
    places, channels = rows.shape[1:]
    if channels <= places:
        projected = rows @ torch.linalg.eigh(rows.mT @ rows).eigenvectors[:, :, -1:]
    else:
        left = torch.linalg.eigh(rows @ rows.mT).eigenvectors[
            :, :, -1:
        ]  # times the singular value is the projection
        projected = left * (rows.mT @ left).norm(dim=1, keepdim=True)
    maps = projected.reshape(like.shape)
    return torch.where((maps * like).sum((1, 2), keepdim=True) < 0, -maps, maps) * scale[:, 0]


def recapture(old: Capture, weights: Tensor) -> Capture:
    """The same layer, asked for other weights (N, K) of the logits."""
    question = old.question
    with torch.inference_mode(
        False
    ):  # the caller may be in inference mode, whose tensors enter no graph
        weights = weights.clone()
    classifier = Classifier(question.model, precision=question.precision)
    return capture_layers(classifier, question.images, old.layer, weights)[old.layer]


def hessian_product(capture: Capture) -> Tensor:  # (N, C, h, w)
    """The Hessian of each score with respect to the layer's activation, times that activation."""
    whole, size = capture.question, batch_size(capture.question.images)
    products = []
    with (
        inspecting(whole.model),
        sdpa_kernel(SDPBackend.MATH),
    ):  # fused attention cannot be differentiated twice
        for start in range(0, len(whole.images), size):
            question = whole.take(slice(start, start + size))
            with (
                record_outputs(whole.model, [capture.layer]) as seen,
                autocasting(whole.precision, whole.images.device),
            ):
                logits = outputs(whole.model, question.images)
            output, score = seen[capture.layer], (logits * question.weights).sum()
            (gradient,) = torch.autograd.grad(score, output, create_graph=True)
            product = None
            if (
                gradient.requires_grad
            ):  # otherwise it is constant in the activation, as behind the last ReLU
                (product,) = torch.autograd.grad(
                    gradient, output, output.detach(), allow_unused=True
                )
            products.append(torch.zeros_like(output) if product is None else product)
    return capture.layout.to_grid(torch.cat(products).detach()).to(capture.gradient.dtype)
