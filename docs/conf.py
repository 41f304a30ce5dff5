"""Sphinx: pip install '.[docs]' && sphinx-build -W docs docs/_build."""

import importlib.metadata
from functools import partial

from docutils import nodes
from latex2mathml.converter import convert

project = "pyreg"
author = "the pyreg authors"
copyright = author
version = release = importlib.metadata.version("pyreg")

extensions = [
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
]
exclude_patterns = ["_build", "templates"]
templates_path = ["templates"]  # a class's page is its docstring; api.md lists the methods
html_theme = "furo"
html_title = f"pyreg {release}"
html_static_path = ["static"]
html_css_files = ["style.css"]
highlight_language = "none"  # of a block that names no language: what a command printed

default_role = "autolink"  # autosummary's: `name` is a link where it names something of ours
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_mock_imports = ["mpi4py"]  # pyreg.mpi is documented without an MPI
autodoc_typehints = "none"  # the docstrings say it for readers
numpydoc_show_class_members = False
# A fault of a public docstring is a warning. Left out: ES01, EX01 and SA01, which want every section in every
# docstring; GL01, the summary on the line after the quotes; PR04, for parameters that are "As in" another function.
numpydoc_validation_checks = {"all", "ES01", "EX01", "SA01", "GL01", "PR04"}

# The pictures are made by docs/pictures/*.py at every build.
plot_formats = [("svg", 100)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_include_source = False

# Formulas become MathML when the pages are built, so a browser shows them without a network or a script.
html_math_renderer = "mathml"


def write_formula(translator, node, display):
    formula = node.astext()
    mathml = convert(formula, display=display)
    if "\\" in mathml:
        raise ValueError(f"latex2mathml does not know a command of {formula!r}")
    translator.body.append(f'<div class="formula">{mathml}</div>' if display == "block" else mathml)
    raise nodes.SkipNode


def setup(app):
    inline, block = ((partial(write_formula, display=display), None) for display in ("inline", "block"))
    app.add_html_math_renderer("mathml", inline, block)
