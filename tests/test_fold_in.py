"""fold_in: keys made from a key."""

from pathlib import Path

import numpy as np
import pytest
from test_bad_input import refuses

import pyreg
from pyreg.reference.philox import philox_bytes

NUMBERS = [0, 1, 2**31, 2**32 - 1, 2**32, 2**60, 2**64 - 1]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("number", NUMBERS)
def test_it_equals_the_reference_and_is_an_integer_of_64_bits(key, number):
    new = pyreg.fold_in(key, number)
    assert type(new) is int
    assert 0 <= new < 2**64
    assert new == pyreg.reference.fold_in(key, number)


def test_known_answers(impl):
    lines = (Path(__file__).parent / "data" / "fold_in_v1.txt").read_text().splitlines()
    answers = [[int(word, 16) for word in line.split()] for line in lines if not line.startswith("#")]
    assert len(answers) == 15
    for key, number, expected in answers:
        assert impl.fold_in(key, number) == expected


def test_it_is_the_first_eight_bytes_of_a_block_in_domain_2(impl):
    for key, block in ((0, 0), (5, 1), (2**63 + 5, 2**40 + 3), (2**64 - 1, 2**60 - 1)):
        places = 16 * np.uint64(block) + np.arange(8, dtype=np.uint64)
        expected = philox_bytes(places, digit=0, domain=2, key=key).tobytes()
        assert impl.fold_in(key, block) == int.from_bytes(expected, "little")


def test_several_numbers_are_folded_in_one_after_the_other(impl):
    assert impl.fold_in(7) == 7
    assert impl.fold_in(7, 1, 2, 3) == impl.fold_in(impl.fold_in(impl.fold_in(7, 1), 2), 3)
    assert impl.fold_in(np.int64(7), np.array(1), np.uint8(2)) == impl.fold_in(7, 1, 2)


def test_keys_of_many_layers_and_steps_differ():
    keys = {pyreg.fold_in(0, layer, step) for layer in range(100) for step in range(1000)}
    keys |= {pyreg.fold_in(0, number) for number in range(1000)} | {*range(1000)}
    assert len(keys) == 102_000


def test_what_is_no_key_is_refused(impl):
    for value in (-1, 2**64, 0.5, None, True):
        error = ValueError if type(value) is int else TypeError
        refuses(error, lambda value=value: impl.fold_in(value, 1), "key", repr(value))
        refuses(error, lambda value=value: impl.fold_in(1, 1, value), "numbers[1]", repr(value))
