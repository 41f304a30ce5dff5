"""The generator's known answers."""

from pathlib import Path

import numpy as np
import pytest

import pyreg
from pyreg.reference.philox import philox, philox_bytes

KNOWN = [
    line.split()
    for line in (Path(__file__).parent / "data/philox4x32_kat.txt").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize("words", KNOWN, ids=lambda words: f"{words[0]}-{words[1]}")
def test_reference_gives_random123s_known_answers(words):
    rounds, *hexadecimal = words
    numbers = [int(word, 16) for word in hexadecimal]
    counter = tuple(np.array([c], np.uint64) for c in numbers[:4])
    output = philox(counter, tuple(numbers[4:6]), rounds=int(rounds))
    assert [int(word[0]) for word in output] == numbers[6:]


def test_reference_gives_the_value_that_the_cpp26_standard_names():
    # std::philox4x32 with its default seed: the 10000th value drawn is 1955073260. Each block of the
    # counter gives four values, so this is the last one of block 2499.
    block = [np.array([c], np.uint64) for c in (2499, 0, 0, 0)]
    assert int(philox(tuple(block), (20111115, 0))[3][0]) == 1955073260


def test_philox_bytes_are_the_blocks_words_in_little_endian_order():
    # The known answer for counter 0, key 0.
    words = np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], "<u4")
    index = np.arange(16, dtype=np.uint64)
    assert philox_bytes(index, digit=0, domain=0, key=0).tobytes() == words.tobytes()


@pytest.mark.parametrize("words", [k for k in KNOWN if k[0] == "10" and k[3:5] == 2 * ["00000000"]])
def test_compiled_stream_gives_the_known_answer(words, level):
    """The known answers that a mask can show: those whose counter has digit 0 and domain 0."""
    numbers = [int(word, 16) for word in words[1:]]
    counter, key, output = numbers[:4], numbers[4] | numbers[5] << 32, numbers[6:]
    first = np.array(output, "<u4").view(np.uint8)
    offset = 16 * (counter[0] | counter[1] << 32)
    # At p = t / 256, an element is kept if its first byte is at least t. So every byte can be read back.
    masks = [pyreg.dropout_mask(16, t / 256, key=key, offset=offset) for t in range(1, 256)]
    assert np.sum(masks, axis=0).tolist() == first.tolist()


# Digit, domain, and the bytes at PLACES for the key 0x0123456789abcdef, computed by a program with plain integers.
# The digit is the third word of the counter, the domain the fourth.
PLACES = [0, 1, 15, 16, 17, 2**40 + 3]
STRINGS = [
    (1, 1, [95, 191, 33, 215, 185, 218]),
    (2, 0, [126, 7, 9, 225, 15, 64]),
    (3, 0, [161, 2, 240, 80, 65, 235]),
    (3, 1, [7, 82, 70, 65, 212, 200]),
]


@pytest.mark.parametrize(("digit", "domain", "expected"), STRINGS)
def test_every_digit_and_domain_has_a_string_of_its_own(digit, domain, expected):
    places = np.array(PLACES, np.uint64)
    assert philox_bytes(places, digit, domain, 0x0123456789ABCDEF).tolist() == expected
