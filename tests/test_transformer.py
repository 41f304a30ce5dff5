"""bench/training/: the gradient of the whole model, and what its parts promise."""

from collections import Counter

import numpy as np
import pytest
from bits import assert_same_bits
from test_gradients import finite_differences
from training import runs, unfused
from training.layers import Config
from training.model import Transformer
from training.parameters import decay_groups, decays, weight_norm

import pyreg

KEY = 2024


def tiny_config(**changes):
    """A model of a few hundred parameters, every size different so that no two can be mixed up."""
    sizes = {"input_size": 5, "num_tokens": 3, "num_classes": 4, "d_model": 6, "d_ff": 7}
    return Config(**(sizes | {"num_heads": 2, "num_layers": 2, "dtype": np.float64} | changes))


def tiny_model(**changes):
    model = Transformer(tiny_config(**changes), np.random.default_rng(1))
    # Biases and norms start at 0 and 1, where mistakes cancel: move every parameter off.
    rng = np.random.default_rng(2)
    for param in model.params.values():
        param += rng.normal(0, 0.1, param.shape)
    return model


def tiny_batch(config, size=3):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(size, config.num_tokens, config.input_size)).astype(config.dtype)
    return x, rng.integers(config.num_classes, size=size)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("layer_norm", [True, False], ids=["norm", "identity"])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_every_entry_of_the_gradient_equals_finite_differences(norm_position, layer_norm, dropout):
    model = tiny_model(norm_position=norm_position, layer_norm=layer_norm, dropout=dropout)
    x, labels = tiny_batch(model.config)

    def forward():
        return model.forward(x, labels, KEY)  # the same masks every time

    _, saved = forward()
    grads = model.backward(saved)
    assert grads.keys() == model.params.keys()
    for name, param in model.params.items():
        expected = finite_differences(lambda: forward()[0], param, h=6e-6)  # near eps**(1/3), their best step
        # Both errors of central differences, h**2 and eps / h, are near 4e-11 here, and the
        # largest entry of every array is above 1e-3: 1e-6 leaves room for a large third
        # derivative, and a wrong term in a backward is off by far more.
        scale = np.abs(expected).max()
        assert scale > 1e-3, f"{name}: too small a gradient to tell anything"
        np.testing.assert_allclose(grads[name], expected, rtol=0, atol=1e-6 * scale, err_msg=name)


def test_gradient_is_that_of_the_masks_drawn_in_forward():
    model = tiny_model(dropout=0.5)
    x, labels = tiny_batch(model.config)
    _, saved = model.forward(x, labels, KEY)
    grads = model.backward(saved)
    model.forward(x, labels, KEY + 1)  # between them, another forward changes nothing
    for name, again in model.backward(saved).items():
        np.testing.assert_array_equal(again, grads[name], err_msg=name)


def several_steps(steps=5, **changes):
    """Train for some steps; return every loss, and the last gradients and parameters."""
    # Float32, where rounding shows, and 90 rows: more than one of the blocks in which gradients are summed.
    model = tiny_model(num_tokens=9, dropout=0.3, dtype=np.float32, **changes)
    optimizer = pyreg.AdamW(decay_groups(model.params, 0.1))
    x, labels = tiny_batch(model.config, size=10)
    losses = []
    for step in range(steps):
        loss, saved = model.forward(x, labels, KEY + step)
        grads = model.backward(saved)
        optimizer.step(grads, lr=0.01)
        losses.append(loss)
    return np.array(losses), grads, model.params


@pytest.mark.parametrize(
    "changes",
    [{"norm_position": "pre"}, {"norm_position": "post"}, {"layer_norm": False}],
    ids=["pre", "post", "identity"],
)
def test_fused_and_separate_functions_train_to_the_same_bits(changes):
    fused_losses, *fused = several_steps(**changes)
    losses, *separate = several_steps(functions=unfused, **changes)
    assert_same_bits(losses, fused_losses)
    assert len(set(losses)) == len(losses)
    for ours, theirs in zip(separate, fused, strict=True):
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            assert_same_bits(array, theirs[name], name)


def test_inference_drops_nothing_and_repeats_its_bits():
    dropping = tiny_model(dropout=0.5)
    plain = tiny_model(dropout=0.0)
    x, labels = tiny_batch(dropping.config, size=20)
    result = dropping.evaluate(x, labels)
    assert result == dropping.evaluate(x, labels)
    assert result == plain.evaluate(x, labels)
    trained, _ = dropping.forward(x, labels, KEY)
    assert trained != result[0]


def test_evaluation_in_batches_is_the_mean_over_all_images():
    model = tiny_model()
    x, labels = tiny_batch(model.config, size=20)
    whole = model.evaluate(x, labels, batch_size=20)
    # 20 = 2 * 7 + 6: the last batch is smaller. The sum is reordered, hence a few eps.
    np.testing.assert_allclose(model.evaluate(x, labels, batch_size=7), whole, rtol=1e-14)


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_decay_takes_the_matrices_and_leaves_biases_norms_and_positions(norm_position):
    model = tiny_model(norm_position=norm_position)
    kept = {name for name in model.params if not decays(name)}
    matrices = ("input", "classifier", "qkv", "proj", "fc1", "fc2")
    assert kept == {
        name
        for name in model.params
        if name == "position_embedding" or not name.endswith(tuple(f"{m}.weight" for m in matrices))
    }

    # The same in effect: with gradients of 0, an update does nothing but decay.
    before = {name: param.copy() for name, param in model.params.items()}
    norm = weight_norm(model.params)
    optimizer = pyreg.AdamW(decay_groups(model.params, 0.5))
    optimizer.step({name: np.zeros_like(p) for name, p in model.params.items()}, lr=0.1)
    assert weight_norm(model.params) == pytest.approx(0.95 * norm, rel=1e-14)
    for name, param in model.params.items():
        factor = 1.0 if name in kept else 0.95
        np.testing.assert_allclose(param, factor * before[name], rtol=1e-14, err_msg=name)


def test_identity_in_place_of_layer_norm_has_no_parameters_and_the_same_start():
    normed, plain = (Transformer(tiny_config(layer_norm=on), np.random.default_rng(1)) for on in (True, False))
    assert not any("norm" in name for name in plain.params)
    for name, param in plain.params.items():
        np.testing.assert_array_equal(param, normed.params[name], err_msg=name)


def training_run(**changes):
    """A short run on images whose label is the row that is bright; return history and model."""
    rng = np.random.default_rng(4)
    labels = rng.integers(4, size=60)
    x = rng.normal(0, 0.3, (60, 4, 5)).astype(np.float32)
    x[np.arange(60), labels] += 1
    split = runs.Split(x[:40], labels[:40], x[40:], labels[40:])
    settings = runs.Settings(
        norm_position="pre",
        train_size=40,
        epochs=25,
        lr=0.01,
        weight_decay=0.1,
        dropout=0.1,
        num_layers=2,
        d_model=8,
    )
    config = tiny_config(num_tokens=4, d_model=8, dtype=np.float32, dropout=0.1, **changes)
    model = Transformer(config, np.random.default_rng(5))
    optimizer = pyreg.AdamW(decay_groups(model.params, settings.weight_decay))
    history = runs.fit(model, optimizer, split, settings, np.random.default_rng(6))
    return history, model


@pytest.mark.parametrize("layer_norm", [True, False], ids=["norm", "identity"])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_training_lowers_the_loss_and_keeps_float32(norm_position, layer_norm):
    history, model = training_run(norm_position=norm_position, layer_norm=layer_norm)
    loss = history.values[:, runs.MEASURES.index("train_loss")]
    assert history.epochs[0] == 0
    assert history.epochs[-1] == 25
    assert loss[-1] < 0.8 * loss[0]
    assert {param.dtype for param in model.params.values()} == {np.dtype(np.float32)}


def test_every_dropout_mask_of_a_run_has_a_key_of_its_own(monkeypatch):
    drawn, dropout = Counter(), pyreg.dropout

    def recording(x, p, *, key, offset, out=None):
        if p > 0:
            drawn[key] += 1
        return dropout(x, p, key=key, offset=offset, out=out)

    monkeypatch.setattr(pyreg, "dropout", recording)
    _, model = training_run(functions=unfused)  # where every mask is a call of its own
    # 25 epochs of 2 steps; 4 sites a block: attention weights, feed-forward activation, and both residual branches.
    assert len(drawn) == 25 * 2 * 4 * model.config.num_layers
    assert set(drawn.values()) == {2}  # forward and backward


def test_training_twice_gives_the_same_bits():
    (first, model), (second, again) = training_run(), training_run()
    np.testing.assert_array_equal(first.values, second.values)
    for name, param in model.params.items():
        np.testing.assert_array_equal(param, again.params[name], err_msg=name)


def test_learning_rate_warms_up_to_its_peak_then_falls():
    rates = [runs.learning_rate(step, 100, peak=0.5) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.05 * step for step in range(1, 11)])
    assert max(rates) == rates[9] == 0.5
    assert rates[9:] == sorted(set(rates[9:]), reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert runs.learning_rate(1, 1, peak=0.5) == 0.5
