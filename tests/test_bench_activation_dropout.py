"""bench/run.py: wrong answers of softmax and the activations, with dropout behind them, are refused."""

import numpy as np
import pytest
import run_numpy
import run_pyreg
from run_case import WrongAnswer
from run_ops import OPS


@pytest.mark.parametrize(
    "title", ["softmax_dropout_forward p=0.1", "gelu_dropout_forward p=0.1 tanh", "relu_dropout_forward p=0.1"]
)
def test_wrong_values_and_too_few_dropped_are_refused(title):
    case = OPS[title]((30, 37))
    y = np.array(getattr(run_numpy, case.name)(case)()).reshape(case.shape)  # also of a tuple of one
    kept = np.abs(y) > np.abs(y).max() / 1000

    def check(y):
        case.check((y,) if title.startswith("softmax") else y)

    check(y)
    with pytest.raises(WrongAnswer, match="is off by"):
        check(y * np.float32(0.9))  # not scaled up
    with pytest.raises(WrongAnswer, match="is off by"):
        check(np.where(kept, np.nan, y))
    full = case.prob if title.startswith("softmax") else case.value
    with pytest.raises(WrongAnswer, match=r"100\.00% were kept"):
        check(full / np.float32(0.9))


def test_gelu_is_not_taken_for_its_approximation():
    exact, tanh = (OPS[f"gelu_dropout_forward p=0.1{title}"]((30, 37)) for title in ("", " tanh"))
    for case, other in ((exact, tanh), (tanh, exact)):
        with pytest.raises(WrongAnswer, match="is off by"):
            case.check(run_pyreg.public_call(other)())


@pytest.mark.parametrize(
    "title",
    ["softmax_dropout_backward p=0.1", *(f"{name}_dropout_backward p=0.1" for name in ("gelu", "silu", "relu"))],
)
def test_one_wrong_entry_of_a_gradient_is_refused(title):
    case = OPS[title]((3, 37))
    answer = run_pyreg.public_call(case)()
    parts = [np.array(a) for a in (answer if isinstance(answer, tuple) else (answer,))]
    for part in parts:
        right = part.flat[-1]
        for wrong in (right + 1e-3 * np.abs(part).max(), np.nan):
            part.flat[-1] = wrong
            with pytest.raises(WrongAnswer, match="is off by"):
                case.check(tuple(parts) if isinstance(answer, tuple) else part)
        part.flat[-1] = right
