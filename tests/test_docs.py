"""What the README and the pages of docs/ show runs, and their known answers are the known ones."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest
from bits import assert_same_bits

import pyreg
from pyreg.reference.philox import philox_bytes

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))

pytestmark = pytest.mark.usefixtures("number_of_threads_restored")


def test_the_readmes_example_prints_what_it_says(capsys):
    ((example, output),) = re.findall(
        r"```python\n(.*?)```\n\nprints\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    exec(example, {})
    assert capsys.readouterr().out == output


def test_the_example_of_every_public_function_runs():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)
    exec(example, {})
    assert set(re.findall(r"pyreg\.(\w+)\(", example)) == set(pyreg.__all__) - {"reference"}


def test_a_tensor_of_bfloat16_shares_its_memory_as_the_page_says():
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("ml_dtypes")
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/low_precision.md").read_text(), re.DOTALL)
    made = {}
    exec(example, made)
    kept = pyreg.dropout_mask((4, 8), 0.5, key=1)
    np.testing.assert_array_equal(made["tensor"].float().numpy(), 2 * kept)
    assert made["result"].dtype is torch.bfloat16
    made["y"][:] = 3
    assert (made["result"] == 3).all()


def tables(heading):
    """The lines of each fenced block under a heading of the README, without the spaces that align them."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [aligned_left(block) for block in section.split("```")[1::2]]


def aligned_left(text):
    return [" ".join(line.split()) for line in text.strip("\n").splitlines()]


def test_the_readmes_speeds_are_those_of_the_page():
    page = set(aligned_left((ROOT / "docs/speed.md").read_text()))
    for table in tables("Speed"):
        assert len(table) > 5
        assert set(table) <= page


def test_the_speeds_alone_are_those_of_the_measurements():
    measured = (ROOT / "docs/measurements.md").read_text()
    _, (header, *lines) = tables("Speed")
    assert len(lines) == 5
    for line in lines:
        title, number, unit, *numbers = re.fullmatch(r"(.+?) (\S+) (us|ms) (.+)", line).groups()
        op, size = ("adamw_update", "1,000,000") if title == "adamw_update, 1M" else (title, "8192 x 768")
        names, *rows = measured.split(f"\n{op}\nsize ")[1].split("\n\n")[0].splitlines()
        assert header.split()[-4:] == names.split()[-4:]  # the peers
        cells = [re.split(" {2,}", row) for row in rows]
        # size, threads, result, time, mean, p90, GB/s, of copy, for AdamW of the loop, and the peers
        (row,) = (row for row in cells if row[:3] == [size, "2", "out="])
        percent = row[8] if op == "adamw_update" else row[7]
        assert " ".join([row[3], percent, *row[-4:]]) == f"{number} {unit} {' '.join(numbers)}", title


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.stem)
def test_links_to_files_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    assert not [target for target in targets if "://" not in target and not (page.parent / target).exists()]


def test_the_readmes_training_is_that_of_the_page():
    page = " ".join((ROOT / "docs/training.md").read_text().split())
    (lines,) = tables("What the regularisers do")
    assert len(lines) == 4
    for line in lines:
        name, loss, accuracy = re.fullmatch(r"(.+?) +test loss +(.+?) +test accuracy +(.+)", line).groups()
        assert f" {name} test loss {loss}: " in page
        assert f" {name} test accuracy {accuracy}: " in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_of_a_page_print_what_they_say(page):
    text = page.read_text()
    if "import ml_dtypes" in text:
        pytest.importorskip("ml_dtypes")
    # A snippet of another kind would not be run.
    fences = re.findall(r"^ *```(.*)$", text, re.MULTILINE)
    kinds = {kind for kind in fences[::2] if not kind.startswith("{")}
    assert set(fences[1::2]) <= {""}
    # What bench/ printed; an example that a test of its own runs.
    others = {"speed": {""}, "measurements": {""}, "training": {""}, "api": {"python"}, "low_precision": {"python"}}
    others["mpi"] = {"", "python"}
    assert kinds <= {"pycon", "sh", *others.get(page.stem, ())}
    blocks = re.findall(r"^ *```pycon\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    snippets = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    assert doctest.DocTestRunner().run(snippets).failed == 0
    assert len(snippets.examples) == len(re.findall(r"^ *>>> ", text, re.MULTILINE))


def test_the_tests_that_a_page_names_exist():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/reproducibility.md").read_text()))
    defined = {
        name
        for path in (ROOT / "tests").glob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > 5
    assert named <= defined


def rows_of_the_random_stream():
    """The cells of the tables of docs/random_stream.md."""
    lines = (ROOT / "docs/random_stream.md").read_text().splitlines()
    return [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]


def test_the_known_answers_of_philox_are_random123s():
    known = (ROOT / "tests/data/philox4x32_kat.txt").read_text().split("\n")
    rows = [row for row in rows_of_the_random_stream() if re.fullmatch(r"([0-9a-f]{8} ?){4}", row[0])]
    assert len(rows) == 3
    for row in rows:
        assert "10 " + "  ".join(row) in known


def test_the_masks_are_those_of_version_1():
    rows = [row for row in rows_of_the_random_stream() if re.fullmatch("[01]{20,}", row[-1])]
    assert len(rows) == 4
    for *numbers, mask in rows:
        key, offset, p = map(eval, numbers)
        kept = pyreg.dropout_mask(len(mask), p, key=key, offset=offset)
        assert "".join("01"[int(k)] for k in kept) == mask


def test_the_thresholds_that_decide_are_where_the_page_says():
    rows = [row for row in rows_of_the_random_stream() if re.search("`, (odd|even)", row[1])]
    assert len(rows) == 2
    for place, number, kept, dropped in rows:
        names = {"U": int(number[: number.index("`")], 16)}
        for thresholds, expected in ((kept, True), (dropped, False)):
            for t in thresholds.split(","):
                mask = pyreg.dropout_mask((), eval(t, names) / 2**32, key=0x0123456789ABCDEF, offset=int(place))
                assert bool(mask) == expected, t


def test_the_float32_results_are_dropouts():
    (x, y) = (
        np.array([int(word, 16) for word in row[1].split()], np.uint32).view(np.float32)
        for row in rows_of_the_random_stream()
        if row[0] in ("x", "result")
    )
    assert x.size == 6
    assert_same_bits(pyreg.dropout(x, 0.1, key=0x0123456789ABCDEF, offset=5), y)


def test_the_bytes_of_the_strings_are_the_references():
    rows = [row for row in rows_of_the_random_stream() if len(row) == 8 and row[0].isdecimal()]
    assert len(rows) == 4
    places = np.array([0, 1, 15, 16, 17, 2**40 + 3], np.uint64)
    for domain, digit, *expected in rows:
        made = philox_bytes(places, int(digit), int(domain), key=0x0123456789ABCDEF)
        assert made.tolist() == [int(byte) for byte in expected]


def test_every_public_function_is_in_the_api():
    listed = re.findall(r"^   (\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(set(pyreg.__all__) - {"reference"})
