"""The second promise: the same bits at every instruction set, thread count, layout and cut of the batch."""

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits, bits
from conftest import LEVELS

import pyreg

# Around every lane and vector boundary, and past the blocks: 4 * 4096 is a multiple of all of them.
LENGTHS = [*range(1, 131), 768, 1001, 4096, 16411]


def every_result(impl, dtype, rows, n):
    """What every function returns or leaves behind, for arrays of rows of n."""
    rng = np.random.default_rng([rows, n])
    x, dy = (rng.normal(3, 2, (rows, n)).astype(dtype) for _ in range(2))
    weight, bias = (rng.normal(size=n).astype(dtype) for _ in range(2))
    results = {}
    for w, b in ((weight, bias), (weight, None), (None, bias), (None, None)):
        _, mean, rstd = results["forward", w is None, b is None] = impl.layer_norm_forward(x, w, b)
        results["backward", w is None] = impl.layer_norm_backward(dy, x, mean, rstd, w)
    row_scale, layer_scale = rng.normal(size=rows).astype(dtype), rng.normal(size=n).astype(dtype)
    for w in (weight, None):
        _, rstd = results["rms_forward", w is None] = impl.rms_norm_forward(x, w)
        results["rms_backward", w is None] = impl.rms_norm_backward(dy, x, rstd, w)
    for scales in ({}, {"row_scale": row_scale, "layer_scale": layer_scale}):
        options = {"p": 0.1, "key": n, "offset": rows} | scales
        last = {"x": x} if scales else {}
        _, z, mean, rstd = made = impl.dropout_add_layer_norm_forward(x, dy, weight, bias, **options)
        results["fused", bool(scales)] = made
        results["fused_backward", bool(scales)] = impl.dropout_add_layer_norm_backward(
            dy, x, z, mean, rstd, weight, **options, **last
        )
        _, z, rstd = results["rms_fused", bool(scales)] = impl.dropout_add_rms_norm_forward(x, dy, weight, **options)
        results["rms_fused_backward", bool(scales)] = impl.dropout_add_rms_norm_backward(
            dy, x, z, rstd, weight, **options, **last
        )
    for name, shift in (("relu", None), ("silu", weight), ("gelu", bias)):
        forward, backward = (getattr(impl, f"{name}_dropout_{way}") for way in ("forward", "backward"))
        results[name] = forward(x, shift, p=0.1, key=n, offset=rows)
        results[name, "backward"] = backward(dy, x, shift, p=0.1, key=n, offset=rows)
    tanh = {"p": 0.5, "key": n, "approximate": "tanh"}
    results["gelu_tanh"] = impl.gelu_dropout_forward(x, **tanh)
    results["gelu_tanh", "backward"] = impl.gelu_dropout_backward(dy, x, **tanh)
    for mask, causal in ((None, True), (weight, False)):
        options = {"mask": mask, "p": 0.1, "key": n, "offset": rows, "scale": 0.3, "causal": causal}
        _, *statistics = results["softmax", causal] = impl.softmax_dropout_forward(x, **options)
        results["softmax_backward", causal] = impl.softmax_dropout_backward(dy, x, *statistics, **options)
    for p in (0.1, 0.5, 1e-3):
        results["dropout", p] = impl.dropout(x, p, key=n, offset=rows)
        results["drop_path", p] = impl.drop_path(x, p, key=n, offset=rows)
        results["mask", p] = impl.dropout_mask(x.shape, p, key=n, offset=rows)
    for name, options in (
        ("adamw_update", {"weight_decay": 0.1}),
        ("adamw_update", {"weight_decay": 0.1, "amsgrad": True, "maximize": True}),
        ("adam_update", {}),
        ("adam_update", {"weight_decay": 0.1, "amsgrad": True}),
    ):
        amsgrad = options.pop("amsgrad", False)
        state = x.copy(), dy, np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
        for step in (1, 2, 1000):
            getattr(impl, name)(*state[:4], step=step, max_exp_avg_sq=state[4] if amsgrad else None, **options)
        results[name, amsgrad, *options] = state
    for options in ({}, {"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.9, "nesterov": True}):
        state = x.copy(), dy, np.zeros_like(x)
        for step in (1, 2, 3):
            impl.sgd_update(*state, step=step, **options)
        results["sgd_update", *options] = state
    results["l2_penalty"] = np.array(impl.l2_penalty([x, weight], 0.1))
    return results


@pytest.fixture(scope="module")
def reference_results():
    made = {}

    def get(dtype, rows, n):
        if (dtype, rows, n) not in made:
            made[dtype, rows, n] = every_result(pyreg.reference, dtype, rows, n)
        return made[dtype, rows, n]

    return get


@pytest.mark.parametrize("n", LENGTHS)
def test_every_level_equals_the_reference_at_every_length(level, dtype, reference_results, n):
    rows = 3 if n < 1000 else 130  # 130 rows: more than two blocks of the backward pass
    rows = 5 if n > 10_000 else rows
    expected = reference_results(dtype, rows, n)
    actual = every_result(pyreg, dtype, rows, n)
    for what, value in expected.items():
        assert_same_bits(actual[what], value, (level, what))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1001, 300), (130, 4096), (5, 100_003)])
def test_every_thread_count_equals_the_reference(level, dtype, reference_results, shape, threads):
    expected = reference_results(dtype, *shape)
    with pyreg.num_threads(threads):
        actual = every_result(pyreg, dtype, *shape)
    for what, value in expected.items():
        assert_same_bits(actual[what], value, (level, threads, what))


# Calls that move more than 32 MiB write their result past the caches, whole lines at a time, with the ends of
# rows and of blocks apart. One that works in place never does: it is what the other is held against.
@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("n", [31, 64, 67, 768, 1001, 4096])
def test_results_written_past_the_caches_have_the_same_bits(level, dtype, rng, n, shift):
    rows = 36 * 2**20 // (2 * n * np.dtype(dtype).itemsize)
    size = rows * n
    x = rng.standard_normal(size + shift, dtype)[shift:].reshape(rows, n)
    weight = rng.standard_normal(n, dtype)
    out = np.empty(size + shift, dtype)[shift:].reshape(rows, n)

    in_place = x.copy()
    expected = pyreg.layer_norm_forward(in_place, weight, weight, out=in_place)
    assert_same_bits(pyreg.layer_norm_forward(x, weight, weight, out=out), expected)
    _, mean, rstd = expected
    dy = in_place.copy()
    expected = pyreg.layer_norm_backward(in_place, x, mean, rstd, weight, out=in_place)
    assert_same_bits(pyreg.layer_norm_backward(dy, x, mean, rstd, weight, out=out), expected)
    in_place = x.copy()
    expected = pyreg.dropout(in_place, 0.1, key=n, offset=shift, out=in_place)
    assert_same_bits(pyreg.dropout(x, 0.1, key=n, offset=shift, out=out), expected)

    in_place = x.copy()
    expected = pyreg.drop_path(in_place, 0.1, key=n, offset=shift, out=in_place)
    assert_same_bits(pyreg.drop_path(x, 0.1, key=n, offset=shift, out=out), expected)

    in_place = x.copy()
    expected = pyreg.softmax_dropout_forward(in_place, p=0.1, key=n, offset=shift, out=in_place)
    assert_same_bits(pyreg.softmax_dropout_forward(x, p=0.1, key=n, offset=shift, out=out), expected)
    in_place, statistics = dy.copy(), expected[1:]
    expected = pyreg.softmax_dropout_backward(in_place, x, *statistics, p=0.1, key=n, offset=shift, out=in_place)
    assert_same_bits(
        pyreg.softmax_dropout_backward(dy, x, *statistics, p=0.1, key=n, offset=shift, out=out), expected
    )

    in_place = x.copy()
    expected = pyreg.rms_norm_forward(in_place, weight, out=in_place)
    assert_same_bits(pyreg.rms_norm_forward(x, weight, out=out), expected)
    in_place = dy.copy()
    expected = pyreg.rms_norm_backward(in_place, x, rstd, weight, out=in_place)
    assert_same_bits(pyreg.rms_norm_backward(dy, x, rstd, weight, out=out), expected)


# The two results at the same place in their cache lines, and at different ones.
@pytest.mark.parametrize(("shift", "other_shift"), [(0, 0), (1, 1), (1, 0)])
@pytest.mark.parametrize("n", [67, 768])
def test_fused_results_written_past_the_caches_have_the_same_bits(level, dtype, rng, n, shift, other_shift):
    rows = 36 * 2**20 // (4 * n * np.dtype(dtype).itemsize)
    x, dy = (rng.standard_normal((rows, n), dtype) for _ in range(2))
    weight, row_scale = rng.standard_normal(n, dtype), rng.standard_normal(rows, dtype)
    out, other = (np.empty(rows * n + s, dtype)[s:].reshape(rows, n) for s in (shift, other_shift))
    options = {"p": 0.1, "key": n, "offset": shift, "row_scale": row_scale, "layer_scale": weight}

    y, z = x.copy(), dy.copy()
    expected = pyreg.dropout_add_layer_norm_forward(y, z, weight, weight, **options, out=y, z_out=z)
    actual = pyreg.dropout_add_layer_norm_forward(x, dy, weight, weight, **options, out=out, z_out=other)
    assert_same_bits(actual, expected)
    dx, dresidual = dy.copy(), x.copy()
    arguments = (z, *expected[2:], weight)
    options["x"] = x
    expected = pyreg.dropout_add_layer_norm_backward(
        dx, dresidual, *arguments, **options, out=dx, dresidual_out=dresidual
    )
    actual = pyreg.dropout_add_layer_norm_backward(dy, x, *arguments, **options, out=out, dresidual_out=other)
    assert_same_bits(actual, expected)


DIGEST = """
import sys
sys.path.insert(0, sys.argv[1])
from test_same_bits import digest
import pyreg
print(digest(pyreg))
"""


def digest(impl):
    sha = hashlib.sha256()
    for dtype in (np.float32, np.float64):
        for rows, n in ((3, 17), (200, 1001)):
            for value in every_result(impl, dtype, rows, n).values():
                for array in value if isinstance(value, tuple) else (value,):
                    sha.update(b"None" if array is None else bits(array))
    return sha.hexdigest()


def test_a_process_gives_the_same_bits_whatever_pyreg_isa_and_omp_num_threads_say():
    expected = digest(pyreg.reference)
    for name in ("baseline", *LEVELS):
        for threads in ("1", "2", "3"):
            environment = os.environ | {"PYREG_ISA": name, "OMP_NUM_THREADS": threads}
            made = subprocess.run(
                [sys.executable, "-P", "-c", DIGEST, Path(__file__).parent],
                env=environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert made.stdout.strip() == expected, (name, threads)


def unaligned(x):
    raw = np.empty(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def spread(x):
    wide = np.zeros(tuple(2 * length for length in x.shape), x.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in x.shape)]
    view[...] = x
    return view


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "transposed": np.asfortranarray,
    "strided": spread,
    "reversed": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "unaligned": unaligned,
    "read-only": read_only,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_an_input_gives_the_bits_of_a_contiguous_one(impl, dtype, rng, layout):
    change = LAYOUTS[layout]
    x, dy = rng.normal(size=(2, 60, 41)).astype(dtype)
    weight, bias = rng.normal(size=(2, 41)).astype(dtype)
    _, mean, rstd = expected = impl.layer_norm_forward(x, weight, bias)
    assert_same_bits(impl.layer_norm_forward(change(x), change(weight), change(bias)), expected)
    assert_same_bits(
        impl.layer_norm_backward(change(dy), change(x), change(mean), change(rstd), change(weight)),
        impl.layer_norm_backward(dy, x, mean, rstd, weight),
    )
    assert_same_bits(impl.dropout(change(x), 0.3, key=1), impl.dropout(x, 0.3, key=1))
    assert_same_bits(impl.drop_path(change(x), 0.3, key=1), impl.drop_path(x, 0.3, key=1))
    assert_same_bits(impl.rms_norm_forward(change(x), change(weight)), impl.rms_norm_forward(x, weight))
    assert_same_bits(
        impl.rms_norm_backward(change(dy), change(x), change(rstd), change(weight)),
        impl.rms_norm_backward(dy, x, rstd, weight),
    )
    named = {"p": 0.3, "key": 1, "row_scale": rstd, "layer_scale": bias}
    changed = named | {"row_scale": change(rstd), "layer_scale": change(bias)}
    assert_same_bits(
        impl.dropout_add_layer_norm_forward(change(x), change(dy), change(weight), change(bias), **changed),
        impl.dropout_add_layer_norm_forward(x, dy, weight, bias, **named),
    )
    assert_same_bits(
        impl.dropout_add_layer_norm_backward(
            change(dy), change(x), change(x), change(mean), change(rstd), change(weight), x=change(dy), **changed
        ),
        impl.dropout_add_layer_norm_backward(dy, x, x, mean, rstd, weight, x=dy, **named),
    )
    for name in ("relu", "silu", "gelu"):
        forward, backward = (getattr(impl, f"{name}_dropout_{way}") for way in ("forward", "backward"))
        assert_same_bits(forward(change(x), change(bias), p=0.3, key=1), forward(x, bias, p=0.3, key=1))
        assert_same_bits(
            backward(change(dy), change(x), change(bias), p=0.3, key=1), backward(dy, x, bias, p=0.3, key=1)
        )
    _, *statistics = expected = impl.softmax_dropout_forward(x, dy, p=0.3, key=1)
    assert_same_bits(impl.softmax_dropout_forward(change(x), change(dy), p=0.3, key=1), expected)
    assert_same_bits(
        impl.softmax_dropout_backward(change(dy), change(x), *map(change, statistics), change(x), p=0.3, key=1),
        impl.softmax_dropout_backward(dy, x, *statistics, x, p=0.3, key=1),
    )
    assert impl.l2_penalty(change(x), 0.3) == impl.l2_penalty(x, 0.3)
    for update, count in ((impl.adamw_update, 4), (impl.adam_update, 4), (impl.sgd_update, 3)):
        state, other = ([x.copy(), dy] + [np.zeros_like(x) for _ in range(count - 2)] for _ in range(2))
        other[1] = change(dy)
        update(*state, step=1)
        update(*other, step=1)
        other[1] = dy
        assert_same_bits(tuple(other), tuple(state))


def test_lists_and_nested_lists_are_read_as_numpy_reads_them(impl):
    x = [[1.0, 2.0, 4.0], [0.5, 0.25, 8.0]]
    assert_same_bits(impl.layer_norm(x), impl.layer_norm(np.array(x)))
    assert_same_bits(impl.dropout(x, 0.5, key=1), impl.dropout(np.array(x), 0.5, key=1))


@pytest.mark.parametrize("n", [1, 31, 32, 33, 768])
def test_a_row_does_not_depend_on_the_batch_it_stands_in(impl, dtype, rng, n):
    x, dy = rng.normal(size=(2, 150, n)).astype(dtype)
    weight = rng.normal(size=n).astype(dtype)
    y, mean, rstd = impl.layer_norm_forward(x, weight)
    dx, _, _ = impl.layer_norm_backward(dy, x, mean, rstd, weight)
    for part in (slice(0, 1), slice(63, 66), slice(149, 150), slice(5, 140)):
        alone = impl.layer_norm_forward(x[part], weight)
        assert_same_bits(alone, (y[part], mean[part], rstd[part]))
        dx_alone, _, _ = impl.layer_norm_backward(dy[part], x[part], mean[part], rstd[part], weight)
        assert_same_bits(dx_alone, dx[part])


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="knows glibc's x86-64 fenv_t")
def test_the_callers_floating_point_environment_does_not_matter(level, rng):
    """A thread that flushes subnormal numbers to zero gets the bits that all others get."""
    libc = ctypes.CDLL(None)
    environment = (ctypes.c_uint8 * 64)()  # glibc's fenv_t has 32 bytes on x86-64, with MXCSR in the last four
    x = (rng.standard_normal(2_000_000) * 1e-38).astype(np.float32)
    expected = pyreg.dropout(x, 0.1, key=1)
    assert libc.fegetenv(environment) == 0
    mxcsr = ctypes.c_uint32.from_buffer(environment, 28)
    before = mxcsr.value
    try:
        mxcsr.value = before | 0x8040
        libc.fesetenv(environment)
        results = []
        for threads in (1, 2):
            with pyreg.num_threads(threads):
                results.append(pyreg.dropout(x, 0.1, key=1))
    finally:
        mxcsr.value = before
        libc.fesetenv(environment)
    for result in results:
        assert_same_bits(result, expected)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, -0.0, 1e-42, 3e38])
def test_special_values_come_out_alike_everywhere(level, dtype, rng, special):
    x = rng.normal(size=(8, 70)).astype(dtype)
    x[::2, 33] = special
    x[1] = special
    weight = rng.normal(size=70).astype(dtype)
    mine, theirs = (module.layer_norm_forward(x, weight) for module in (pyreg, pyreg.reference))
    assert_same_bits(mine, theirs)
    _, mean, rstd = theirs
    assert_same_bits(
        pyreg.layer_norm_backward(x[::-1], x, mean, rstd, weight),
        pyreg.reference.layer_norm_backward(x[::-1], x, mean, rstd, weight),
    )
    for name in ("relu", "silu", "gelu"):
        for way, arrays in (("forward", (x, weight)), ("backward", (x[::-1], x, weight))):
            mine, theirs = (
                getattr(module, f"{name}_dropout_{way}")(*arrays, p=0.1, key=1) for module in (pyreg, pyreg.reference)
            )
            assert_same_bits(mine, theirs, (name, way))
    for mask in (None, x[3], weight):
        mine, theirs = (m.softmax_dropout_forward(x, mask, p=0.1, key=1) for m in (pyreg, pyreg.reference))
        assert_same_bits(mine, theirs)
        arrays = (x[::-1], x, *theirs[1:], mask)
        mine, theirs = (m.softmax_dropout_backward(*arrays, p=0.1, key=1) for m in (pyreg, pyreg.reference))
        assert_same_bits(mine, theirs)
    for name in ("adamw_update", "adam_update"):
        states = [[x.copy(), x[::-1].copy(), np.ones_like(x), np.abs(x), np.abs(x)] for _ in range(2)]
        for module, state in zip((pyreg, pyreg.reference), states, strict=True):
            with np.errstate(invalid="ignore"):
                getattr(module, name)(*state[:4], step=2, max_exp_avg_sq=state[4], weight_decay=0.1)
        assert_same_bits(*map(tuple, states))
