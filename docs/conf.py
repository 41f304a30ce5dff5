"""Sphinx: pip install '.[docs]' && sphinx-build -W docs docs/_build."""

import importlib.metadata

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
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"pyreg {release}"

default_role = "autolink"  # autosummary's: `name` is a link where it names something of ours
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

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
