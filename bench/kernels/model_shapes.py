"""The shapes of whole models' parameters."""

from __future__ import annotations

from pyreg._cases import Shape


def gpt2(layers: int = 12, width: int = 768, tokens: int = 50257, positions: int = 1024) -> list[Shape]:
    """Return the shapes of GPT-2 (Radford et al., 2019); the defaults are those of the small model."""
    norm: list[Shape] = [(width,), (width,)]
    attention: list[Shape] = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    feed_forward: list[Shape] = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    layer = norm + attention + norm + feed_forward
    return [(tokens, width), (positions, width), *layers * layer, *norm]


# CHGNet 0.3.0 (Deng et al., 2023), a graph network for crystals: how many tensors have each shape.
CHGNET: list[tuple[int, Shape]] = [
    (1, (94, 64)),
    (2, (31,)),
    (4, (64, 31)),
    (1, (15,)),
    (8, (64, 192)),
    (10, (64, 256)),
    (24, (64, 64)),
    (73, (64,)),
    (2, (1, 64)),
    (2, (1,)),
]

MODELS: dict[str, list[Shape]] = {
    "GPT-2 small": gpt2(),
    "CHGNet": [shape for count, shape in CHGNET for _ in range(count)],
    "1,000 x 100": [(100,)] * 1000,
}
