"""Distributions of the next token: how far one is from another, and how probable given tokens are in it."""

from jaxtyping import Float, Int
from torch import Tensor

from lrc_tl.arguments.typechecking import checked


@checked
def kl_divergence(
    log_probs: Float[Tensor, "*batch d_vocab"], reference: Float[Tensor, "*batch d_vocab"]
) -> Float[Tensor, "*batch"]:
    """KL(p || q) in nats for each row, from natural log-probabilities: log p first, log q as the reference.

    In the dtype given, at least 0: what rounding leaves below is 0. It is NaN where one of the log-probabilities
    is NaN or log p is -inf.
    """
    divergence: Tensor = (log_probs.exp() * (log_probs - reference)).sum(-1)
    return divergence.clamp_min(0)


@checked
def token_log_probs(
    log_probs: Float[Tensor, "*batch pos d_vocab"], token_ids: Int[Tensor, " pos"]
) -> Float[Tensor, "*batch pos"]:
    """The log-probability of each of `token_ids` at its own position; all rows are asked for the same tokens."""
    column = token_ids.to(log_probs.device)[:, None]
    return log_probs.gather(-1, column.expand(*log_probs.shape[:-1], 1))[..., 0]


@checked
def least_token_log_prob(
    log_probs: Float[Tensor, "*batch pos d_vocab"], token_ids: Int[Tensor, " pos"]
) -> Float[Tensor, "*batch"]:
    """The log-probability of the least probable of `token_ids`, each at its own position.

    It stands for a word of several tokens, as in `CausalityResult`.
    """
    return token_log_probs(log_probs, token_ids).amin(-1)
