"""A Transformer encoder that classifies sequences, with its backward written by hand.

The encoder of Vaswani et al., "Attention is all you need", 2017, on NumPy and pyreg alone: an
input projection, a learned position embedding, blocks of attention and feed-forward, an average
over the tokens, a linear classifier.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from transformer_init import init_params
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

Labels = npt.NDArray[np.integer[Any]]


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
