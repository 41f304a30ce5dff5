"""Checkpoints of the optimiser classes: the same bits after a resume, and what is refused."""

from functools import partial

import numpy as np
import pytest
from bits import assert_same_bits
from cases import SIXTEEN_BIT
from optimizer_runs import (
    after_steps,
    both_twins,
    each_kind,
    everything,
    gradients,
    in_a_file,
    made,
    refused_and_unchanged,
    with_parameters_of,
)
from test_bad_input import refuses

import pyreg

F32, F64 = np.float32, np.float64


# --- a run that is cut and resumed


@both_twins
@each_kind
@pytest.mark.parametrize("store", [dict, in_a_file])
def test_a_resumed_run_has_the_same_bits(twin, kind, store, dtype):
    options = {"ema_decay": 0.9, "key": 2**64 - 1}
    optimizer, rng = after_steps(twin, kind, dtype, 3, **options)
    optimizer.param_groups[1]["lr"] = 0.05
    resumed = with_parameters_of(made(twin, kind, dtype, **options | {"key": 1, "lr": 7.0}), optimizer)
    resumed.load_state_dict(store(optimizer.state_dict()))
    assert everything(resumed) == everything(optimizer)
    for _ in range(3):
        grads = gradients(rng, dtype)
        assert optimizer.step(grads, max_norm=1.0) == resumed.step(grads, max_norm=1.0)
    assert everything(resumed) == everything(optimizer)


def test_a_state_is_loaded_in_place_over_another():
    optimizer, _ = after_steps(pyreg, "SGD nesterov", F32, 3)
    other, _ = after_steps(pyreg, "SGD nesterov", F32, 5)
    arrays = [other.state[name]["momentum_buffer"] for name in other.state]
    with_parameters_of(other, optimizer).load_state_dict(optimizer.state_dict())
    assert everything(other) == everything(optimizer)
    assert all(other.state[name]["momentum_buffer"] is array for name, array in zip(other.state, arrays, strict=True))
    fresh = with_parameters_of(made(pyreg, "SGD nesterov", F32), optimizer)
    other.load_state_dict(fresh.state_dict())  # without buffers
    assert everything(other) == everything(fresh)


@pytest.mark.parametrize("dtype", SIXTEEN_BIT)
def test_states_of_bfloat16_survive_numpys_files(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    options = {"state_dtype": ml_dtypes.bfloat16, "ema_decay": 0.9}
    for kind in ("AdamW amsgrad", "SGD momentum"):
        optimizer, rng = after_steps(pyreg, kind, dtype, 3, **options)
        resumed = with_parameters_of(made(pyreg, kind, dtype, **options), optimizer)
        resumed.load_state_dict(in_a_file(optimizer.state_dict()))
        grads = gradients(rng, dtype)
        optimizer.step(grads)
        resumed.step(grads)
        assert everything(resumed) == everything(optimizer)
        role = "exp_avg" if kind == "AdamW amsgrad" else "momentum_buffer"
        state = resumed.state_dict()
        assert (state[f"bias.{role}"].dtype, str(state[f"bias.{role}.dtype"])) == (np.uint16, "bfloat16")


def test_a_state_of_another_state_dtype_is_refused_with_the_one_to_pass():
    pytest.importorskip("ml_dtypes")
    for kind, role in (("AdamW", "exp_avg"), ("SGD momentum", "momentum_buffer")):
        low, high = (after_steps(pyreg, kind, F32, 2, state_dtype=dtype)[0] for dtype in ("bfloat16", None))
        for ours, state, own, came in (
            (high, low.state_dict(), "float32", "bfloat16 (as its bits)"),
            (low, high.state_dict(), "bfloat16 (as its bits)", "float32"),
        ):
            wanted = f"state['matrix.{role}'] must be {own}, got {came}; "
            hint = f"pass state_dtype='{came.split()[0]}' to the constructor"
            refused_and_unchanged(ours, partial(ours.load_state_dict, state), wanted + hint, error=TypeError)
            refused_and_unchanged(ours, partial(ours.load_state_dict, in_a_file(state)), wanted + hint)
        wide = made(pyreg, kind, F64)  # whose states cannot be bfloat16
        message = refuses(TypeError, partial(wide.load_state_dict, low.state_dict()), "float64, got bfloat16")
        assert "state_dtype" not in message
        bits_alone = {name: array for name, array in low.state_dict().items() if not name.endswith(".dtype")}
        refused_and_unchanged(low, partial(low.load_state_dict, bits_alone), f"entry 'matrix.{role}.dtype'")


def test_names_of_any_characters_keep_their_states():
    names = ["a", "a.exp_avg", "a.exp_avg.dtype", "a.step", "", ".", "/", "../x", "é", "雪", "a\0", "a\0b"]
    names += [
        "%0;",
        "\\",
        "\ud800",
        "step_count",
        "key",
        "file",
        "param_groups[0]",
        "x.npy",
        " ",
        "a b",
        "\n",
        0,
        10,
        "01",
    ]
    ours, others = ({name: np.full(2, i, F64) for i, name in enumerate(names)} for _ in range(2))
    optimizer, resumed = pyreg.AdamW(ours, lr=0.1), pyreg.AdamW(others, lr=0.1)
    for step in range(2):
        optimizer.step({name: np.full(2, i + step, F64) for i, name in enumerate(names)})
    with_parameters_of(resumed, optimizer).load_state_dict(in_a_file(optimizer.state_dict()))
    assert everything(resumed) == everything(optimizer)


def test_a_state_has_copies():
    optimizer, _ = after_steps(pyreg, "AdamW", F32, 2)
    state = optimizer.state_dict()
    before = everything(optimizer)
    for array in state.values():
        if array.dtype.kind in "fiu":
            array[...] = 1
    for of_one in optimizer.to_torch_state_dict()["state"].values():
        of_one["exp_avg"][...] = 1
    assert everything(optimizer) == before


# --- states that are refused


def spoilt(entry, array):
    """Arrays that are wrong in place of this one."""
    yield None
    yield "text"
    yield array.tolist()
    yield np.array(array, object)
    yield array[..., None, None]
    yield np.array([array] * 3)
    yield array.astype(np.complex128) if array.dtype.kind in "fiu" else np.array(1.0)
    if array.dtype.kind == "f":
        yield array.astype(np.float16)
    if array.dtype.kind == "i":
        yield array.astype(float)
        yield np.array(-1)
        yield np.array(2**63 - 1)


@pytest.mark.parametrize("kind", ["AdamW amsgrad", "SGD nesterov"])
def test_a_state_with_a_wrong_entry_changes_nothing(kind):
    ours, _ = after_steps(pyreg, kind, F32, 4, ema_decay=0.9, key=3)
    other, _ = after_steps(pyreg, kind, F32, 2, ema_decay=0.9, key=4)
    state = other.state_dict()
    tried = 0
    for entry, array in state.items():
        without = {name: value for name, value in state.items() if name != entry}
        refused_and_unchanged(ours, partial(ours.load_state_dict, without))
        refused_and_unchanged(ours, partial(ours.load_state_dict, in_a_file(without)))
        for wrong in spoilt(entry, array):
            refused_and_unchanged(ours, partial(ours.load_state_dict, state | {entry: wrong}))
            tried += 1
    assert tried > 7 * len(state)
    for entry in ("more", "bias.more", "nobody.exp_avg", "param_groups[2].lr", 3):
        refused_and_unchanged(ours, partial(ours.load_state_dict, state | {entry: np.array(1.0)}), repr(entry))
    ours.load_state_dict(state)


WRONG_NUMBERS = {
    "param_groups[1].lr": [np.nan, -1.0, np.inf],
    "param_groups[0].eps": [-1e-8],
    "param_groups[0].betas": [[0.9, 1.0], [np.nan, 0.9]],
    "param_groups[1].weight_decay": [np.inf],
    "param_groups[0].ema_decay": [[1.0], [-0.5], [np.nan], [0.5, 0.5]],
}


@pytest.mark.parametrize("entry", WRONG_NUMBERS)
def test_a_state_with_a_number_out_of_range_changes_nothing(entry):
    ours, _ = after_steps(pyreg, "AdamW", F32, 4, ema_decay=0.9)
    state = ours.state_dict()
    for value in WRONG_NUMBERS[entry]:
        wrong = state | {entry: np.array(value, F64)}
        refused_and_unchanged(ours, partial(ours.load_state_dict, wrong), entry.split(".")[0], error=ValueError)
    for entry, value, error in (
        ("key", np.array([1, 2], np.uint64), ValueError),
        ("key", np.array([1.0]), TypeError),
        ("bias.step", np.array(-3), ValueError),
        ("optimizer", np.array("Adam"), ValueError),
        ("param_groups[0].amsgrad", np.array(True), ValueError),
    ):
        refused_and_unchanged(ours, partial(ours.load_state_dict, state | {entry: value}), error=error)


def test_a_file_with_pickled_objects_or_cut_short_changes_nothing(tmp_path):
    ours, _ = after_steps(pyreg, "AdamW", F32, 4)
    state = after_steps(pyreg, "AdamW", F32, 2)[0].state_dict()
    objects = in_a_file(state | {"kernel.exp_avg": np.array([{}, []], object)})
    refused_and_unchanged(ours, partial(ours.load_state_dict, objects), "kernel.exp_avg", error=ValueError)
    np.savez(tmp_path / "state.npz", **state)
    whole = (tmp_path / "state.npz").read_bytes()
    begin = whole.index(b"kernel.exp_avg.npy")
    (tmp_path / "state.npz").write_bytes(whole[: begin + 200] + b"\xff" * 8 + whole[begin + 208 :])
    with np.load(tmp_path / "state.npz") as damaged:
        refused_and_unchanged(ours, partial(ours.load_state_dict, damaged), "kernel.exp_avg", error=ValueError)
    refused_and_unchanged(ours, partial(ours.load_state_dict, damaged))  # closed


def test_a_state_of_other_parameters_or_another_class_changes_nothing():
    def optimizer(**shapes):
        return pyreg.AdamW({name: np.ones(shape) for name, shape in shapes.items()})

    ours = optimizer(a=3, b=(2, 2))
    for other, fragment in (
        (optimizer(a=3), "param_groups[0] in their order, got nothing in place of 'b'"),
        (optimizer(b=(2, 2), a=3), "param_groups[0] in their order, got 'b' in place of 'a'"),
        (optimizer(a=3, c=(2, 2)), "param_groups[0] in their order, got 'c' in place of 'b'"),
        (optimizer(a=3, b=(2, 2), c=1), "param_groups[0] in their order, got 'c' after the last"),
        (optimizer(a=3, b=4), "b.exp_avg"),
        (pyreg.Adam({"a": np.ones(3), "b": np.ones((2, 2))}), "AdamW"),
        (pyreg.SGD({"a": np.ones(3), "b": np.ones((2, 2))}), "AdamW"),
        (pyreg.AdamW({"a": np.ones(3), "b": np.ones((2, 2))}, amsgrad=True), "amsgrad"),
        (pyreg.AdamW({"a": np.ones(3), "b": np.ones((2, 2))}, ema_decay=0.5), "ema_decay"),
        (pyreg.AdamW({"a": np.ones(3, F32), "b": np.ones((2, 2), F32)}), "float64"),
        (pyreg.AdamW([{"params": {"a": np.ones(3)}}, {"params": {"b": np.ones((2, 2))}}]), "param_groups[0]"),
    ):
        refused_and_unchanged(ours, partial(ours.load_state_dict, other.state_dict()), fragment)
    for state in (None, [], "state", 3):
        refuses(TypeError, partial(ours.load_state_dict, state), "state")
    pyreg.reference.AdamW({"a": np.ones(3), "b": np.ones((2, 2))}).load_state_dict(ours.state_dict())


def test_a_state_that_cannot_be_overwritten_changes_nothing():
    optimizer = pyreg.Adam([np.ones(3), np.ones(3)])
    optimizer.step([np.ones(3), np.ones(3)])
    state = optimizer.state_dict()
    optimizer.step([np.ones(3), np.ones(3)])
    before = optimizer.state_dict()
    optimizer.state[1]["exp_avg_sq"].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert [after[name].tobytes() for name in before] == [array.tobytes() for array in before.values()]


def test_a_state_of_the_optimisers_own_arrays_is_loaded_as_it_was():
    optimizer = pyreg.Adam([np.ones(3), np.ones(3)])
    optimizer.step([np.ones(3), 2 * np.ones(3)])
    first, second = (optimizer.state[i]["exp_avg"].copy() for i in (0, 1))
    state = optimizer.state_dict()
    state |= {"0.exp_avg": optimizer.state[1]["exp_avg"], "1.exp_avg": optimizer.state[0]["exp_avg"]}
    optimizer.load_state_dict(state)
    assert_same_bits(optimizer.state[0]["exp_avg"], second)
    assert_same_bits(optimizer.state[1]["exp_avg"], first)
