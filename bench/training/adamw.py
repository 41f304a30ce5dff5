"""AdamW over a model's parameters, by way of `pyreg.adamw_update`."""

from __future__ import annotations

import math

import numpy as np

import pyreg

from .layers import Params


def decays(name: str) -> bool:
    """Tell whether weight decay applies to the parameter of this name.

    It does to the matrices of linear maps. It does not to biases, to LayerNorm's weight (whose
    neutral value is 1, not 0) and bias, nor to the position embedding, which like a bias is added.
    """
    return name.endswith(".weight") and "norm." not in name


class AdamW:
    """AdamW (Loshchilov & Hutter, 2019) over a model's parameters, which `update` changes in place.

    `weight_decay` is for the group that decays (see `decays`); the other group's is 0.
    """

    def __init__(self, params: Params, weight_decay: float) -> None:
        self.params = params
        self.weight_decay = {name: weight_decay if decays(name) else 0.0 for name in params}
        self.exp_avg = {name: np.zeros_like(p) for name, p in params.items()}
        self.exp_avg_sq = {name: np.zeros_like(p) for name, p in params.items()}
        self.step = 0

    def update(self, grads: Params, lr: float) -> None:
        """Take one step against the gradients."""
        self.step += 1
        for name, param in self.params.items():
            pyreg.adamw_update(
                param,
                grads[name],
                self.exp_avg[name],
                self.exp_avg_sq[name],
                step=self.step,
                lr=lr,
                weight_decay=self.weight_decay[name],
            )

    def weight_norm(self) -> float:
        """Return the L2 norm of the group that decays."""
        weights = [param for name, param in self.params.items() if decays(name)]
        # The penalty is weight_decay / 2 * sum(p**2): with 2 it is the squared norm.
        return math.sqrt(pyreg.l2_penalty(weights, 2.0))
