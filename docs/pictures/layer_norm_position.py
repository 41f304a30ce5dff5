"""The gradient at the weights of each residual block of a deep stack at initialisation, Pre-LN and Post-LN."""

import numpy as np
from matplotlib import pyplot as plt

import pyreg

DEPTH, ROWS, WIDTH = 48, 64, 128


def weight_gradients(position, rng):
    """The norms of the gradients of the weights of `DEPTH` blocks x + relu(x w1) w2, for a gradient of unit rows."""
    x = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    # He's initialisation for the layer before the ReLU, Glorot's for the one after it.
    w1 = rng.normal(0, np.sqrt(2 / WIDTH), (DEPTH, WIDTH, WIDTH)).astype(np.float32)
    w2 = rng.normal(0, np.sqrt(1 / WIDTH), (DEPTH, WIDTH, WIDTH)).astype(np.float32)
    saved = []
    for block in range(DEPTH):
        if position == "pre":
            normalised, mean, rstd = pyreg.layer_norm_forward(x)
            hidden = np.maximum(normalised @ w1[block], 0)
            saved.append((normalised, hidden, x, mean, rstd))
            x = x + hidden @ w2[block]
        else:
            hidden = np.maximum(x @ w1[block], 0)
            z = x + hidden @ w2[block]
            normalised, mean, rstd = pyreg.layer_norm_forward(z)
            saved.append((x, hidden, z, mean, rstd))
            x = normalised
    # The model ends on a normalised x: Post-LN does already, Pre-LN has one LayerNorm more.
    if position == "pre":
        _, mean, rstd = pyreg.layer_norm_forward(x)
    dx = rng.normal(size=x.shape).astype(np.float32) / WIDTH**0.5
    if position == "pre":
        dx, _, _ = pyreg.layer_norm_backward(dx, x, mean, rstd)
    norms = []
    for block in reversed(range(DEPTH)):
        inputs, hidden, normalised_from, mean, rstd = saved[block]
        if position == "post":
            dx, _, _ = pyreg.layer_norm_backward(dx, normalised_from, mean, rstd)
        dhidden = (dx @ w2[block].T) * (hidden > 0)
        norms.append(np.linalg.norm(inputs.T @ dhidden))
        dinputs = dhidden @ w1[block].T
        if position == "pre":
            dinputs, _, _ = pyreg.layer_norm_backward(dinputs, normalised_from, mean, rstd)
        dx = dx + dinputs
    return norms[::-1]


figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
blocks = np.arange(1, DEPTH + 1)
for position, label, color in (("post", "Post-LN", "#D55E00"), ("pre", "Pre-LN", "#0072B2")):
    runs = [weight_gradients(position, np.random.default_rng(seed)) for seed in range(8)]
    norms = np.mean(runs, axis=0)
    axes.plot(blocks, norms, label=label, color=color)
root = 1 / np.sqrt(blocks + 1)
axes.plot(blocks, root * norms.mean() / root.mean(), "k:", label="∝ 1 / √(block + 1)")
axes.set(xlabel="block, from the input to the output", ylabel="norm of the gradient of w1", ylim=(0, None))
axes.grid(alpha=0.3)
axes.legend()
