"""The largest error of float32 LayerNorm against the mean of the rows, for three ways to compute the variance."""

import numpy as np
from matplotlib import pyplot as plt

import pyreg


def one_pass(x):
    """The variance as E[x^2] - E[x]^2."""
    mean = x.mean(axis=1, keepdims=True)
    variance = (x * x).mean(axis=1, keepdims=True) - mean * mean
    return (x - mean) / np.sqrt(np.maximum(variance, 0) + np.float32(1e-5))


def two_passes(x):
    """The mean first, rounded to x's dtype, then the variance from the deviations."""
    deviation = x - x.mean(axis=1, keepdims=True)
    return deviation / np.sqrt((deviation * deviation).mean(axis=1, keepdims=True) + np.float32(1e-5))


noise = np.random.default_rng(0).normal(size=(256, 768))
means = np.logspace(0, 6, 25)
ways = {
    "E[x²] - E[x]²": (one_pass, "#D55E00"),
    "two passes": (two_passes, "#E69F00"),
    "pyreg": (pyreg.layer_norm, "#0072B2"),
}

_, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for label, (normalise, color) in ways.items():
    errors = []
    for mean in means:
        x = (noise + mean).astype(np.float32)
        # In double precision, from the float32 numbers: the error of rounding the input does not count.
        exact = two_passes(x.astype(np.float64))
        errors.append(np.abs(normalise(x) - exact).max())
    axes.loglog(means, errors, label=label, color=color)
axes.set(xlabel="mean of the rows (their standard deviation is 1)", ylabel="largest error of y")
axes.grid(alpha=0.3)
axes.legend()
