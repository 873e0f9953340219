"""How evaluations and causality show themselves: counts and intervals, never tensors."""

from typing import TYPE_CHECKING

from lrc_tl.markup.fragments import Cell, display, note, number
from lrc_tl.markup.tables import bar, pairs, table
from lrc_tl.numerics.statistics import share_interval

if TYPE_CHECKING:
    from lrc_tl.evaluation.causality import CausalityResult
    from lrc_tl.evaluation.summary import Evaluation

_HEAD = ["", "share", "95 % interval", "count"]
_HOW = "Intervals are Wilson's, as if prompts and edits were independent; edits that share a prompt are not."


def evaluation_html(self: "Evaluation") -> str:
    """The display of an evaluation: shares with counts and intervals, chance, and what goes on elsewhere."""
    classification, effect = self.classification, self.causality_result
    rows = [_share("accuracy", classification.n_correct, classification.n_prompts), *_effects(effect)]
    elsewhere = None
    if self.elsewhere is not None:
        elsewhere = f"{self.elsewhere.mean_kl:.4g} nats behind {self.elsewhere.n_statements} statements"
    return display(
        f"Evaluation on {classification.n_prompts} prompts and {effect.n_edits} edits",
        table(_HEAD, rows),
        pairs(
            {
                "objects": len(classification.candidates),
                "chance": number(classification.chance),
                "beta": f"{effect.beta:g} ({self.beta_source})",
                "edit as a share of |h|": number(effect.edit_share),
                "mean change of log-odds": f"{float(effect.log_odds_change.mean()):.4g} nats",
                "KL elsewhere": elsewhere,
            }
        ),
        note(_HOW),
    )


def causality_html(self: "CausalityResult") -> str:
    """The display of causality at one size of edits."""
    layers = ", ".join(map(str, self.layers)) or "all"
    return display(
        f"{self.n_edits} edits at beta {self.beta:g}",
        table(_HEAD, _effects(self)),
        pairs(
            {
                "layers": layers,
                "edit as a share of |h|": number(self.edit_share),
                "mean change of log-odds": f"{float(self.log_odds_change.mean()):.4g} nats",
            }
        ),
        note(_HOW),
    )


def causality_text(self: "CausalityResult") -> str:
    """One line: the shares with their counts."""
    hard = "" if self.hard_causality is None else f", hard success {self.hard_causality:.3f}"
    return (
        f"CausalityResult(beta {self.beta:g}: causality {self.causality:.3f} ({int(self.success.sum())} of "
        f"{self.n_edits} edits){hard}, wrong way {self.wrong_way:.3f})"
    )


def _effects(effect: "CausalityResult") -> list[list[Cell]]:
    rows = [_share("causality: p(o') > p(o)", int(effect.success.sum()), effect.n_edits)]
    if effect.generated is not None:
        rows.append(_share("hard success: the model says o'", int(effect.generated.sum()), effect.n_edits))
    rows.append(_share("wrong way", int((effect.log_odds_change < 0).sum()), effect.n_edits))
    return rows


def _share(name: str, count: int, n: int) -> list[Cell]:
    low, high = share_interval(count, n)
    return [name, bar(count / n, 1.0), f"{low:.3f} to {high:.3f}", f"{count} of {n}"]
