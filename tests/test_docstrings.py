"""Every public function has a numpydoc docstring whose example runs."""

import doctest
import inspect

import pytest

import pyreg

PUBLIC = [(pyreg, name) for name in pyreg.__all__ if name != "reference"]
TWINS = [(pyreg.reference, name) for name in pyreg.reference.__all__]
IDS = [name for _, name in PUBLIC] + [f"reference.{name}" for _, name in TWINS]


@pytest.mark.parametrize(("module", "name"), PUBLIC + TWINS, ids=IDS)
def test_examples_run_and_print_what_they_say(module, name):
    function = getattr(module, name)
    examples = doctest.DocTestFinder().find(function, name, globs={})
    assert sum(len(test.examples) for test in examples) > 0
    for test in examples:
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=IDS[: len(PUBLIC)])
def test_docstrings_describe_every_parameter(module, name):
    function = getattr(module, name)
    text = inspect.getdoc(function)
    sections = ["Examples"]
    parameters = inspect.signature(function).parameters
    if parameters:
        sections += ["Parameters", "Raises"]
    for section in sections:
        assert f"{section}\n{'-' * len(section)}\n" in text, section
    if parameters:
        listed = text.split("Parameters\n----------\n")[1].split("\n\n")[0]
        names = [
            name.strip().lstrip("*")
            for line in listed.splitlines()
            if line and not line[0].isspace()
            for name in line.split(" : ")[0].split(",")
        ]
        assert sorted(names) == sorted(parameters)


@pytest.mark.parametrize("name", pyreg.reference.__all__)
def test_the_reference_has_the_same_signature(name):
    compiled, reference = getattr(pyreg, name), getattr(pyreg.reference, name)
    assert inspect.signature(compiled) == inspect.signature(reference)


def test_every_function_on_arrays_has_a_reference():
    without = {"get_num_threads", "set_num_threads", "num_threads", "show_config", "reference"}
    without |= {"warmup_cosine", "warmup_linear", "decay_matrices_only"}
    assert set(pyreg.__all__) - without == set(pyreg.reference.__all__)
    assert set(pyreg.__all__) <= set(dir(pyreg))
