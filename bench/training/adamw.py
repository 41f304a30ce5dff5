"""AdamW over a model's parameters, by way of `pyreg.adamw_update`."""

from __future__ import annotations

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
        decayed = [name for name in params if decays(name)]
        others = [name for name in params if not decays(name)]
        self.groups = [(decayed, weight_decay), (others, 0.0)]
        self.exp_avg = {name: np.zeros_like(p) for name, p in params.items()}
        self.exp_avg_sq = {name: np.zeros_like(p) for name, p in params.items()}
        self.step = 0

    def update(self, grads: Params, lr: float) -> None:
        """Take one step against the gradients."""
        self.step += 1
        for names, weight_decay in self.groups:
            arrays = ([of[name] for name in names] for of in (self.params, grads, self.exp_avg, self.exp_avg_sq))
            pyreg.adamw_update(*arrays, step=self.step, lr=lr, weight_decay=weight_decay)

    def weight_norm(self) -> float:
        """Return the L2 norm of the group that decays."""
        return pyreg.global_norm(param for name, param in self.params.items() if decays(name))
