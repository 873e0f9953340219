"""Errors about models and files, raised by several modules."""


class ModelError(RuntimeError):
    """A model could not be loaded; the text says what to install or change."""


class FingerprintMismatch(ValueError):
    """A direction, set or embedding was used with another model than the one it was made on."""


class ArtifactError(ValueError):
    """A file cannot be used; the text says why, in one line."""
