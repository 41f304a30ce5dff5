"""bench/train_step.py: training with pyreg and with PyTorch is the same, and a difference would be seen."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from console import WrongAnswer
from training import steps, turns, unfused
from training.layers import Config
from training.losses import FLOAT64_BOUND, check, float32_bound
from training.steps import PyregTrainer
from training.turns import Turn

import pyreg

SCRIPT = Path(__file__).parents[1] / "bench" / "train_step.py"
STEPS = 100


def small_config(dtype, **changes):
    sizes = {"input_size": 6, "num_tokens": 5, "num_classes": 4, "d_model": 16, "num_heads": 2, "d_ff": 24}
    return Config(**sizes, num_layers=2, dropout=0.1, dtype=dtype, **changes)


def batches(config):
    """Images whose label is the token that is bright, for every step."""
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        labels = rng.integers(config.num_classes, size=16)
        x = rng.normal(0, 0.3, (16, config.num_tokens, config.input_size)).astype(np.float32)
        x[np.arange(16), labels] += 2
        yield x.astype(config.dtype), labels


def losses(trainer_class, config):
    trainer = trainer_class(config, list(batches(config)))
    result = []
    for _ in range(STEPS):
        trainer.prepare()
        result.append(trainer.step())
    return np.array(result)


@pytest.fixture
def torch_trainer(monkeypatch):
    """PyTorch's trainer, on one thread, so that its sums have one order; at a rate that gets far in 100 steps."""
    monkeypatch.setattr(steps, "LR", 0.005)
    torch = pytest.importorskip("torch")
    from training.torch_model import TorchTrainer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TorchTrainer
    torch.set_num_threads(threads)


CHANGES = [{"norm_position": "pre"}, {"norm_position": "post"}, {"layer_norm": False}]


@pytest.mark.parametrize("changes", CHANGES, ids=["pre", "post", "identity"])
def test_losses_over_100_steps_are_as_near_to_pytorchs_as_rounding_lets_them(torch_trainer, changes):
    ours = losses(PyregTrainer, small_config(np.float32, **changes))
    exact = losses(PyregTrainer, small_config(np.float64, **changes))
    theirs = losses(torch_trainer, small_config(np.float32, **changes))
    bound = float32_bound(ours, exact)
    assert bound < 1e-3  # it follows from what rounding does, which must not have got out of hand
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=bound)
    assert ours[-10:].mean() < ours[:10].mean()


@pytest.mark.parametrize("changes", CHANGES, ids=["pre", "post", "identity"])
def test_losses_over_100_steps_are_pytorchs_in_float64(torch_trainer, changes):
    config = small_config(np.float64, **changes)
    np.testing.assert_allclose(
        losses(torch_trainer, config), losses(PyregTrainer, config), rtol=0, atol=FLOAT64_BOUND
    )


def turns_of(**losses):
    return {way.replace("_", " "): [Turn(pair, 0.0, {})] for way, pair in losses.items()}


GOOD = {
    "fused": (2.0, 1.0),
    "unfused": (2.0, 1.0),
    "float64": (2.0 + 2e-7, 1.0),
    "masks_given": (2.0 + 4e-7, 1.0),
    "PyTorch_float64": (2.0 + 2e-7, 1.0 + 1e-15),
}


def test_losses_that_agree_are_taken():
    found = check(turns_of(**GOOD), same_bits=True)
    assert found.torch == pytest.approx(4e-7)
    assert 100 * 2e-7 < found.bound < 3e-5
    without = {way: pair for way, pair in GOOD.items() if way in ("fused", "unfused", "float64")}
    assert check(turns_of(**without), same_bits=True).torch is None


@pytest.mark.parametrize(
    ("way", "pair"),
    [
        ("unfused", (2.0, 1.0 + 1e-7)),
        ("masks_given", (2.0, 1.0 + 3e-5)),
        ("masks_given", (2.0, np.nan)),
        ("PyTorch_float64", (2.0 + 2e-7, 1.0 + 1e-9)),
    ],
)
def test_losses_that_do_not_agree_are_refused(way, pair):
    with pytest.raises(WrongAnswer):
        check(turns_of(**(GOOD | {way: pair})), same_bits=True)


def test_other_parameters_are_refused():
    with pytest.raises(WrongAnswer, match="same bits"):
        check(turns_of(**GOOD), same_bits=False)


@pytest.mark.parametrize("functions", [pyreg, unfused], ids=lambda module: module.__name__)
def test_the_time_in_a_function_counts_once(functions, monkeypatch):
    for module in turns.MODULES:
        for name in dir(module):
            if name.startswith(turns.PARTS):
                monkeypatch.setattr(module, name, getattr(module, name))  # to be restored after the test
    now = iter(range(10**6))
    monkeypatch.setattr(turns.time, "perf_counter", lambda: next(now))
    seconds = Counter()
    turns.record_parts(seconds)
    config = small_config(np.float32, functions=functions)
    PyregTrainer(config, list(batches(config))).step()
    # A call is a second of this clock. Forward and backward: 4 norms are fused, and the first one stands alone.
    expected = {"softmax_dropout": 4, "gelu_dropout": 4, "dropout_add_layer_norm": 8, "layer_norm": 2}
    assert seconds.pop("adamw_update") == 2  # one for the parameters that decay, one for the others
    assert seconds == expected


def test_quick_run_compares_and_reports():
    for module in ("scipy", "sklearn", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)
    command = [sys.executable, SCRIPT, "--quick", "--steps", "4", "--threads", str(len(os.sched_getaffinity(0)))]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    for row in ("a training step", "softmax_dropout", "adamw_update", "fused and unfused"):
        assert row in run.stdout
    assert "PyTorch, masks given, and fused" in run.stdout or "PyTorch cannot be imported" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--steps", "7"], "odd"), (["--steps", "2"], "out of range"), (["--threads", "0"], "out of range")],
)
def test_bad_flags_are_refused_before_anything_is_trained(arguments, message, capsys):
    for module in ("scipy", "sklearn", "threadpoolctl", "tqdm"):
        pytest.importorskip(module)
    import train_step

    with pytest.raises(SystemExit, match="2"):
        train_step.parse_args(arguments)
    assert message in capsys.readouterr().err
