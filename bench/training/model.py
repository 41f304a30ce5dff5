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

from .layers import SUBLAYERS, Config, JoinSaved, Params, join_backward, join_forward
from .operations import (
    Array,
    NormSaved,
    cross_entropy_backward,
    cross_entropy_forward,
    dropout_sites,
    linear_backward,
    linear_forward,
    mean_pool_backward,
    mean_pool_forward,
    norm_backward,
    norm_forward,
)
from .parameters import init_params

Labels = npt.NDArray[np.integer[Any]]

FIRST_NORM = "blocks.0.attention.norm"  # Pre-LN's; no sublayer comes before it


class Sublayer(NamedTuple):
    """One of the model's sublayers."""

    kind: str  # of SUBLAYERS
    prefix: str  # of its parameters' names
    params: Params  # by the rest of their names
    norm: str | None  # of the norm behind it


class Saved(NamedTuple):
    """What the model's backward needs from its forward."""

    x: Array
    first_norm: NormSaved | None
    sublayers: list[tuple[Any, JoinSaved]]
    pooled: Array
    log_prob: Array
    labels: Labels


class Transformer:
    """The model: its parameters, and the loss forward and backward.

    A sublayer reads y, and its branch is added to the residual; z is the sum, and y is z normalised. In Pre-LN, the
    next residual is z, so gradients reach every block without passing a norm, and start out even across depth (Xiong
    et al., 2020). In Post-LN, as in Vaswani et al., it is y.

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
        self.pre_norm = config.layer_norm and config.norm_position == "pre"
        self.sublayers = list(self._sublayers())

    def _sublayers(self) -> Iterator[Sublayer]:
        prefixes = [f"blocks.{i}.{kind}." for i in range(self.config.num_layers) for kind in SUBLAYERS]
        norms: list[str | None] = [prefix + "norm" for prefix in prefixes]
        if self.pre_norm:
            norms = [*norms[1:], "final_norm"]  # the next sublayer's
        elif not self.config.layer_norm:
            norms = [None] * len(norms)
        for prefix, norm in zip(prefixes, norms, strict=True):
            inside = [name for name in self.params if name.startswith(prefix)]
            params = {name.removeprefix(prefix): self.params[name] for name in inside}
            yield Sublayer(prefix.split(".")[-2], prefix, params, norm)

    def norm(self, name: str | None) -> tuple[Array, Array] | None:
        """Return the norm's weight and bias."""
        return None if name is None else (self.params[f"{name}.weight"], self.params[f"{name}.bias"])

    def forward(self, x: Array, labels: Labels, key: int | None, first: int = 0) -> tuple[float, Saved]:
        """Return the mean cross-entropy of `labels` and what backward needs.

        Parameters
        ----------
        x : ndarray of (B, T, input_size)
        labels : integer ndarray of (B,)
        key : int or None
            The key of the step, from which the keys of the dropout masks are made. A block has four masks: on the
            attention's weights, its branch, the activation of the feed-forward sublayer, its branch. None in
            inference, where nothing is dropped.
        first : int
            The place of the first image in the batch, if this is a part of one.
        """
        w = self.params
        y = residual = linear_forward(x, w["input.weight"], w["input.bias"]) + w["position_embedding"]
        first_norm = None
        if self.pre_norm:
            y, first_norm = norm_forward(residual, *self.norm(FIRST_NORM))
        sublayers = []
        for number, (kind, _, inside, norm) in enumerate(self.sublayers):
            forward, _ = SUBLAYERS[kind]
            inside_site, branch_site = dropout_sites(key, number, self.config.dropout, first)
            branch, inner = forward(y, inside, self.config, inside_site)
            y, z, join = join_forward(branch, residual, self.norm(norm), self.config, branch_site)
            residual = z if self.pre_norm else y
            sublayers.append((inner, join))
        pooled = mean_pool_forward(y)
        logits = linear_forward(pooled, w["classifier.weight"], w["classifier.bias"])
        loss, log_prob = cross_entropy_forward(logits, labels)
        return loss, Saved(x, first_norm, sublayers, pooled, log_prob, labels)

    def backward(self, s: Saved, batch_size: int | None = None) -> Params:
        """Return the gradient of the loss for every parameter, by the same names.

        `batch_size` is that of the whole batch, if this is a part: the gradients of all parts add up to those of the
        mean over the batch.
        """
        w, grads = self.params, {}
        dlogits = cross_entropy_backward(s.log_prob, s.labels, batch_size or len(s.labels))
        dpooled, grads["classifier.weight"], grads["classifier.bias"] = linear_backward(
            dlogits, s.pooled, w["classifier.weight"]
        )
        dy, dz = mean_pool_backward(dpooled, self.config.num_tokens), None
        for (kind, prefix, inside, norm), (inner, join) in zip(
            reversed(self.sublayers), reversed(s.sublayers), strict=True
        ):
            _, backward = SUBLAYERS[kind]
            dbranch, dresidual, dweight, dbias = join_backward(dy, dz, join, w.get(f"{norm}.weight"), self.config)
            if norm is not None:
                grads[f"{norm}.weight"], grads[f"{norm}.bias"] = dweight, dbias
            dinside: Params = {}
            dy = backward(dbranch, inner, inside, self.config, dinside)
            grads |= {prefix + name: grad for name, grad in dinside.items()}
            if self.pre_norm:
                dz = dresidual
            else:
                dy += dresidual  # the residual was y
        if self.pre_norm:
            dy, grads[f"{FIRST_NORM}.weight"], grads[f"{FIRST_NORM}.bias"] = norm_backward(
                dy, s.first_norm, w[f"{FIRST_NORM}.weight"]
            )
            dy += dz
        # One embedding for the whole batch: its gradient is the sum over the images.
        grads["position_embedding"] = dy.sum(axis=0)
        _, grads["input.weight"], grads["input.bias"] = linear_backward(dy, s.x, w["input.weight"])
        return grads

    def evaluate(self, x: Array, labels: Labels, batch_size: int = 128) -> tuple[float, float]:
        """Return loss and accuracy in inference, where nothing is dropped.

        The images go through in batches, small enough for a core's cache.
        """
        loss = correct = 0.0
        for start in range(0, len(labels), batch_size):
            batch = slice(start, start + batch_size)
            batch_loss, saved = self.forward(x[batch], labels[batch], key=None)
            loss += batch_loss * len(labels[batch])
            correct += int((saved.log_prob.argmax(axis=-1) == labels[batch]).sum())
        return loss / len(labels), correct / len(labels)
