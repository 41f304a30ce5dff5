"""The gradient of each residual block's weights in a deep stack at initialisation, Pre-LN and Post-LN."""

import numpy as np
from matplotlib import pyplot as plt

import pyreg

DEPTH, ROWS, WIDTH = 48, 64, 128


def random_stack(rng):
    """An input, the weights of `DEPTH` blocks of relu(x w1) w2, and a gradient of unit rows for the output."""
    x = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    # He's initialisation for the layer before the ReLU, Glorot's for the one after it.
    w1 = rng.normal(0, np.sqrt(2 / WIDTH), (DEPTH, WIDTH, WIDTH)).astype(np.float32)
    w2 = rng.normal(0, np.sqrt(1 / WIDTH), (DEPTH, WIDTH, WIDTH)).astype(np.float32)
    dx = rng.normal(size=x.shape).astype(np.float32) / WIDTH**0.5
    return x, w1, w2, dx


def pre_gradients(x, w1, w2, dx):
    """The norms of the gradients of w1 in blocks x + relu(norm(x) w1) w2."""
    saved = []
    for block in range(DEPTH):
        normalised, mean, rstd = pyreg.layer_norm_forward(x)
        hidden = np.maximum(normalised @ w1[block], 0)
        saved.append((x, normalised, hidden, mean, rstd))
        x = x + hidden @ w2[block]
    # The model normalises x at the end.
    _, mean, rstd = pyreg.layer_norm_forward(x)
    dx, _, _ = pyreg.layer_norm_backward(dx, x, mean, rstd)
    norms = []
    for block in reversed(range(DEPTH)):
        x, normalised, hidden, mean, rstd = saved[block]
        dhidden = (dx @ w2[block].T) * (hidden > 0)
        norms.append(np.linalg.norm(normalised.T @ dhidden))
        dinputs, _, _ = pyreg.layer_norm_backward(dhidden @ w1[block].T, x, mean, rstd)
        dx = dx + dinputs
    return norms[::-1]


def post_gradients(x, w1, w2, dx):
    """The same for blocks norm(x + relu(x w1) w2)."""
    saved = []
    for block in range(DEPTH):
        hidden = np.maximum(x @ w1[block], 0)
        z = x + hidden @ w2[block]
        y, mean, rstd = pyreg.layer_norm_forward(z)
        saved.append((x, hidden, z, mean, rstd))
        x = y
    norms = []
    for block in reversed(range(DEPTH)):
        x, hidden, z, mean, rstd = saved[block]
        dx, _, _ = pyreg.layer_norm_backward(dx, z, mean, rstd)
        dhidden = (dx @ w2[block].T) * (hidden > 0)
        norms.append(np.linalg.norm(x.T @ dhidden))
        dx = dx + dhidden @ w1[block].T
    return norms[::-1]


def mean_over_seeds(gradients):
    return np.mean([gradients(*random_stack(np.random.default_rng(seed))) for seed in range(8)], axis=0)


post, pre = mean_over_seeds(post_gradients), mean_over_seeds(pre_gradients)
_, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
blocks = np.arange(1, DEPTH + 1)
axes.plot(blocks, post, label="Post-LN", color="#D55E00")
axes.plot(blocks, pre, label="Pre-LN", color="#0072B2")
root = 1 / np.sqrt(blocks + 1)
axes.plot(blocks, root * pre.mean() / root.mean(), "k:", label="∝ 1 / √(block + 1)")
axes.set(xlabel="block, from the input to the output", ylabel="norm of the gradient of w1", ylim=(0, None))
axes.grid(alpha=0.3)
axes.legend()
