"""The benchmark on tiny models: its settings, and comparison without times."""

SETTINGS = {
    "subject_layer": 0,
    "object_layer": -2,
    "rank": 4,
    "shots": 0,
    "max_lre_prompts": 4,
    "progress": False,
}
METHODS = ("lrc", "lrc-final", "svm", "mean")
BETAS = (0.3, 0.8)
SEEDS = (1, 2)


def without_times(value):
    """Plain values without the fields of seconds."""
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if not key.startswith("seconds")}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value
