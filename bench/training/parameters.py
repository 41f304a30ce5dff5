"""The parameters of the Transformer, by name, and which of them decay."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import pyreg

from .layers import Config, Params


def init_params(config: Config, rng: np.random.Generator) -> Params:
    """Draw the parameters, in an order that does not depend on whether LayerNorm is on.

    Weights are (in, out), from N(0, 1 / in), which keeps the variance from layer to layer.
    """
    c = config.d_model
    params: Params = {}

    def linear(name: str, fan_in: int, fan_out: int) -> None:
        params[f"{name}.weight"] = rng.normal(0, 1 / math.sqrt(fan_in), (fan_in, fan_out))
        params[f"{name}.bias"] = np.zeros(fan_out)

    def norm(name: str) -> None:
        if config.layer_norm:
            params[f"{name}.weight"] = np.ones(c)
            params[f"{name}.bias"] = np.zeros(c)

    linear("input", config.input_size, c)
    params["position_embedding"] = rng.normal(0, 0.02, (config.num_tokens, c))
    for i in range(config.num_layers):
        linear(f"blocks.{i}.attention.qkv", c, 3 * c)
        linear(f"blocks.{i}.attention.proj", c, c)
        norm(f"blocks.{i}.attention.norm")
        linear(f"blocks.{i}.feed_forward.fc1", c, config.d_ff)
        linear(f"blocks.{i}.feed_forward.fc2", config.d_ff, c)
        norm(f"blocks.{i}.feed_forward.norm")
    # Pre-LN never normalises the residual stream, so there is one more norm at its end.
    if config.norm_position == "pre":
        norm("final_norm")
    linear("classifier", c, config.num_classes)
    return {name: array.astype(config.dtype) for name, array in params.items()}


def decays(name: str) -> bool:
    """Tell whether weight decay applies to the parameter of this name.

    It does to the matrices of linear maps. It does not to biases, to LayerNorm's weight (whose
    neutral value is 1, not 0) and bias, nor to the position embedding, which like a bias is added.
    (`pyreg.decay_matrices_only` would let the embedding decay, because it has two axes.)
    """
    return name.endswith(".weight") and "norm." not in name


def decay_groups(params: Params, weight_decay: float) -> list[dict[str, Any]]:
    """Return the groups for an optimiser: the parameters that decay, and the others."""
    return [
        {
            "params": {name: param for name, param in params.items() if decays(name) == decaying},
            "weight_decay": weight_decay if decaying else 0.0,
        }
        for decaying in (True, False)
    ]


def weight_norm(params: Params) -> float:
    """Return the L2 norm of the parameters that decay."""
    return pyreg.global_norm(param for name, param in params.items() if decays(name))
