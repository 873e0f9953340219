"""The metrics of a sweep by name, and what each is. Needs no torch."""

TOP_K = 3
METRICS = {
    "accuracy": "share of test facts whose right object scores highest, by each reading",
    "top3": "share whose right object is among the first three, by each reading",
    "selectivity": "accuracy less that of directions made with shuffled labels",
    "faithfulness": "share of facts where the LRE says the model's next token (first object token, last layer)",
    "causality": "share of edits after which the new object is likelier than the old one (soft)",
    "hard_causality": "share of edits after which the model itself says the new object",
    "kl_elsewhere": "KL that edits cause behind statements of other relations, in nats",
    "kl_same_subject": "KL that edits cause behind other facts about the subject, in nats",
}
"""What can be asked for. Beside these rows hold `edit_share` (|edit| / |h|), `chosen_noise`, and those that
`validation_name` makes."""
DEFAULT_METRICS = ("accuracy", "top3", "causality", "hard_causality", "kl_elsewhere")
OF_EDITS = ("causality", "hard_causality", "kl_elsewhere", "kl_same_subject")
WITH_READING = ("accuracy", "top3")
SMALLER_IS_BETTER = ("kl_elsewhere", "kl_same_subject")
WITH_OUTCOMES = ("accuracy", "top3", "causality", "hard_causality")
"""Metrics that are shares of facts or edits, each with an outcome of its own."""
READINGS = ("plain", "centred", "calibrated")


def validation_name(metric: str) -> str:
    """The name of the same metric on validation facts: training facts that no direction was made from."""
    return f"validation_{metric}"
