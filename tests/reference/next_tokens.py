"""Numbers about distributions of the next token, from logits: one at a time, in NumPy's float64, by definition."""

import math

import numpy as np


def log_softmax(logits):
    """log(exp(x) / sum(exp(x))) for one list of logits."""
    logits = np.asarray(logits, dtype=np.float64)
    return logits - logits.max() - math.log(math.fsum(np.exp(logits - logits.max())))


def kl_divergence(logits, reference_logits):
    """sum of p log(p / q) over the vocabulary."""
    log_p, log_q = log_softmax(logits), log_softmax(reference_logits)
    return math.fsum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))


def least_token_log_prob(logits, token_ids):
    """Least log p of the tokens, the k-th of which is predicted by the k-th row of logits."""
    return min(float(log_softmax(row)[token]) for row, token in zip(logits, token_ids, strict=True))
