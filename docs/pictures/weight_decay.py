"""How weights of 1 decay if their gradients are only noise, with coupled and decoupled decay."""

import numpy as np
from matplotlib import pyplot as plt

import pyreg

STEPS, LR, WEIGHT_DECAY = 2000, 1e-3, 0.5
SCALES = {0.01: "#009E73", 1.0: "#0072B2", 100.0: "#D55E00"}

_, panels = plt.subplots(1, 2, figsize=(7.6, 3.2), sharey=True, layout="constrained")
for axes, update in zip(panels, (pyreg.adam_update, pyreg.adamw_update), strict=True):
    for scale, color in SCALES.items():
        rng = np.random.default_rng(0)
        param = np.ones(4000)
        exp_avg, exp_avg_sq = np.zeros_like(param), np.zeros_like(param)
        means = []
        for step in range(1, STEPS + 1):
            means.append(param.mean())
            grad = rng.normal(0, scale, param.shape)
            update(param, grad, exp_avg, exp_avg_sq, step=step, lr=LR, weight_decay=WEIGHT_DECAY)
        axes.plot(means, color=color, label=f"gradients of size {scale:g}")
    axes.plot((1 - LR * WEIGHT_DECAY) ** np.arange(STEPS), "k:", linewidth=2, label="(1 - lr · weight_decay)$^t$")
    axes.set(title=update.__name__, xlabel="step")
    axes.grid(alpha=0.3)
panels[0].set(ylabel="mean weight")
panels[1].legend()
