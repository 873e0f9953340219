"""Errors about models, raised by several modules."""


class ModelError(RuntimeError):
    """A model could not be loaded; the text says what to install or change."""


class FingerprintMismatch(ValueError):
    """A direction, set or embedding was used with another model than the one it was made on."""


class NotFiniteError(ValueError):
    """A model or an edit gave numbers that are NaN or infinite; the text says where, and how many."""
