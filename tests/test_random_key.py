"""random_key follows SPEC 7."""

import numpy as np

import pyreg


def test_keys_are_ints_below_2_to_the_64():
    keys = [pyreg.random_key() for _ in range(100)]
    assert all(type(key) is int and 0 <= key < 2**64 for key in keys)
    assert len(set(keys)) == 100
    assert max(keys) > 2**60  # 100 uniform keys all stay below with probability 16**-100


def test_a_seed_gives_its_key_and_a_generator_goes_on():
    assert pyreg.random_key(5) == pyreg.random_key(5) == pyreg.random_key(np.random.default_rng(5))
    generator = np.random.default_rng(5)
    assert pyreg.random_key(generator) != pyreg.random_key(generator)


def test_the_global_state_is_neither_read_nor_changed():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = pyreg.random_key()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert pyreg.random_key() != first
