"""Other libraries' steps, and the arguments with which pyreg takes them: those that docs/optimisers.md states.

Each library's step is written here in NumPy, from the formula in its source; the page links the sources.
"""

import math

import numpy as np
import pytest

BETAS = BETA1, BETA2 = 0.8, 0.95
EPS, DECAY = 0.01, 0.1


@pytest.fixture
def agree(rng):
    """A check that two functions take the same five steps, in float64. The learning rate changes.

    Both get a parameter, its states, which start at 0, the gradient, the step and the learning rate, and change the
    arrays in place. Some gradients are far below EPS, others far above it.
    """
    start, scale = rng.normal(size=37), 10.0 ** rng.uniform(-4, 1, 37)
    gradients = scale * rng.normal(size=(5, 37))

    def check(ours, theirs, states=2):
        mine, expected = ([start.copy(), *np.zeros((states, 37))] for _ in range(2))
        for step, grad in enumerate(gradients, 1):
            ours(*mine, grad.copy(), step, 0.2 / step)
            theirs(*expected, grad.copy(), step, 0.2 / step)
            for a, b in zip(mine, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)

    return check


def moments(m, v, grad):
    m[:] = BETA1 * m + (1 - BETA1) * grad
    v[:] = BETA2 * v + (1 - BETA2) * grad**2


def hat_step(m, v, grad, step, lr):
    """What is subtracted in Kingma and Ba's order of section 2: Keras, ONNX, thinc and Flower use it."""
    moments(m, v, grad)
    return lr * math.sqrt(1 - BETA2**step) / (1 - BETA1**step) * m / (np.sqrt(v) + EPS)


def eps_of_hat(step):
    return EPS / math.sqrt(1 - BETA2**step)


# --- PyTorch


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
def test_pytorchs_adam_and_adamw_take_the_same_arguments(impl, agree, decoupled, maximize):
    def theirs(param, m, v, largest, grad, step, lr):
        g = -grad if maximize else grad
        if decoupled:
            param *= 1 - lr * DECAY
        else:
            g = g + DECAY * param
        moments(m, v, g)
        largest[:] = np.maximum(largest, v)
        denominator = np.sqrt(largest) / math.sqrt(1 - BETA2**step) + EPS
        param -= lr / (1 - BETA1**step) * m / denominator

    def ours(param, m, v, largest, grad, step, lr):
        update = impl.adamw_update if decoupled else impl.adam_update
        options = {"weight_decay": DECAY, "max_exp_avg_sq": largest, "maximize": maximize}
        update(param, grad, m, v, step=step, lr=lr, betas=BETAS, eps=EPS, **options)

    agree(ours, theirs, states=3)


@pytest.mark.parametrize("options", [{}, {"dampening": 0.3}, {"nesterov": True}, {"maximize": True}])
def test_pytorchs_sgd_takes_the_same_arguments(impl, agree, options):
    def theirs(param, buffer, grad, step, lr):
        g = (-grad if options.get("maximize") else grad) + DECAY * param
        buffer[:] = g if step == 1 else 0.9 * buffer + (1 - options.get("dampening", 0)) * g
        param -= lr * (g + 0.9 * buffer if options.get("nesterov") else buffer)

    def ours(param, buffer, grad, step, lr):
        impl.sgd_update(param, grad, buffer, step=step, lr=lr, momentum=0.9, weight_decay=DECAY, **options)

    agree(ours, theirs, states=1)


# --- Keras


@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_kerass_adam_and_adamw_are_adamw_with_a_larger_eps(impl, agree, decay):
    def theirs(param, m, v, grad, step, lr):
        param -= param * decay * lr
        param -= hat_step(m, v, grad, step, lr)

    def ours(param, m, v, grad, step, lr):
        impl.adamw_update(param, grad, m, v, step=step, lr=lr, betas=BETAS, eps=eps_of_hat(step), weight_decay=decay)

    agree(ours, theirs)


def test_an_uncorrected_step_with_a_corrected_learning_rate_is_kerass_too(impl, agree):
    def theirs(param, m, v, grad, step, lr):
        param -= hat_step(m, v, grad, step, lr)

    def ours(param, m, v, grad, step, lr):
        correction = math.sqrt(1 - BETA2**step) / (1 - BETA1**step)
        options = {"betas": BETAS, "eps": EPS, "bias_correction": False}
        impl.adam_update(param, grad, m, v, step=step, lr=lr * correction, **options)

    agree(ours, theirs)


@pytest.mark.parametrize("nesterov", [False, True])
def test_kerass_sgd_keeps_the_learning_rate_in_its_velocity_and_decays_outside_of_it(impl, agree, nesterov):
    def theirs(param, velocity, grad, step, lr):
        param -= param * DECAY * lr
        velocity[:] = 0.9 * velocity - lr * grad
        param += 0.9 * velocity - lr * grad if nesterov else velocity

    def ours(param, buffer, grad, step, lr):
        param *= 1 - lr * DECAY
        buffer *= -1  # Keras's velocity has the other sign
        impl.sgd_update(param, grad, buffer, step=step, lr=1.0, momentum=0.9, grad_scale=lr, nesterov=nesterov)
        buffer *= -1

    agree(ours, theirs, states=1)


def test_kerass_sgd_without_momentum_decays_as_ours_does(impl, agree):
    def theirs(param, grad, step, lr):
        param -= param * DECAY * lr
        param -= lr * grad

    def ours(param, grad, step, lr):
        impl.sgd_update(param, grad, step=step, lr=lr, weight_decay=DECAY)

    agree(ours, theirs, states=0)


def test_kerass_average_starts_with_the_first_result(impl, agree):
    def theirs(param, average, grad, step, lr):
        param -= lr * grad
        momentum = 0.99 if step > 1 else 0
        average[:] = momentum * average + (1 - momentum) * param

    def ours(param, average, grad, step, lr):
        impl.sgd_update(param, grad, step=step, lr=lr, ema=average, ema_decay=0.99 if step > 1 else 0.0)

    agree(ours, theirs, states=1)


# --- ONNX: its T is 0 at the first step


def test_onnxs_adam_corrects_nothing_at_update_0(impl, agree):
    def theirs(param, m, v, grad, step, lr):
        t, g = step - 1, DECAY * param + grad
        if t > 0:
            param -= hat_step(m, v, g, t, lr)
        else:
            moments(m, v, g)
            param -= lr * m / (np.sqrt(v) + EPS)

    def ours(param, m, v, grad, step, lr):
        t = step - 1
        options = {"step": t, "eps": eps_of_hat(t)} if t > 0 else {"step": 1, "eps": EPS, "bias_correction": False}
        impl.adam_update(param, grad, m, v, lr=lr, betas=BETAS, weight_decay=DECAY, **options)

    agree(ours, theirs)


def test_onnxs_decay_after_the_step_is_one_of_the_new_parameter_without_the_learning_rate(impl, agree):
    def theirs(param, m, v, grad, step, lr):
        param -= hat_step(m, v, grad, step, lr)
        param *= 1 - DECAY

    def ours(param, m, v, grad, step, lr):
        options = {"lr": lr * (1 - DECAY), "weight_decay": DECAY / (lr * (1 - DECAY))}
        impl.adamw_update(param, grad, m, v, step=step, betas=BETAS, eps=eps_of_hat(step), **options)

    agree(ours, theirs)


@pytest.mark.parametrize(("beta", "nesterov"), [(1.0, False), (0.7, False), (1.0, True)])
def test_onnxs_momentum_is_sgd_with_a_dampening(impl, agree, beta, nesterov):
    def theirs(param, momentum, grad, step, lr):
        t, g = step - 1, DECAY * param + grad
        momentum[:] = 0.9 * momentum + (beta if t > 0 else 1) * g
        param -= lr * (g + 0.9 * momentum if nesterov else momentum)

    def ours(param, momentum, grad, step, lr):
        options = {"dampening": 1 - beta, "weight_decay": DECAY, "nesterov": nesterov}
        impl.sgd_update(param, grad, momentum, step=step, lr=lr, momentum=0.9, **options)

    agree(ours, theirs, states=1)


def test_onnxs_momentum_adds_one_that_is_not_0_at_update_0(impl):
    # 0.5 * 4 + 1 = 3, and 2 - 0.25 * 3; step 1 would forget the 4
    param, momentum = np.array([2.0]), np.array([4.0])
    impl.sgd_update(param, np.array([1.0]), momentum, step=2, lr=0.25, momentum=0.5)
    assert (param[0], momentum[0]) == (1.25, 3)


# --- thinc


def test_thincs_adam_decays_the_new_weights(impl, agree):
    def theirs(param, m, v, grad, step, lr):
        param -= hat_step(m, v, grad, step, lr)
        param -= lr * DECAY * param

    def ours(param, m, v, grad, step, lr):
        options = {"lr": lr * (1 - lr * DECAY), "weight_decay": DECAY / (1 - lr * DECAY)}
        impl.adamw_update(param, grad, m, v, step=step, betas=BETAS, eps=eps_of_hat(step), **options)

    agree(ours, theirs)


def test_thincs_sgd_decays_the_new_weights(impl, agree):
    def theirs(param, grad, step, lr):
        param -= lr * grad
        param -= lr * DECAY * param

    def ours(param, grad, step, lr):
        options = {"lr": lr * (1 - lr * DECAY), "weight_decay": DECAY / (1 - lr * DECAY)}
        impl.sgd_update(param, grad, step=step, **options)

    agree(ours, theirs, states=0)


def test_thinc_clips_the_gradient_with_the_coupled_decay_in_it(impl, agree):
    def theirs(param, m, v, grad, step, lr):
        g = grad + DECAY * param
        norm = np.linalg.norm(g)
        param -= hat_step(m, v, g * (1 / norm) if norm >= 1 else g, step, lr)

    def ours(param, m, v, grad, step, lr):
        scale = min(1, 1 / np.linalg.norm(grad + DECAY * param))
        options = {"grad_scale": scale, "weight_decay": scale * DECAY}
        impl.adam_update(param, grad, m, v, step=step, lr=lr, betas=BETAS, eps=eps_of_hat(step), **options)

    agree(ours, theirs)


def test_thincs_average_has_a_decay_that_grows_with_the_step(impl, agree):
    def theirs(param, average, grad, step, lr):
        param -= lr * grad
        average -= (1 - min((1 + step) / (10 + step), 0.9999)) * (average - param)

    def ours(param, average, grad, step, lr):
        ema_decay = min((1 + step) / (10 + step), 0.9999)
        impl.sgd_update(param, grad, step=step, lr=lr, ema=average, ema_decay=ema_decay)

    agree(ours, theirs, states=1)


# --- Flower: the gradient stands for the parameter minus the clients' average


def test_flowers_fedadam_counts_steps_from_2(impl, agree):
    def theirs(param, m, v, grad, step, lr):
        average = param - grad
        param += hat_step(m, v, average - param, step + 1, lr)

    def ours(param, m, v, grad, step, lr):
        average = param - grad
        m *= -1  # Flower's m points from the parameter to the average
        impl.adam_update(param, param - average, m, v, step=step + 1, lr=lr, betas=BETAS, eps=eps_of_hat(step + 1))
        m *= -1

    agree(ours, theirs)


def test_flowers_fedavgm_is_sgd(impl, agree):
    def theirs(param, momentum, grad, step, lr):
        pseudo_gradient = param - (param - grad)
        momentum[:] = pseudo_gradient if step == 1 else 0.9 * momentum + pseudo_gradient
        param -= lr * momentum

    def ours(param, momentum, grad, step, lr):
        average = param - grad
        impl.sgd_update(param, param - average, momentum, step=step, lr=lr, momentum=0.9)

    agree(ours, theirs, states=1)
