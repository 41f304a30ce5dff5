"""One-line tasks, each in its own environment: nox -s tests."""

import nox

nox.needs_version = ">=2024.10.9"  # for default=


@nox.session
def tests(session: nox.Session) -> None:
    """The suite, on the installed package."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """The sdist, the wheel, and the suite on it."""
    session.install(".[wheel]")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """The hooks of .pre-commit-config.yaml."""
    session.install("pre-commit>=4")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The pages of docs/. Warnings are errors."""
    session.install(".[docs]")
    session.run("sphinx-build", "-W", "docs", "docs/_build", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Speed against a copy and against NumPy."""
    session.install(".[bench]")
    session.run("python", "bench/run.py", *session.posargs)
