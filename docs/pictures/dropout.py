"""A mask and a slice of it, and what dropout does to the output of a linear unit."""

import math

import numpy as np
from matplotlib import pyplot as plt

import pyreg

KEY, P, OFFSET = 2, 0.3, 12 * 32
_, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.2), width_ratios=(1, 1.6), layout="constrained")

mask = pyreg.dropout_mask((32, 32), P, key=KEY)
left.imshow(mask, cmap="gray", vmin=-0.4, vmax=1)
part = pyreg.dropout_mask((8, 32), P, key=KEY, offset=OFFSET)
left.imshow(
    np.where(part, 0.15, 0.6), cmap="Blues", vmin=0, vmax=1, extent=(-0.5, 31.5, 19.5, 11.5), interpolation="nearest"
)
left.set(title=f"p = {P}, key = {KEY}", xticks=(0, 31), yticks=(0, 12, 19, 31), xlim=(-0.5, 31.5))
left.text(32.3, 15.5, f"offset={OFFSET}", va="center", color="#0072B2", rotation=270)

rng = np.random.default_rng(0)
x, w = rng.normal(size=(2, 256))
clean = x @ w
edges = np.linspace(clean - 60, clean + 60, 81)
for p, color in ((0.1, "#0072B2"), (0.5, "#D55E00")):
    # Each row is one draw: it has its own places in the stream.
    outputs = pyreg.dropout(np.broadcast_to(x, (20_000, x.size)), p, key=KEY) @ w
    right.hist(outputs, edges, density=True, color=color, alpha=0.5, label=f"p = {p}")
    deviation = math.sqrt(p / (1 - p) * ((w * x) ** 2).sum())
    normal = np.exp(-(((edges - clean) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))
    right.plot(edges, normal, color=color, label="normal")
right.axvline(clean, color="black", linewidth=1, linestyle="--", label="no dropout")
right.set(xlabel="w · dropout(x)", yticks=())
right.legend()
