"""Steps of the optimiser classes: beside PyTorch's and beside the functions, parameters left out, and copies."""

import copy
import math
import pickle

import numpy as np
import pytest
from bits import assert_same_bits
from cases import SIXTEEN_BIT
from optimizer_runs import (
    KINDS,
    both_twins,
    each_kind,
    everything,
    gradients,
    made,
    model,
)
from test_bad_input import refuses

import pyreg

F32, F64 = np.float32, np.float64


# --- beside PyTorch


@each_kind
def test_200_steps_are_pytorchs(kind, dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    name, options = KINDS[kind]
    ours = model(dtype)
    theirs = {key: torch.tensor(array.copy()).requires_grad_() for key, array in ours.items()}
    first, second = (list(ours)[:3], list(ours)[3:])

    def groups(params):
        return [
            {"params": [params[key] for key in first]},
            {"params": [params[key] for key in second], "lr": 0.003, "weight_decay": 0.0},
        ]

    optimizer = getattr(pyreg, name)(groups(ours), lr=0.01, **options)
    other = getattr(torch.optim, name)(groups(theirs), lr=0.01, **options)
    for step in range(1, 201):
        grads = gradients(rng, dtype, 10.0 if step % 7 == 0 else 0.1)
        if step % 3 == 0:
            grads |= dict.fromkeys(rng.choice(list(grads), 2))  # None
        for key, their in theirs.items():
            their.grad = None if grads[key] is None else torch.tensor(grads[key])
        other.param_groups[0]["lr"] = pyreg.warmup_cosine(step, 0.01, warmup=20, total=200)
        norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        other.step()
        optimizer.param_groups[0]["lr"] = other.param_groups[0]["lr"]
        mine = optimizer.step(list(grads.values()), max_norm=1.0)
        assert mine == pytest.approx(float(norm), rel=10 * float(np.finfo(dtype).eps))
    # float64: 200 roundings of numbers of size 1. float32: a rounding error each of 200 steps, at most.
    tolerance = 1e-12 if dtype == F64 else 200 * np.finfo(F32).eps
    for key, their in theirs.items():
        np.testing.assert_allclose(ours[key], their.detach().numpy(), rtol=tolerance, atol=tolerance, err_msg=key)
    assert not np.array_equal(ours["bias"], model(dtype)["bias"])


# --- beside the functions


@both_twins
@pytest.mark.parametrize("state", [F32, *SIXTEEN_BIT[1:]])
def test_a_step_has_the_bits_of_the_functions(twin, state):
    rng = np.random.default_rng(0)
    params, expected = list(model(F32).values()), list(model(F32).values())
    copies, others = ([np.zeros_like(param, np.float16) for param in params] for _ in range(2))
    averages = [param.copy() for param in params]
    moments = [[np.zeros_like(param, state) for param in params] for _ in range(3)]
    options = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1, "maximize": True}
    options |= {"bias_correction": False, "ema_decay": 0.9}
    optimizer = twin.AdamW(params, **options, amsgrad=True, state_dtype=state, param_out=copies)
    for step in range(1, 4):
        grads = list(gradients(rng, F32).values())
        scale = 0.5 * pyreg.clip_coefficient(pyreg.global_norm(grads) * 0.5, 1.0)
        assert optimizer.step(grads, grad_scale=0.5, max_norm=1.0) == pyreg.global_norm(grads) * 0.5
        *needed, largest = moments
        pyreg.adamw_update(
            expected, grads, *needed, step=step, max_exp_avg_sq=largest, grad_scale=scale, ema=averages,
            param_out=others, **options,
        )  # fmt: skip
    assert_same_bits(tuple(params), tuple(expected))
    assert_same_bits(tuple(copies), tuple(others))
    assert_same_bits(tuple(optimizer.ema.values()), tuple(averages))
    for role, arrays in zip(("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), moments, strict=True):
        assert_same_bits(tuple(of_one[role] for of_one in optimizer.state.values()), tuple(arrays))


@each_kind
def test_the_twins_take_steps_of_the_same_bits(kind, dtype):
    runs = []
    for twin in (pyreg, pyreg.reference):
        rng = np.random.default_rng(1)
        optimizer = made(twin, kind, dtype, ema_decay=0.9)
        for step in range(5):
            grads = gradients(rng, dtype)
            optimizer.step(grads | ({"scalar": None} if step == 2 else {}), max_norm=1.0, skip_nonfinite=True)
        runs.append(everything(optimizer))
    assert runs[0] == runs[1]


def test_float64_has_states_of_float64_and_16_bits_of_float32():
    for dtype in (F64, F32, *SIXTEEN_BIT):
        optimizer = pyreg.AdamW({"w": np.ones(3, dtype)}, ema_decay=0.9)
        wanted = F64 if dtype == F64 else F32
        assert {array.dtype for array in (*optimizer.state["w"].values(), optimizer.ema["w"])} == {np.dtype(wanted)}
    pytest.importorskip("ml_dtypes")
    states = pyreg.AdamW([np.ones(3, F32)], state_dtype="bfloat16").state[0]
    assert {array.dtype.name for array in states.values()} == {"bfloat16"}
    refuses(TypeError, lambda: pyreg.AdamW({"w": np.ones(3)}, state_dtype="bfloat16"), "state_dtype", "params['w']")
    for half in (np.float16, np.dtype(np.float16), "float16"):
        refuses(TypeError, lambda half=half: pyreg.SGD([np.ones(3)], state_dtype=half), "state_dtype", "got float16")
    refuses(TypeError, lambda: pyreg.SGD([np.ones(3)], state_dtype="nothing"), "state_dtype", "'nothing'")


def test_states_have_the_layout_of_their_parameter(tmp_path):
    params = [np.ones((3, 5), F32, "F"), np.ones((2, 3, 4), F32).transpose(2, 0, 1)]
    params.append(np.memmap(tmp_path / "map", F32, "w+", shape=(7,)))
    expected = [np.array(param, order="C") for param in params]
    grads = [np.full(param.shape, 0.5, F32) for param in params]
    for arrays in (params, expected):
        optimizer = pyreg.SGD(arrays, momentum=0.9, ema_decay=0.5)
        for _ in range(2):
            optimizer.step(grads)
    assert_same_bits(tuple(map(np.asarray, params)), tuple(expected))


# --- parameters that are left out


@each_kind
def test_a_parameter_left_out_waits_with_its_states_and_count(kind):
    optimizer, alone = made(pyreg, kind, F32), made(pyreg, kind, F32)
    rng = np.random.default_rng(0)
    for step in range(6):
        grads = gradients(rng, F32)
        if step in (0, 3):
            optimizer.step(grads | {"kernel": None})
        else:
            optimizer.step(grads)
            alone.step(dict.fromkeys(grads) | {"kernel": grads["kernel"]})
    assert (optimizer.step_count, alone.step_count) == (6, 4)
    assert_same_bits(optimizer.state["kernel"], alone.state["kernel"])
    assert_same_bits(*(each.param_groups[0]["params"][1] for each in (optimizer, alone)))


def test_a_step_of_nobody_is_counted_and_changes_nothing():
    optimizer = made(pyreg, "AdamW", F32)
    before = everything(optimizer)
    assert optimizer.step(dict.fromkeys(model(F32)), max_norm=1.0) == 0
    assert optimizer.step_count == 1
    optimizer.step_count = 0
    assert everything(optimizer) == before


@both_twins
@each_kind
def test_a_norm_that_is_not_finite_is_skipped(twin, kind, dtype):
    optimizer = made(twin, kind, dtype)
    grads = gradients(np.random.default_rng(0), dtype)
    optimizer.step(grads)
    before = everything(optimizer)
    largest = float(np.finfo(dtype).max)
    for value in (np.nan, np.inf, -np.inf, 0.9 * largest):
        bad = grads | {"kernel": np.full_like(grads["kernel"], value)}
        for options in ({}, {"max_norm": 1.0}):
            norm = optimizer.step(bad, skip_nonfinite=True, **options)
            assert math.isnan(norm) if math.isnan(value) else norm == math.inf
            assert everything(optimizer) == before
    bad["kernel"][...] = 1e20  # its square is beyond float32, but the norm is not
    assert optimizer.step(bad, skip_nonfinite=True, max_norm=1.0) == pyreg.global_norm(bad.values())
    assert optimizer.step_count == 2


@both_twins
def test_clipping_makes_nan_of_an_infinite_gradient(twin):
    params = [np.ones(2), np.ones(2)]
    grads = [np.array([np.inf, 0.5]), np.full(2, 0.5)]
    optimizer = twin.SGD(params, lr=0.5)
    assert optimizer.step(grads, max_norm=1.0, skip_nonfinite=True) == math.inf
    np.testing.assert_array_equal(params, np.ones((2, 2)))
    assert optimizer.step(grads, max_norm=1.0) == math.inf
    np.testing.assert_array_equal(params, [[np.nan, 1], [1, 1]])


def test_lr_stands_for_one_step_of_all_groups():
    params = [np.ones(2), np.ones(2)]
    optimizer = pyreg.SGD([{"params": params[:1], "lr": 0.5}, {"params": params[1:]}], lr=0.25)
    optimizer.step([np.ones(2)] * 2, lr=0.125)
    assert [param[0] for param in params] == [0.875, 0.875]
    optimizer.step([np.ones(2)] * 2)
    assert [param[0] for param in params] == [0.375, 0.625]


def test_options_written_into_param_groups_count_from_the_next_step_on():
    params = [np.ones(2), np.ones(2)]
    optimizer = pyreg.SGD([{"params": params[:1]}, {"params": params[1:]}], lr=0.5)
    optimizer.param_groups[1]["lr"] = np.array(0.25)
    optimizer.step([np.ones(2)] * 2)
    assert [param[0] for param in params] == [0.5, 0.75]
    for group in optimizer.param_groups:
        group["momentum"] = 0.5
    optimizer.step([np.ones(2)] * 2)  # the buffers begin here
    optimizer.step([np.zeros(2)] * 2)
    assert [param[0] for param in params] == [-0.25, 0.375]
    del optimizer.param_groups[0]["lr"]
    refuses(ValueError, lambda: optimizer.step([np.ones(2)] * 2), "param_groups[0]", "'lr'")
    optimizer.param_groups[0]["lr"] = 0.5
    optimizer.param_groups[0]["params"] = (np.ones(2),)
    refuses(ValueError, lambda: optimizer.step([np.ones(2)] * 2), "add_param_group")


# --- copies of an optimiser


def through_pickle(optimizer):
    return pickle.loads(pickle.dumps(optimizer))


def shallow(optimizer):
    """A copy of one that shares its arrays with nobody else."""
    return copy.copy(copy.deepcopy(optimizer))


@both_twins
@each_kind
@pytest.mark.parametrize("copied", [through_pickle, copy.deepcopy, shallow])
def test_a_copy_resumes_to_the_same_bits(twin, kind, copied):
    rng = np.random.default_rng(0)
    optimizer = made(twin, kind, F32, ema_decay=0.9)
    for step in range(3):
        optimizer.step(gradients(rng, F32) | ({"bias": None} if step == 1 else {}))
    other = copied(optimizer)
    before = everything(optimizer)
    assert type(other) is type(optimizer)
    assert everything(other) == before
    rest = [gradients(rng, F32) for _ in range(3)]
    for grads in rest:
        other.step(grads)
    assert everything(optimizer) == before  # it has arrays, options and counts of its own
    for grads in rest:
        optimizer.step(grads)
    assert everything(other) == everything(optimizer)


def test_a_shallow_copy_has_its_own_options_and_counts():
    optimizer = made(pyreg, "AdamW", F32)
    other = copy.copy(optimizer)
    other.param_groups[0]["lr"] = 7.0
    other.step(gradients(np.random.default_rng(0), F32))
    assert optimizer.param_groups[0]["lr"] != 7.0
    assert (optimizer.step_count, optimizer._steps.any()) == (0, False)
    assert np.shares_memory(other.state["bias"]["exp_avg"], optimizer.state["bias"]["exp_avg"])


def test_groups_that_are_added_to_a_copy_are_its_own():
    a, b, c, d = (np.ones(2, F32) for _ in range(4))
    optimizer = pyreg.SGD([a], lr=1.0)
    other = copy.copy(optimizer)
    other.add_param_group({"params": [b], "lr": 0.5})
    optimizer.add_param_group({"params": [c]})
    optimizer.add_param_group({"params": [d], "lr": 0.25})
    optimizer.step([np.ones(2, F32)] * 3)
    np.testing.assert_array_equal([a, b, c, d], [[0, 0], [1, 1], [0, 0], [0.75, 0.75]])


def test_an_array_that_has_changed_since_the_last_step_is_looked_at_again():
    param, grad = np.ones(100, F32), np.ones(100, F32)
    optimizer = pyreg.SGD([param], lr=0.5)
    optimizer.step([grad])
    assert (param == 0.5).all()
    param.flags.writeable = False
    refuses(ValueError, lambda: optimizer.step([grad]), "params[0]", "read-only")
    assert (param == 0.5).all()
    param.flags.writeable = True
    optimizer.step([grad])
    assert (param == 0).all()
    param.shape = grad.shape = (10, 10)  # the same elements
    optimizer.step([grad])
    assert (param == -0.5).all()
    param.resize(4, refcheck=False)
    refuses(ValueError, lambda: optimizer.step([grad]), "grads[0]")


def test_states_keep_their_memory():
    optimizer = pyreg.Adam([np.ones(100, F32)])
    with pytest.raises(ValueError, match="own"):
        optimizer.state[0]["exp_avg"].resize(1, refcheck=False)


def test_a_gradient_that_shares_memory_with_a_parameter_is_refused():
    memory = np.ones((4, 100), F32)
    optimizer = pyreg.SGD([memory[0], memory[2]], lr=0.5)
    optimizer.step([memory[1], memory[3]])
    before = memory.copy()
    for grads in ([memory[1], memory[0]], [memory[2], memory[3]], [memory.reshape(-1)[250:350], memory[3]]):
        refuses(ValueError, lambda grads=grads: optimizer.step(grads), "overlap")
        assert_same_bits(memory, before)
    optimizer.step([memory[1], memory[1]])  # gradients may share with each other
    assert optimizer.step_count == 2


def test_gradients_of_some_rows(impl):
    table, other = np.zeros((50, 8), F32), np.ones(3, F32)
    twin, states = table.copy(), [np.zeros((50, 8), F32) for _ in range(2)]
    optimizer = impl.AdamW({"table": table, "other": other}, lr=0.1)
    rng = np.random.default_rng(0)
    for step in range(1, 6):
        ids, dy = rng.integers(0, 50, 20), rng.normal(size=(20, 8)).astype(F32)
        sparse = impl.sum_duplicate_rows(ids, dy)
        norm = optimizer.step({"other": np.ones(3, F32), "table": sparse}, max_norm=100.0)
        assert norm == impl.global_norm([sparse.grad, np.ones(3, F32)])
        impl.adamw_update(twin, sparse.grad, *states, step=step, lr=0.1, rows=sparse.rows)
        assert_same_bits(table, twin)
    flat = sparse._replace(rows=sparse.rows[None])
    hint = "rows['table'].ravel() and grads['table'].reshape(-1, *grads['table'].shape[2:])"
    refuses(ValueError, lambda: optimizer.step({"other": np.ones(3, F32), "table": flat}), hint)
    wrong = sparse._replace(rows=sparse.rows + 50)
    before, kept = other.copy(), optimizer.state["table"]["exp_avg"].copy()
    refuses(ValueError, lambda: optimizer.step({"other": np.ones(3, F32), "table": wrong}), "50")
    assert_same_bits((table, other, optimizer.state["table"]["exp_avg"]), (twin, before, kept))
    assert optimizer.step_count == 5


@pytest.mark.parametrize("copied", [lambda o: o, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o)), copy.copy])
def test_states_of_copies_keep_their_memory(copied):
    optimizer = copied(pyreg.Adam([np.ones(100, F32)], ema_decay=0.5))
    optimizer.step([np.ones(100, F32)])
    for array in (*optimizer.state[0].values(), optimizer.ema[0]):
        with pytest.raises(ValueError, match="own"):
            array.resize(1, refcheck=False)
    optimizer.step([np.ones(100, F32)])


def resized(array):
    array.resize(4, refcheck=False)


def retyped(array):
    array.dtype = np.int32


def read_only(array):
    array.flags.writeable = False


@pytest.mark.parametrize("change", [resized, retyped, read_only])
@pytest.mark.parametrize("which", ["param", "param_out"])
@pytest.mark.parametrize("subclass", [False, True])
def test_an_array_that_no_longer_fits_is_refused_and_nothing_changes(change, which, subclass):
    class Own(np.ndarray):
        pass

    kind = Own if subclass else np.ndarray
    arrays = {name: kind((100,), F32) for name in ("param", "param_out")}
    arrays["param"][:], grad = 1, np.ones(100, F32)
    optimizer = pyreg.AdamW([arrays["param"]], param_out=[arrays["param_out"]])
    optimizer.step([grad])
    change(arrays[which])
    before = [arrays["param"].tobytes(), arrays["param_out"].tobytes(), optimizer.state[0]["exp_avg"].tobytes()]
    with pytest.raises((TypeError, ValueError), match=r"param|grads"):
        optimizer.step([grad])
    after = [arrays["param"].tobytes(), arrays["param_out"].tobytes(), optimizer.state[0]["exp_avg"].tobytes()]
    assert after == before
    assert optimizer.step_count == 1


def test_a_momentum_buffer_whose_first_gradient_has_some_rows_is_zero_elsewhere(impl, monkeypatch):
    empty_like = np.empty_like
    monkeypatch.setattr(np, "empty_like", lambda *a, **k: np.full_like(empty_like(*a, **k), np.nan))
    param = np.ones((4, 2), F32)
    optimizer = impl.SGD([param], lr=0.5, momentum=0.5)
    optimizer.step([impl.sum_duplicate_rows(np.array([1]), np.ones((1, 2), F32))])
    np.testing.assert_array_equal(optimizer.state[0]["momentum_buffer"][:, 0], [0, 1, 0, 0])
    optimizer.step([np.zeros((4, 2), F32)])
    np.testing.assert_array_equal(param[:, 0], [1, 0.25, 1, 1])


def test_an_interrupted_step_leaves_nothing_behind(monkeypatch):
    param, grad = np.ones(3), np.ones(3)
    optimizer = pyreg.SGD([param], lr=0.5, ema_decay=0.5)
    optimizer.step([grad])
    optimizer.param_groups[0]["ema_decay"] = None
    prepare = pyreg._core.prepare

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pyreg._core, "prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step([grad])
    monkeypatch.setattr(pyreg._core, "prepare", prepare)
    ema = optimizer.ema[0].copy()
    optimizer.step([grad])
    np.testing.assert_array_equal(optimizer.ema[0], ema)
    np.testing.assert_array_equal(param, 0)


def test_options_under_other_keys_are_noticed():
    param = np.ones(2)
    optimizer = pyreg.AdamW([param], lr=0.1, weight_decay=0.5, eps=0.0)
    optimizer.step([np.zeros(2)])
    group = optimizer.param_groups[0]
    exchanged = {"lr": "weight_decay", "weight_decay": "lr"}
    optimizer.param_groups[0] = {exchanged.get(key, key): value for key, value in group.items()}
    optimizer.step([np.zeros(2)])
    np.testing.assert_allclose(param, (1 - 0.05) * (1 - 0.05), rtol=1e-15)
    optimizer.param_groups[0]["typo"] = optimizer.param_groups[0].pop("lr")
    refuses(ValueError, lambda: optimizer.step([np.zeros(2)]), "typo")


def test_an_infinite_max_norm_gives_the_norm_alone(impl):
    param = np.ones(2)
    assert impl.SGD([param], lr=0.5).step([np.array([3.0, 4.0])], max_norm=np.inf) == 5
    np.testing.assert_array_equal(param, [-0.5, -1])


@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD"])
def test_the_core_reads_gradients_of_any_dtype_beside_prepared_arrays(name):
    low = SIXTEEN_BIT[-1]
    rng = np.random.default_rng(0)
    shapes = [(3, 5), (100,), (70_001,)]
    for param_dtype, grad_dtype, copies in ((F32, low, True), (low, F32, False), (F64, F64, False)):
        params = [rng.normal(size=shape).astype(param_dtype) for shape in shapes]
        outs = [np.zeros(shape, low) for shape in shapes] if copies else None
        twins = [param.copy() for param in params], [out.copy() for out in outs] if copies else None
        options = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(pyreg, name)(params, lr=0.1, param_out=outs, **options)
        twin = getattr(pyreg.reference, name)(twins[0], lr=0.1, param_out=twins[1], **options)
        for _ in range(3):
            grads = [rng.normal(size=shape).astype(grad_dtype) for shape in shapes]
            optimizer.step(grads)
            twin.step(grads)
        assert optimizer._prepared.core is not None
        assert twin._prepared.core is None
        assert_same_bits((*params, *(outs or [])), (*twins[0], *(twins[1] or [])))


def test_an_array_like_gradient_is_read_once():
    class Once:
        readings = 0

        def __array__(self, dtype=None, copy=None):
            self.readings += 1
            assert self.readings == 1
            return np.ones(3)

    params = [np.ones(3), np.ones(3)]
    optimizer = pyreg.SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.5}], lr=0.5)
    optimizer.step([Once(), Once()], max_norm=100.0)
    np.testing.assert_array_equal(params, 0.5)
