"""bench/run.py: wrong answers of softmax and the activations, with dropout behind them, are refused."""

import numpy as np
import pytest
import run_numpy
import run_ops_activation_dropout
import run_ops_softmax_dropout
import run_pyreg
from run_ops import OPS, WrongAnswer


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
            case.check(run_pyreg.gelu_dropout_forward(other)())


@pytest.mark.parametrize(
    "title",
    ["softmax_dropout_backward p=0.1", *(f"{name}_dropout_backward p=0.1" for name in ("gelu", "silu", "relu"))],
)
def test_one_wrong_entry_of_a_gradient_is_refused(title):
    case = OPS[title]((3, 37))
    answer = getattr(run_pyreg, case.name)(case)()
    parts = [np.array(a) for a in (answer if isinstance(answer, tuple) else (answer,))]
    for part in parts:
        right = part.flat[-1]
        for wrong in (right + 1e-3 * np.abs(part).max(), np.nan):
            part.flat[-1] = wrong
            with pytest.raises(WrongAnswer, match="is off by"):
                case.check(tuple(parts) if isinstance(answer, tuple) else part)
        part.flat[-1] = right


@pytest.mark.parametrize("title", [*run_ops_softmax_dropout.OPS, *run_ops_activation_dropout.OPS])
def test_other_bits_at_either_end_are_refused(title):
    case = OPS[title]((900, 37))  # more than the first and the last rows that are compared
    answer = getattr(run_pyreg, case.name)(case)()
    result = answer[0] if isinstance(answer, tuple) else answer
    case.check_bits(answer)
    for place in (0, -1):
        right = result.flat[place]
        result.flat[place] = np.nextafter(right, np.float32(9))
        with pytest.raises(WrongAnswer, match=r"differs from pyreg\.reference"):
            case.check_bits(answer)
        result.flat[place] = right
