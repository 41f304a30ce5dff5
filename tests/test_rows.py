"""Updates of some rows alone, as of an embedding, and their gradients."""

from functools import partial

import numpy as np
import pytest
from bits import assert_same_bits
from cases import DTYPES, SIXTEEN_BIT, cases_with, isa, on_every_level, reference
from test_bad_input import refuses

import pyreg

F32, F64 = np.float32, np.float64
each_update = cases_with(lambda case: case.updated)


def with_rows(case, arguments, rows):
    return arguments | {"rows": rows, "grad": arguments["grad"][rows]}


@each_update
@pytest.mark.parametrize("shape", [(40, 33), (7,), (500, 2, 65), (9, 5000), (3000, 1)])
def test_these_rows_are_updated_as_rows_alone_and_no_others_change(case, dtype, shape):
    rng = np.random.default_rng(0)
    arguments = case.arguments(shape, dtype)
    for count in {0, 1, shape[0] // 2, shape[0]}:
        rows = rng.permutation(shape[0])[:count]
        given = with_rows(case, arguments, rows)
        alone = given | {name: arguments[name][rows] for name in case.updated} | {"rows": None}
        expected = case.call(pyreg, alone)
        for threads in (1, 3):
            with pyreg.num_threads(threads):
                made = case.call(pyreg, given)
            for name in case.updated:
                whole = arguments[name].copy()
                whole[rows] = expected[name]
                assert_same_bits(made[name], whole, (name, count))
        assert_same_bits(reference(case, given), made)
        for level, of_level in on_every_level(case, given):
            assert_same_bits(of_level, made, level)


@each_update
def test_the_order_of_the_rows_does_not_matter(case, dtype):
    arguments = case.arguments((50, 20), dtype, rounding="stochastic", key=3, offset=7)
    rows = np.random.default_rng(1).permutation(50)[:30]
    expected = case.call(pyreg, with_rows(case, arguments, np.sort(rows)))
    assert_same_bits(case.call(pyreg, with_rows(case, arguments, rows)), expected)
    assert_same_bits(case.call(pyreg, with_rows(case, arguments, rows.astype(np.uint8)[::-1])), expected)


@each_update
def test_their_places_in_the_stream_are_those_of_the_whole_array(case):
    for dtype in SIXTEEN_BIT:
        for shape in ((50, 21), (300,), (5, 3000)):
            arguments = case.arguments(shape, dtype, rounding="stochastic", key=3, offset=7)
            expected = case.call(pyreg, arguments)
            rows = np.arange(shape[0] - 1, 0, -3)
            made = case.call(pyreg, with_rows(case, arguments, rows))
            for name in case.updated:
                assert_same_bits(made[name][rows], expected[name][rows], name)


@each_update
def test_a_list_has_rows_for_some_parameters(case):
    alone = [case.arguments(shape, F32, i) for i, shape in enumerate([(30, 4), (50,), (9, 70)])]
    some = [with_rows(case, alone[0], np.array([3, 1])), alone[1], with_rows(case, alone[2], np.array([8]))]
    expected = [case.call(pyreg, one) for one in some]
    for twin in (pyreg, pyreg.reference):
        for kind in (list, tuple):
            lists = {name: kind(one[name].copy() for one in some) for name in case.arrays}
            rows = kind(one["rows"] for one in some)
            assert getattr(twin, case.name)(**alone[0] | lists | {"rows": rows}) is True
            for i, one in enumerate(expected):
                assert_same_bits({name: lists[name][i] for name in case.updated}, {n: one[n] for n in case.updated})


def test_what_does_not_fit_is_refused():
    param, grad = np.ones((4, 3), F32), np.ones((2, 3), F32)

    def refused(error, *fragments, param=param, grad=grad, rows=(0, 1), twin=pyreg):
        before = param.tobytes()
        message = refuses(error, partial(twin.sgd_update, param, grad, step=1, rows=rows), *fragments)
        assert param.tobytes() == before
        return message

    for twin in (pyreg, pyreg.reference):
        refused(ValueError, "param", "C order", param=param.copy("F"), twin=twin)
        refused(ValueError, "param", "0-d", param=np.ones((), F32), grad=grad, twin=twin)
        refused(ValueError, "grad", "(4, 3)", "(2, 3)", grad=np.ones((4, 3), F32), twin=twin)
        refused(ValueError, "grad", "(3, 3)", rows=[0, 1], grad=np.ones((3, 3), F32), twin=twin)
        refused(ValueError, "rows", "5", rows=[0, 5], twin=twin)
        refused(ValueError, "rows", "-1", rows=[0, -1], twin=twin)
        refused(TypeError, "rows", "bool", rows=np.ones(2, bool), twin=twin)
        refused(TypeError, "rows", "masked", rows=np.ma.masked_array([0, 1]), twin=twin)
        assert "pyreg.sum_duplicate_rows" in refused(ValueError, "rows", rows=[1, 1], twin=twin)
    both = [[param, param.copy()], [grad, np.ones((4, 3), F32)]]
    call = partial(pyreg.sgd_update, *both, step=1)
    refuses(TypeError, partial(call, rows=np.array([0, 1])), "rows", "list")
    refuses(ValueError, partial(call, rows=[[0, 1]]), "rows", "2", "1")
    refuses(ValueError, partial(call, rows=[[0, 4], None]), "rows[0]", "4", "param[0]")
    flat = "rows[1].ravel() and grad[1].reshape(-1, *grad[1].shape[2:])"
    refuses(ValueError, partial(call, rows=[None, [[0, 1]]]), "rows[1]", "got shape (1, 2)", flat)
    refuses(ValueError, partial(call, rows=[None, [0, 1]]), "grad[0]", "(2, 3)")
    assert pyreg.sgd_update(*both, step=1, rows=[[0, 1], None]) is True


def test_a_parameter_that_cannot_be_updated_is_refused_with_its_name(tmp_path):
    grad, rows = np.ones((2, 3), F32), np.array([0, 1])
    read_only = np.ones((4, 3), F32)
    read_only.flags.writeable = False
    bad = [
        np.ones((4, 3), int),
        read_only,
        [[1.0] * 3] * 4,
        np.ones((4, 3), ">f4"),
        np.ma.masked_array(np.ones((4, 3))),
    ]
    for param in bad:
        for twin in (pyreg, pyreg.reference):
            lists = [[np.ones(5, F32), param], [np.ones(5, F32), grad]]
            for call in (
                partial(twin.sgd_update, param, grad, step=1, rows=rows),
                partial(twin.sgd_update, *lists, step=1, rows=[None, rows]),
            ):
                with pytest.raises((TypeError, ValueError), match="param"):
                    call()
    mapped = np.memmap(tmp_path / "table", F32, "w+", shape=(4, 3))
    for twin in (pyreg, pyreg.reference):
        mapped[:] = 1
        assert twin.sgd_update(mapped, grad, step=1, lr=0.5, rows=rows) is True
        np.testing.assert_array_equal(mapped[:, 0], [0.5, 0.5, 1, 1])


def test_indices_may_be_anything_that_numpy_reads_as_integers():
    for rows in ([2, 0], (2, 0), np.array([2, 0], np.int8), np.array([2, 9, 0])[::2], np.array([2, 0], ">i8"), []):
        expected, grad = np.ones((3, 2)), np.full((len(rows), 2), 0.5)
        expected[list(rows)] -= 0.5
        for twin in (pyreg, pyreg.reference):
            param = np.ones((3, 2))
            assert twin.sgd_update(param, grad, step=1, lr=1.0, rows=rows) is True
            np.testing.assert_array_equal(param, expected)


def test_skipping_looks_at_the_gradients_of_these_rows(impl):
    param, grad = np.ones((3, 2), F32), np.ones((2, 2), F32)
    grad[1, 1] = np.nan
    assert impl.sgd_update(param, grad, step=1, rows=[2, 0], skip_nonfinite=True) is False
    assert (param == 1).all()


# --- sums over equal rows


@pytest.mark.parametrize("dtype", [*DTYPES, *SIXTEEN_BIT])
@pytest.mark.parametrize("shape", [(200, 33), (1, 5), (5000, 1), (64,), (300, 2, 300), (0, 7), (40, 0)])
def test_sums_over_equal_rows_are_those_of_their_order_rounded_once(dtype, shape, rng):
    rows = rng.integers(-3, max(2, shape[0] // 4), shape[0])
    grad = (rng.normal(size=shape) * 3).astype(dtype)
    found, total = pyreg.sum_duplicate_rows(rows, grad)
    np.testing.assert_array_equal(found, np.unique(rows))
    assert (found.dtype, total.dtype) == (np.int64, grad.dtype)
    wide = F64 if dtype == F64 else F32
    for i, row in enumerate(found):
        expected = np.zeros(shape[1:], wide)
        for one in grad[rows == row]:
            expected = expected + one.astype(wide)
        np.testing.assert_array_equal(total[i], expected.astype(dtype))
    for threads in (1, 3):
        for level in pyreg._core.isa_found():
            with pyreg.num_threads(threads), isa(level):
                assert_same_bits(tuple(pyreg.sum_duplicate_rows(rows, grad)), (found, total))
    assert_same_bits(tuple(pyreg.reference.sum_duplicate_rows(rows, grad)), (found, total))


def test_a_row_that_occurs_once_keeps_its_bits(impl):
    grad = np.array([[-0.0, np.inf], [np.nan, 1e-45], [0.0, -np.inf]], F32)
    rows, total = impl.sum_duplicate_rows([2, 0, 1], grad)
    assert rows.tolist() == [0, 1, 2]
    assert_same_bits(total, grad[[1, 2, 0]])


def test_the_gradient_of_an_embedding_in_rows_is_that_of_the_whole_table(impl, rng):
    table, ids = rng.normal(size=(50, 8)), rng.integers(0, 50, 30)
    dy = rng.normal(size=(30, 8))
    dense = np.zeros_like(table)
    np.add.at(dense, ids, dy)
    moments = np.zeros((2, 50, 8))
    whole, whole_moments = table.copy(), moments.copy()
    impl.adam_update(whole, dense, *whole_moments, step=1)
    rows, grad = impl.sum_duplicate_rows(ids, dy)
    impl.adam_update(table, grad, *moments, step=1, rows=rows)
    np.testing.assert_allclose(table, whole, rtol=1e-13)  # without a gradient, classic Adam's first step is 0
    assert abs(impl.global_norm(grad) / np.linalg.norm(dense) - 1) < 1e-13


@pytest.mark.parametrize(
    ("rows", "grad", "error", "fragments"),
    [
        ([0, 1], np.ones((3, 2)), ValueError, ("grad", "2", "(3, 2)")),
        ([0, 1], np.float32(1), ValueError, ("grad", "()")),
        ([0.0, 1.0], np.ones((2, 2)), TypeError, ("rows", "float64")),
        ([[0, 1]], np.ones((2, 2)), ValueError, ("rows", "(1, 2); flatten it and grad")),
        (
            np.ones((2, 3, 4), int),
            np.ones((2, 3, 4, 5)),
            ValueError,
            ("rows.ravel()", "grad.reshape(-1, *grad.shape[3:])"),
        ),
        (3, np.ones((1, 2)), ValueError, ("rows must be a 1-D array of indices, got shape ()",)),
        ([0, 1], np.ones((2, 2), int), TypeError, ("grad", "int64")),
        (None, np.ones((2, 2)), TypeError, ("rows",)),
        ([0, 1], None, TypeError, ("grad", "None")),
    ],
)
def test_sums_refuse_what_does_not_fit(rows, grad, error, fragments):
    for twin in (pyreg, pyreg.reference):
        refuses(error, partial(twin.sum_duplicate_rows, rows, grad), *fragments)
