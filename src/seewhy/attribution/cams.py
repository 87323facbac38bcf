"""Class activation maps, from the activation and gradient of a layer.

Each function takes a Capture and returns maps (N, h, w) in the layer's resolution and the
activation's dtype, with their sign. The final ReLU of most papers is applied later (see METHODS),
so that `MapStatus.clipped` can measure its effect. With `eigen`, the contributions of the channels
are projected onto their first right singular vector instead of being summed, which reduces noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from seewhy.attribution.capture import Capture, capture_prepared
from seewhy.attribution.gradients import guided_gradients
from seewhy.attribution.hooks import gradients_at, record_outputs
from seewhy.attribution.maps import resize_maps
from seewhy.attribution.perturbation import ablation_cam, score_cam
from seewhy.attribution.target import PreparedInputs, TargetSpec, run_model
from seewhy.errors import SeewhyError
from seewhy.models.batching import batches
from seewhy.models.inference import autocasting
from seewhy.models.inspection import inspecting, passes_gradient


def grad_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Channels weighted by their mean gradient.

    Selvaraju et al. 2017, arXiv 1610.02391, eqs. 1 and 2.
    """
    return weighted_sum(capture.gradient.mean((2, 3)), capture.activation, eigen)


def grad_cam_plus_plus(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Channels weighted by positive gradients times alpha.

    Chattopadhay et al. 2018, arXiv 1710.11063, eqs. 10 and 19. With exp(logit) as the score, each
    derivative is a power of the logit's gradient g, up to a factor common to all weights. Hence
    alpha = g^2 / (2 g^2 + S g^3), where S is the sum of the channel's activation. Only g > 0
    contributes, and there alpha = 1 / (2 + S g), which avoids 0 / 0 without an epsilon. The paper
    assumes non-negative activations; a negative S is clamped to 0.
    """
    gradient = capture.gradient.clamp(min=0)
    total = capture.activation.sum((2, 3), keepdim=True).clamp(min=0)
    return weighted_sum((gradient / (2 + total * gradient)).sum((2, 3)), capture.activation, eigen)


def hires_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Gradient times activation, summed over channels (Draelos & Carin 2020, arXiv 2011.08891)."""
    return sum_channels(capture.gradient * capture.activation, eigen)


def xgrad_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Channels weighted by the activation-weighted mean of their gradient.

    Fu et al. 2020, arXiv 2008.02312.
    """
    total, size = capture.activation.sum((2, 3)), capture.activation.abs().sum((2, 3))
    products = (capture.gradient * capture.activation).sum((2, 3))
    # A sum near zero would make the weight huge.
    zero = total.abs() <= torch.finfo(size.dtype).eps * size
    return weighted_sum(torch.where(zero, 0, products / total), capture.activation, eigen)


def layer_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Each position weighted by its own positive gradient (Jiang et al. 2021, LayerCAM)."""
    return sum_channels(capture.gradient.clamp(min=0) * capture.activation, eigen)


def element_wise_grad_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """The positive part of gradient times activation, summed over channels (pytorch-grad-cam)."""
    return sum_channels((capture.gradient * capture.activation).clamp(min=0), eigen)


def eigen_cam(capture: Capture) -> Tensor:  # (N, h, w)
    """The activation on its first right singular vector (Muhammad & Yeasin 2020, arXiv 2008.00299).

    Independent of the class. The sign of a singular vector is arbitrary; here the map is positive
    where the activation is large.
    """
    return principal(capture.activation, capture.activation.abs().sum(1))


def eigen_grad_cam(capture: Capture) -> Tensor:  # (N, h, w)
    """Eigen-CAM of gradient times activation, with the sign of HiResCAM."""
    contributions = capture.gradient * capture.activation
    return principal(contributions, contributions.sum(1))


def shapley_cam(capture: Capture, eigen: bool = False) -> Tensor:  # (N, h, w)
    """Grad-CAM of the gradient minus half of Hessian times activation (Cai 2025, arXiv 2501.06261).

    The utility is the logit. In a model of ReLUs and max-pooling the Hessian is zero, and this is
    Grad-CAM.
    """
    weights = (capture.gradient - hessian_product(capture) / 2).mean((2, 3))
    return weighted_sum(weights, capture.activation, eigen)


def finer_cam(
    capture: Capture, gamma: float = 1.0, classes: int = 3, eigen: bool = False
) -> Tensor:  # (N, h, w)
    """Grad-CAM of the logit minus those of similar classes (Zhang et al. 2025, arXiv 2501.11309).

    Args:
        capture: Activation and gradient of the layer.
        gamma: Weight of the similar classes.
        classes: Number of similar classes, those with the nearest logits. They are weighted by
            their probabilities, which are held constant.
        eigen: Project channels instead of summing them.
    """
    logits, target = capture.forward.logits, capture.forward.target
    if classes < 1 or logits.shape[1] < 2:
        raise SeewhyError(
            "finer-cam needs classes of at least 1 and a model with at least two classes, found "
            f"classes={classes} and {logits.shape[1]} in the model"
        )
    distance = (logits - logits.gather(1, target[:, None])).abs().scatter(1, target[:, None], -1)
    similar = distance.argsort(1)[:, 1 : classes + 1]
    shares = logits.gather(1, similar).softmax(1)
    others = torch.zeros_like(logits).scatter(1, similar, shares)
    return grad_cam(recapture(capture, capture.forward.weights - gamma * others), eigen)


def cam(capture: Capture) -> Tensor:  # (N, h, w)
    """Channels weighted by the linear layer after global average pooling.

    Zhou et al. 2016, arXiv 1512.04150, eq. 2. Raises SeewhyError if the layer is not the input of
    such a head.
    """
    forward, pooled = capture.forward, capture.activation.mean((2, 3))
    error = (1e-3 if forward.precision == "fp32" else 2e-2) * forward.logits.abs().max()
    temperature = forward.classifier.temperature
    shape = (forward.logits.shape[1], pooled.shape[1])
    for head in forward.model.modules():
        if isinstance(head, nn.Linear) and (head.out_features, head.in_features) == shape:
            rows = head.weight.detach().to(pooled) / temperature  # (K, C)
            bias = 0 if head.bias is None else head.bias.detach().to(pooled) / temperature
            if ((pooled @ rows.T + bias - forward.logits).abs() <= error).all():
                return weighted_sum(forward.weights.to(pooled) @ rows, capture.activation)
    raise SeewhyError(
        f"cam needs a model that ends in global average pooling of {capture.layer!r} and a linear "
        "layer; use hires-cam, which equals cam for such a model and works for any other"
    )


def guided_grad_cam(capture: Capture) -> Tensor:  # (N, H, W), not negative
    """Guided backpropagation times Grad-CAM at the image's size (Selvaraju et al. 2017, 3.2)."""
    heat = resize_maps(grad_cam(capture).clamp(min=0), capture.forward.images.shape[2:])
    return heat * guided_gradients(capture.forward).abs().amax(1)


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
    """Sum over the channels of an activation (N, C, h, w) times their weights (N, C)."""
    if eigen:
        return sum_channels(weights[:, :, None, None] * activation, eigen)
    return torch.einsum("nc,nchw->nhw", weights, activation)


def sum_channels(contributions: Tensor, eigen: bool) -> Tensor:  # (N, h, w)
    """Sum of contributions (N, C, h, w) over channels, or their `principal` component."""
    total = contributions.sum(1)
    return principal(contributions, total) if eigen else total


def principal(values: Tensor, like: Tensor) -> Tensor:  # (N, h, w)
    """Projection of `values` (N, C, h, w) on their first right singular vector.

    The sign is that of `like` (N, h, w). Computed from the smaller of the two Gram matrices. One
    non-finite value makes the whole map of an image non-finite.
    """
    scale = values.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    scaled = torch.where(scale.isfinite(), values / scale, 0)
    rows = scaled.flatten(2).transpose(1, 2)  # (N, h * w, C)
    positions, channels = rows.shape[1:]
    if channels <= positions:
        projected = rows @ torch.linalg.eigh(rows.mT @ rows).eigenvectors[:, :, -1:]
    else:
        left = torch.linalg.eigh(rows @ rows.mT).eigenvectors[:, :, -1:]
        # The projection is the left singular vector times the singular value.
        projected = left * (rows.mT @ left).norm(dim=1, keepdim=True)
    maps = projected.reshape(like.shape)
    return torch.where((maps * like).sum((1, 2), keepdim=True) < 0, -maps, maps) * scale[:, 0]


def recapture(capture: Capture, weights: Tensor) -> Capture:
    """The same layer and images with other weights (N, K) of the logits."""
    forward = capture.forward
    inputs = PreparedInputs(forward.classifier, forward.images, TargetSpec(weights))
    return capture_prepared(inputs, [capture.layer])[capture.layer]


def hessian_product(capture: Capture) -> Tensor:  # (N, C, h, w)
    """The Hessian of each score with respect to the layer's activation, times that activation."""
    model, images = capture.forward.model, capture.forward.images
    products = []
    # MATH: fused attention cannot be differentiated twice
    with inspecting(model), sdpa_kernel(SDPBackend.MATH):
        for rows in batches(model, images):
            batch = capture.forward.take(rows)
            with (
                record_outputs(model, [capture.layer], len(batch.images)) as outputs,
                autocasting(batch.precision, images.device),
            ):
                logits = run_model(batch.classifier, batch.images)
            output, score = outputs[capture.layer], (logits * batch.weights).sum()
            if not passes_gradient(model, score):
                _ = capture.gradient  # raises
            (gradient,) = gradients_at(score, [output], create_graph=True)
            product = None
            # Otherwise the gradient is constant, as after the last ReLU.
            if gradient is not None and gradient.requires_grad:
                (product,) = gradients_at(gradient, [output], output.detach())
            products.append(torch.zeros_like(output) if product is None else product)
    return capture.layout.to_grid(torch.cat(products).detach()).to(capture.gradient.dtype)
