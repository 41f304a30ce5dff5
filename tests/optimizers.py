"""What the optimisers' tests share: PyTorch's formulas as a NumPy user would write them."""

import numpy as np


def numpy_adam(state, grad, step, *, lr, betas, eps, weight_decay, decoupled):
    """One step of torch.optim.Adam or AdamW (single tensor), in the dtype of the arrays."""
    param, exp_avg, exp_avg_sq = state
    beta1, beta2 = betas
    if decoupled:
        param *= 1 - lr * weight_decay
    elif weight_decay:
        grad = grad + weight_decay * param
    exp_avg += (1 - beta1) * (grad - exp_avg)
    exp_avg_sq *= beta2
    exp_avg_sq += (1 - beta2) * grad * grad
    bias_correction1, bias_correction2 = 1 - beta1**step, 1 - beta2**step
    denominator = np.sqrt(exp_avg_sq) / bias_correction2**0.5 + eps
    param -= lr / bias_correction1 * exp_avg / denominator


def numpy_sgd(state, grad, step, *, lr, momentum, weight_decay):
    """One step of torch.optim.SGD, in the dtype of the arrays."""
    param, buffer = state
    grad = grad + weight_decay * param
    buffer[...] = grad if step == 1 else momentum * buffer + grad
    param -= lr * buffer


def errors_after_1000_steps(update, plain, arrays, rng):
    """Root mean square distance of `update` and of `plain`, both in float32, from `plain` in float64.

    The problem is a quadratic bowl with noise. All three runs get the same gradients. The third result is the root
    mean square of the parameters at the start.
    """
    size = 500
    start = rng.normal(size=size)
    scale = 10.0 ** rng.uniform(-3, 1, size)
    exact, mine, theirs = (
        [start.astype(dtype)] + [np.zeros(size, dtype) for _ in range(arrays - 1)]
        for dtype in (np.float64, np.float32, np.float32)
    )
    for step in range(1, 1001):
        grad = (scale * (exact[0] + rng.normal(size=size))).astype(np.float32)
        plain(exact, grad.astype(np.float64), step)
        update(mine, grad, step)
        plain(theirs, grad, step)

    def distance(state):
        return np.sqrt(np.mean((state[0] - exact[0]) ** 2))

    return distance(mine), distance(theirs), np.sqrt(np.mean(start**2))
