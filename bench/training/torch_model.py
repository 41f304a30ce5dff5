"""The Transformer of model.py in PyTorch, with autograd: the same parameters, the same masks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import pyreg

from . import steps
from .layers import Config
from .model import Transformer
from .operations import dropout_sites
from .parameters import decay_groups
from .runs import learning_rate
from .steps import KEY, WEIGHT_DECAY, Batches, start_model

Drop = Callable[[Tensor], Tensor]


class TorchTransformer:
    """The twin of a `Transformer`, from a copy of its parameters, by the same names."""

    def __init__(self, model: Transformer) -> None:
        self.config = model.config
        self.params = {name: torch.tensor(p, requires_grad=True) for name, p in model.params.items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        # PyTorch's weights are (out, in).
        return F.linear(x, self.params[f"{name}.weight"].T, self.params[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        if not self.config.layer_norm:
            return x
        return F.layer_norm(x, x.shape[-1:], self.params[f"{name}.weight"], self.params[f"{name}.bias"])

    def attention(self, prefix: str, x: Tensor, drop: Drop) -> Tensor:
        b, t, c = x.shape
        d = c // self.config.num_heads
        q, k, v = self.linear(f"{prefix}.qkv", x).view(b, t, 3, self.config.num_heads, d).permute(2, 0, 3, 1, 4)
        prob = F.softmax(q @ k.transpose(-1, -2) * d**-0.5, dim=-1)
        heads = drop(prob) @ v
        return self.linear(f"{prefix}.proj", heads.transpose(1, 2).reshape(b, t, c))

    def feed_forward(self, prefix: str, x: Tensor, drop: Drop) -> Tensor:
        return self.linear(f"{prefix}.fc2", drop(F.gelu(self.linear(f"{prefix}.fc1", x))))

    def loss(self, x: Tensor, labels: Tensor, drop: Drop) -> Tensor:
        """Return the mean cross-entropy; `drop` does dropout, and is called in the order of the masks."""
        pre = self.config.norm_position == "pre"
        h = self.linear("input", x) + self.params["position_embedding"]
        for i in range(self.config.num_layers):
            for name, sublayer in (("attention", self.attention), ("feed_forward", self.feed_forward)):
                prefix = f"blocks.{i}.{name}"
                if pre:
                    h = h + drop(sublayer(prefix, self.norm(f"{prefix}.norm", h), drop))
                else:
                    h = self.norm(f"{prefix}.norm", h + drop(sublayer(prefix, h, drop)))
        if pre:
            h = self.norm("final_norm", h)
        return F.cross_entropy(self.linear("classifier", h.mean(dim=1)), labels)


def given_masks(config: Config, batch_size: int, key: int) -> list[Tensor]:
    """Return pyreg's masks for the key of a step, times their scale, in the order of the model."""
    b, t, c = batch_size, config.num_tokens, config.d_model
    branch = (b, t, c)
    shapes = [(b, config.num_heads, t, t), branch, (b, t, config.d_ff), branch] * config.num_layers
    sublayers = range(len(shapes) // 2)
    sites = [site for sublayer in sublayers for site in dropout_sites(key, sublayer, config.dropout)]
    # Dropout of ones: the mask times its scale.
    ones = (np.ones(shape, config.dtype) for shape in shapes)
    masks = (pyreg.dropout(x, **site.of(x)) for x, site in zip(ones, sites, strict=True))
    return [torch.from_numpy(mask) for mask in masks]


class TorchTrainer:
    """A training in PyTorch, step by step: the same as `steps.PyregTrainer` with the same arguments.

    With `own_masks`, dropout is PyTorch's, and not the same.
    """

    def __init__(self, config: Config, batches: Batches, own_masks: bool = False) -> None:
        self.model = TorchTransformer(start_model(config))
        groups = decay_groups(self.model.params, WEIGHT_DECAY)
        by_place = [group | {"params": list(group["params"].values())} for group in groups]
        self.optimizer = torch.optim.AdamW(by_place, fused=True)
        self.batches = [(torch.from_numpy(x), torch.from_numpy(labels)) for x, labels in batches]
        self.own_masks = own_masks
        self.drop: Drop = partial(F.dropout, p=config.dropout)
        self.steps_done = 0

    def prepare(self) -> None:
        """Get the masks of the next step ready."""
        if not self.own_masks:
            batch_size = len(self.batches[self.steps_done][0])
            masks = iter(given_masks(self.model.config, batch_size, pyreg.fold_in(KEY, self.steps_done + 1)))
            self.drop = lambda x: x * next(masks)

    def step(self) -> float:
        """Take a step: forward, backward, update. Return the loss."""
        x, labels = self.batches[self.steps_done]
        self.steps_done += 1
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps_done, len(self.batches), steps.LR)
        self.optimizer.zero_grad()
        loss = self.model.loss(x, labels, self.drop)
        loss.backward()
        self.optimizer.step()
        return loss.item()
