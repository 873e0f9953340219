"""Which lrc_tl this is, also where its files were put on the path without being installed."""

from importlib.metadata import PackageNotFoundError, version

NOT_INSTALLED = "not installed"


def own_version() -> str:
    """The version of the installed package; "not installed" where its files alone are on the path."""
    try:
        return version("lrc-tl")
    except PackageNotFoundError:
        return NOT_INSTALLED
