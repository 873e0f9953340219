"""The benchmark on tiny models: its settings, and comparison without times."""

from lrc_tl.experiments.settings import ExperimentSettings

SETTINGS = ExperimentSettings(subject_layers=0, object_layers=-2, ranks=4, shots=0, max_lre_prompts=4)
METHODS = ("lrc", "lrc-final", "svm", "mean")
BETAS = (0.3, 0.8)
SEEDS = (1, 2)


def without_times(value):
    """Plain values without the fields of seconds."""
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if not key.startswith("seconds")}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value
