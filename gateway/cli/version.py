"""The version of this installation."""

from __future__ import annotations


def version() -> str:
    """As installed; the number itself lives in pyproject.toml alone."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("auth-gateway")
    except PackageNotFoundError:
        return "(not installed)"
