"""A Transformer encoder that classifies sequences, with its backward written by hand.

The encoder of Vaswani et al., "Attention is all you need", 2017, on NumPy and pyreg alone: an
input projection, a learned position embedding, blocks of attention and feed-forward, an average
over the tokens, a linear classifier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from transformer_layers import (
    SUBLAYERS,
    Config,
    Params,
    ResidualSaved,
    residual_backward,
    residual_forward,
)
from transformer_ops import (
    Array,
    DropoutStream,
    NormSaved,
    cross_entropy_backward,
    cross_entropy_forward,
    linear_backward,
    linear_forward,
    mean_pool_backward,
    mean_pool_forward,
    norm_backward,
    norm_forward,
)

import pyreg

Labels = npt.NDArray[np.integer[Any]]


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
    # Pre-LN leaves the residual stream itself without a norm: one at its end makes up for that.
    if config.norm_position == "pre":
        norm("final_norm")
    linear("classifier", c, config.num_classes)
    return {name: array.astype(config.dtype) for name, array in params.items()}


class Saved(NamedTuple):
    """What the model's backward needs from its forward."""

    x: Array
    sublayers: list[ResidualSaved]
    final_norm: NormSaved | None
    pooled: Array
    log_prob: Array
    labels: Labels


class Transformer:
    """The model: its parameters, and the loss forward and backward.

    Parameters
    ----------
    config : Config
        Sizes, dropout, and whether and where to use LayerNorm.
    rng : numpy.random.Generator
        Draws the initial parameters.

    Attributes
    ----------
    params : dict of str to ndarray
        Every parameter by its dotted name. An optimiser updates them in place.
    """

    def __init__(self, config: Config, rng: np.random.Generator) -> None:
        self.config = config
        self.params = init_params(config, rng)

    def sublayers(self) -> Iterator[tuple[str, str, Params]]:
        """Yield each sublayer's kind, its prefix, and its parameters by the rest of their names."""
        for i in range(self.config.num_layers):
            for kind in SUBLAYERS:
                prefix = f"blocks.{i}.{kind}."
                inside = [name for name in self.params if name.startswith(prefix)]
                yield kind, prefix, {n.removeprefix(prefix): self.params[n] for n in inside}

    def forward(self, x: Array, labels: Labels, stream: DropoutStream) -> tuple[float, Saved]:
        """Return the mean cross-entropy of `labels` and what backward needs.

        Parameters
        ----------
        x : ndarray of (B, T, input_size)
        labels : integer ndarray of (B,)
        stream : DropoutStream
            Where the dropout masks come from.
        """
        w = self.params
        h = linear_forward(x, w["input.weight"], w["input.bias"]) + w["position_embedding"]
        sublayers = []
        for kind, _, inside in self.sublayers():
            h, saved = residual_forward(kind, h, inside, self.config, stream)
            sublayers.append(saved)
        h, final = norm_forward(h, w.get("final_norm.weight"), w.get("final_norm.bias"))
        pooled = mean_pool_forward(h)
        logits = linear_forward(pooled, w["classifier.weight"], w["classifier.bias"])
        loss, log_prob = cross_entropy_forward(logits, labels)
        return loss, Saved(x, sublayers, final, pooled, log_prob, labels)

    def backward(self, s: Saved) -> Params:
        """Return the gradient of the loss for every parameter, by the same names."""
        w, grads = self.params, {}
        dlogits = cross_entropy_backward(s.log_prob, s.labels)
        dpooled, grads["classifier.weight"], grads["classifier.bias"] = linear_backward(
            dlogits, s.pooled, w["classifier.weight"]
        )
        dh = mean_pool_backward(dpooled, self.config.num_tokens)
        dh, dweight, dbias = norm_backward(dh, s.final_norm, w.get("final_norm.weight"))
        if dweight is not None and dbias is not None:
            grads["final_norm.weight"], grads["final_norm.bias"] = dweight, dbias
        steps = zip(self.sublayers(), s.sublayers, strict=True)
        for (kind, prefix, inside), saved in reversed(list(steps)):
            dh, dinside = residual_backward(kind, dh, saved, inside, self.config)
            grads |= {prefix + name: grad for name, grad in dinside.items()}
        # One embedding for the whole batch: its gradient is the sum over the images.
        grads["position_embedding"] = dh.sum(axis=0)
        _, grads["input.weight"], grads["input.bias"] = linear_backward(dh, s.x, w["input.weight"])
        return grads

    def evaluate(self, x: Array, labels: Labels, batch_size: int = 128) -> tuple[float, float]:
        """Return loss and accuracy in inference, where nothing is dropped.

        The images go through in batches, small enough for a core's cache.
        """
        inference = DropoutStream(key=0, training=False)
        loss = correct = 0.0
        for start in range(0, len(labels), batch_size):
            batch = slice(start, start + batch_size)
            batch_loss, saved = self.forward(x[batch], labels[batch], inference)
            loss += batch_loss * len(labels[batch])
            correct += int((saved.log_prob.argmax(axis=-1) == labels[batch]).sum())
        return loss / len(labels), correct / len(labels)


def decays(name: str) -> bool:
    """Tell whether weight decay applies to the parameter of this name.

    It does to the matrices of linear maps. It does not to biases, to LayerNorm's weight (whose
    neutral value is 1, not 0) and bias, nor to the position embedding, which like a bias is added.
    """
    return name.endswith(".weight") and "norm." not in name


class AdamW:
    """AdamW (Loshchilov & Hutter, 2019) over a model's parameters, with two groups: see `decays`.

    Parameters
    ----------
    params : dict of str to ndarray
        Updated in place by `update`.
    weight_decay : float
        For the group that decays; the other group's is 0.
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
