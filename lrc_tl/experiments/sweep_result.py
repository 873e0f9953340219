"""SweepResult: the tidy rows of a sweep, the best cells, and pairs of cells compared fact by fact."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.errors import ResumeError
from lrc_tl.experiments.sweep_at_kl import SteeringAtKl, steering_at_kl
from lrc_tl.experiments.sweep_cells import CELL_COLUMNS
from lrc_tl.experiments.sweep_choice import best_cells
from lrc_tl.experiments.sweep_comparison import SweepComparison, compare_cells
from lrc_tl.experiments.sweep_display import sweep_html
from lrc_tl.experiments.sweep_outcomes import Outcomes, head_of
from lrc_tl.experiments.sweep_record import SweepRecord
from lrc_tl.experiments.sweep_rows import as_frame, read_rows, record_rows, rows_table
from lrc_tl.experiments.sweep_settings import SweepSettings
from lrc_tl.experiments.sweep_store import HEAD
from lrc_tl.markup.printable import printable

_LEFT_OUT = ("relation", "seed", *CELL_COLUMNS, "reason")


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepResult:
    """What a sweep measured. Rows are read at once, the outcomes of single facts when they are needed."""

    settings: SweepSettings
    """Axes as they were asked for last, layers counted from the start."""
    model: Mapping[str, Any]
    """The fingerprint's plain values."""
    rows: pd.DataFrame = field(repr=False)
    """As `to_frame` gives them."""
    outcomes: Outcomes = field(repr=False)
    """The records, from memory or a folder."""
    folder: Path | None = None

    @classmethod
    def of(
        cls, records: Sequence[SweepRecord], *, settings: SweepSettings, model: Mapping[str, Any]
    ) -> "SweepResult":
        """The result of records in memory.

        Raises:
            ValueError: no relation could be evaluated; the text says why.
        """
        ordered = sorted(records, key=lambda record: (record.relation, record.seed))
        rows = as_frame(rows_table(row for record in ordered for row in record_rows(record)))
        outcomes = Outcomes.of(record.to_dict() for record in ordered)
        return cls(settings=settings, model=model, rows=rows, outcomes=outcomes)._nonempty()

    @classmethod
    def load(cls, folder: str | Path) -> "SweepResult":
        """The result in a folder that `run_sweep`, `lrc-tl sweep` or `lrc-tl merge` has written.

        Raises:
            ResumeError: there is none, or a file is damaged or of another schema.
            ValueError: no relation could be evaluated; the text says why.
        """
        source = Path(folder)
        head = head_of(source)
        outcomes = Outcomes.in_folder(source)
        rows = read_rows(outcomes.row_files)
        try:
            settings = SweepSettings.from_dict(head["settings"])
        except (TypeError, ValueError) as error:
            raise ResumeError(f"{source / HEAD} cannot be read: {error}") from error
        result = cls(settings=settings, model=head["model"], rows=rows, outcomes=outcomes, folder=source)
        return result._nonempty()

    def _nonempty(self) -> "SweepResult":
        if self.rows.empty:
            reasons = {f"{row.relation}: {row.reason}" for row in self.left_out.itertuples()}
            raise ValueError(f"no relation could be evaluated: {'; '.join(sorted(reasons)) or 'none were given'}")
        return self

    def to_frame(self) -> pd.DataFrame:
        """One row per relation, seed, cell, beta, place, reading and metric, with value, counts and facts.

        Layers, ranks and counts are `Int64`, with `pd.NA` where one does not apply; group with `dropna=False`.
        """
        return self.rows.copy()

    @property
    def relations(self) -> tuple[str, ...]:
        """Names of the relations with rows."""
        return tuple(self.rows["relation"].unique())

    @property
    def cells(self) -> pd.DataFrame:
        """The cells with rows, each once."""
        return self.rows[list(CELL_COLUMNS)].drop_duplicates(ignore_index=True)

    @cached_property
    def left_out(self) -> pd.DataFrame:
        """Relations and seeds, or single cells of them, without a result, and why."""
        # A damaged file may hold half of a surrogate pair, which no table can.
        rows = [
            {name: printable(value) if isinstance(value := row.get(name), str) else value for name in _LEFT_OUT}
            for row in self.outcomes.left_out()
        ]
        return pd.DataFrame(rows, columns=list(_LEFT_OUT))

    @property
    def seconds(self) -> dict[str, float]:
        """Of all units, by stage."""
        return self.outcomes.seconds()

    def best(
        self,
        by: str = "accuracy",
        *,
        within: str | Sequence[str] = "method",
        reading: str = "plain",
        where: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The best cell for each value of `within`: chosen on validation facts, with its value on test facts.

        Means are over relations, each with its mean over seeds. Of equally good cells the first in the order of
        the rows is taken. Cells that lack a relation are not among those chosen from.

        Args:
            by: `"accuracy"`, `"top3"`, `"causality"` or `"hard_causality"`; these two need a sweep with
                `validation_edits`.
            within: a column or several; `()` for the best of all, `"relation"` for one cell per relation.
            reading: of accuracy and top3.
            where: narrows the cells, as `{"beta": 0.01, "place": "all"}`.

        Returns:
            The columns of the cell, `validation` (which it was chosen by), `value` (on test facts), `low` and
            `high` (95 %, facts drawn again within relations with their seeds together), `n_relations`, `n_facts`
            and `n_cells` (how many it was chosen from).

        Raises:
            ValueError: an unknown metric or column, no such cells, or no validation facts.
        """
        columns = (within,) if isinstance(within, str) else tuple(within)
        return best_cells(self.rows, self.outcomes, by=by, within=columns, reading=reading, where=where or {})

    def compare(
        self,
        a: str | Mapping[str, Any] | pd.Series,
        b: str | Mapping[str, Any] | pd.Series,
        *,
        metric: str = "accuracy",
        reading: str = "plain",
    ) -> SweepComparison:
        """Cell `a` less cell `b` on the same facts, with a paired 95 % interval.

        Facts are drawn again within relations, all seeds of a fact together, so the interval says how sure the
        difference is on these relations. Facts or edits that only one of the two has are left out.

        Args:
            a, b: `{column: value}` that leaves one cell, a method's name where it has one cell, or a row of
                `best`.
            metric: `"accuracy"`, `"top3"`, `"causality"` or `"hard_causality"`.

        Raises:
            ValueError: an unknown metric, no such cell or several; the text says what tells them apart.
        """
        return compare_cells(self.rows, self.outcomes, a, b, metric=metric, reading=reading)

    @numbers_checked
    def at_kl(self, nats: float = 0.7, *, methods: Sequence[str] | None = None) -> tuple[SteeringAtKl, ...]:
        """Each method's edits where their KL elsewhere is `nats`: hard and soft success at equal side effects.

        A method's cell and place are those with the highest hard success at this KL on validation edits, and its
        values those of test edits, linear over the KL between neighbouring betas; curves are means over relations,
        each with its mean over seeds. `difference_at_kl` (of `lrc_tl.experiments.sweep_at_kl`) compares two of
        them with paired intervals.

        Args:
            methods: names, all of the sweep by default.

        Raises:
            ValueError: no such method; the sweep lacks hard causality, KL elsewhere, test edits or validation
                edits; or the KL of the smallest beta lies above `nats`.
            TypeError: one name in place of several.
        """
        return steering_at_kl(self.rows, self.outcomes, nats=nats, methods=methods)

    def plot(self, **options: Any) -> Any:
        """A figure of what the sweep shows best: `lrc_tl.views.plot_sweep`, whose options it takes.

        A heat map of layers by layers, lines over layers or ranks, causality over betas, or two methods relation
        by relation. It shows itself in a notebook, and `save` writes PNG, SVG, PDF or HTML.
        `plot(metric="causality", where={"rank": 64})` draws another metric, or part of the sweep.

        Raises:
            LookupError: there is one method, at one setting and beta; or nothing of what the options ask for.
            ValueError: there is no such kind.
            TypeError: there is no such option.
        """
        from lrc_tl.views import plot_sweep  # views import results, so only here and now

        return plot_sweep(self, **options)

    def _repr_html_(self) -> str:
        return sweep_html(self)

    def __repr__(self) -> str:
        return (
            f"SweepResult({self.model.get('name')}: {len(self.relations)} relations, "
            f"{len(self.settings.seeds)} seeds, {len(self.cells)} cells, {len(self.rows):,} rows)"
        )
