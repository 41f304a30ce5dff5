"""PyTorch's own lists of optimiser configurations and of errors: the same steps are taken, and the same refused."""

import numpy as np
import pytest

import pyreg

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # which PyTorch's tests need
common = pytest.importorskip("torch.testing._internal.common_optimizers")

NAMES = ["Adam", "AdamW", "SGD"]
INFO = {info.optim_cls.__name__: info for info in common.optim_db if info.optim_cls.__name__ in NAMES}
SHAPES = [(7, 5), (1,), (), (3, 4, 2), (40_000,)]
# Errors about what only PyTorch has: groups, names, tensors as numbers, other implementations.
OF_PYTORCH_ALONE = ("params argument", "more than one", "with/without names", "Tensor", "unable to", "multiple")


def configurations(name, dtype):
    return INFO[name].optim_inputs_func(device="cpu", dtype=dtype)


def number(value):
    return value.item() if isinstance(value, torch.Tensor) else value


def our_update(name, kwargs, dtype):
    """The update with PyTorch's arguments, as a function of lists of parameters and gradients, and the step."""
    options = {key: number(value) for key, value in kwargs.items() if key not in ("foreach", "fused")}
    if name == "SGD":
        buffers = [np.full(shape, np.nan, dtype) for shape in SHAPES]
        buffer = buffers if options.get("momentum") else None
        return lambda params, grads, step: pyreg.sgd_update(params, grads, buffer, step=step, **options)
    amsgrad = options.pop("amsgrad", False)
    *moments, largest = ([np.zeros(shape, dtype) for shape in SHAPES] for _ in range(3))
    options["max_exp_avg_sq"] = largest if amsgrad else None
    update = {"Adam": pyreg.adam_update, "AdamW": pyreg.adamw_update}[name]
    return lambda params, grads, step: update(params, grads, *moments, step=step, **options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("implementation", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
def test_the_same_steps_in_every_configuration(name, implementation, dtype, rng):
    for configuration in configurations(name, getattr(torch, dtype.__name__)):
        kwargs = configuration.kwargs | implementation
        if isinstance(kwargs.get("lr"), torch.Tensor) and "foreach" in kwargs:
            kwargs["lr"] = number(kwargs["lr"])  # PyTorch takes no tensor there
        params = [rng.normal(size=shape).astype(dtype) for shape in SHAPES]
        theirs = [torch.nn.Parameter(torch.from_numpy(param.copy())) for param in params]
        optimizer = INFO[name].optim_cls(theirs, **kwargs)
        update = our_update(name, kwargs, dtype)
        for step in range(1, 21):
            grads = [rng.normal(size=shape).astype(dtype) for shape in SHAPES]
            for their, grad in zip(theirs, grads, strict=True):
                their.grad = torch.from_numpy(grad.copy())
            optimizer.step()
            assert update(params, grads, step) is True
        for param, their in zip(params, theirs, strict=True):
            # 20 steps of two roundings each, of numbers of size 1.
            tolerance = 40 * np.finfo(dtype).eps
            np.testing.assert_allclose(
                param, their.detach().numpy(), tolerance, tolerance, err_msg=f"{configuration.desc}: {kwargs}"
            )


@pytest.mark.parametrize("name", NAMES)
def test_what_pytorch_refuses_is_refused(name):
    refused = 0
    for case in INFO[name].optim_error_inputs_func(device="cpu", dtype=torch.float32):
        error, desc = case.optimizer_error_input, case.error_regex
        if any(words in desc for words in OF_PYTORCH_ALONE) or "foreach" in error.kwargs:
            continue
        refused += 1
        params = [np.ones((1, 1), np.float32), np.ones((1, 1), np.float32)]
        if "duplicate" in desc:
            params[1] = params[0]
        kwargs = {"momentum": 0.9} | error.kwargs if name == "SGD" else error.kwargs
        grads = [np.ones((1, 1), np.float32)] * 2
        moments = [[np.zeros((1, 1), np.float32) for _ in params] for _ in range(2)]
        update = {"Adam": pyreg.adam_update, "AdamW": pyreg.adamw_update, "SGD": pyreg.sgd_update}[name]
        with pytest.raises(ValueError):  # noqa: PT011 - PyTorch's messages differ
            update(params, grads, *moments[: 1 if name == "SGD" else 2], step=1, **kwargs)
        assert (params[0] == 1).all()
    assert refused >= 2  # duplicates, and a number out of range
