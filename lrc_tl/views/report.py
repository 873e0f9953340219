"""A report of a sweep or a benchmark: one HTML file that needs no network."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lrc_tl.markup.fragments import counted
from lrc_tl.storage.own_version import own_version
from lrc_tl.storage.whole_file import whole_file
from lrc_tl.views.aggregating import at_one_setting, described, over_relations, over_seeds, with_intervals
from lrc_tl.views.report_page import Number, drawing, page, pairs, table
from lrc_tl.views.report_source import ReportSource, report_source
from lrc_tl.views.text import shown
from lrc_tl.views.tidy import CELL, EDIT, in_order, leading_metric, measured, metric_of

_MOST_ROWS = 200
_MOST_RELATIONS = 300
_CITATION = (
    "Linear Relational Concepts: Chanin, Hunter, Camburu, NAACL 2024, arXiv:2311.08968. "
    "LRE: Hernandez et al. 2023, arXiv:2308.09124."
)
_IN_TABLES = ("accuracy", "top3", "causality", "hard_causality", "kl_elsewhere", "kl_same_subject")
_DEFINITIONS = (
    ("accuracy", "share of unseen facts whose object has the highest score"),
    ("causality", "share of edits after which the new object is more probable than the old"),
    ("new object said", "share of edits after which greedy decoding gives the new object"),
    ("KL", "KL(edited || unedited) of the next token, in nats, after statements that the edit is not about"),
    ("interval", "95 % bootstrap interval"),
)


def write_report(source: Any, out: str | Path | None = None, *, command: str | None = None) -> Path:
    """Write a report of a sweep or a benchmark as one HTML file without network, and give its path.

    It has a headline with its interval, what was run, figures (light and dark by the reader's preference), tables
    that sort, what was left out and why, and the command that repeats it.

    Args:
        source: the folder of a sweep or of a benchmark's results, a benchmark's JSON file, a `ProtocolResult`, a
            sweep's result, or a tidy frame.
        out: the file; by default `report.html` in the folder, or the JSON file's name with `.html`.
        command: that repeats the run; by default the one that is stored with it.

    Raises:
        ValueError: there is no `out` and the source is no file or folder.
        ArtifactError: the source holds no results, or `out` cannot be written.
        ResumeError: a folder's results are damaged or of different runs.
        ImportError: matplotlib is missing; the text says how to install it.
    """
    path = report_path(source) if out is None else Path(out)
    read = source if isinstance(source, ReportSource) else report_source(source)
    text = report_html(read, command=command)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def report_path(source: Any) -> Path:
    """Where the report of a file or folder goes by default.

    Raises:
        ValueError: the source is neither.
    """
    if not isinstance(source, (str, Path)):
        raise ValueError(
            f"a {type(source).__name__} has no folder for its report; give out, such as 'report.html'"
        )
    path = Path(source)
    return path / "report.html" if path.is_dir() else path.with_suffix(".html")


def report_html(source: ReportSource, *, command: str | None = None) -> str:
    """The report's page.

    Raises:
        ImportError: matplotlib is missing; the text says how to install it.
    """
    model = str(source.model.get("name", ""))
    title = f"{source.kind} of linear relational concepts{f' on {model}' if model else ''}"
    body = [
        f"<h1>{shown(title)}</h1>",
        f'<p class="headline">{shown(headline(source)).replace("95 %", "95&nbsp;%")}</p>',
    ]
    body += ["<h2>What was run</h2>", pairs(_what_was_run(source))]
    body.append("<h2>Figures</h2>")
    for number, (name, figure) in enumerate(source.figures.items()):
        svg = figure.svg(name=f"figure{number}-{name.replace('_', '-')}")
        body.append(drawing(svg, caption=f"{figure.title}. {figure.note}", width=figure.width * 96))
    if not source.figures:
        body.append(
            '<p class="soft">One method at one setting and beta: there is nothing to compare in a figure.</p>'
        )
    body += ["<h2>Tables</h2>", *_tables(source)]
    body.append("<h2>Left out</h2>")
    if source.left_out:
        rows = [[what, reason] for what, reason in source.left_out]
        body.append(table(["what", "why"], rows, caption=f"Left out, with the reason: {len(rows)}"))
    else:
        body.append("<p>Nothing: every relation and seed that was asked for is in the tables.</p>")
    body.append("<h2>To repeat it</h2>")
    repeated = command or source.command
    if repeated:
        body.append(f"<pre>{shown(repeated)}</pre>")
    else:
        body.append("<p>The command was not stored; the settings below are what was run.</p>")
    if source.settings:
        settings = json.dumps(source.settings, indent=1, ensure_ascii=False, default=str)
        lines = "\n".join(" " * (len(line) - len(line.lstrip())) + shown(line) for line in settings.splitlines())
        body.append(f"<details><summary>All settings</summary><pre>{lines}</pre></details>")
    body += ["<h2>Words</h2>", pairs(_DEFINITIONS), f'<p class="soft">{shown(_CITATION)}</p>']
    body.append(f'<p class="soft">Made by lrc_tl {shown(own_version())}.</p>')
    return page(title=title, body=body)


def headline(source: ReportSource) -> str:
    """What came out, in one sentence with its interval."""
    frame = source.frame
    metric = leading_metric(frame)
    kind = metric_of(metric)
    model = f"On {source.model['name']}, " if source.model.get("name") else ""
    methods = in_order(measured(frame, metric)["method"])
    among = f", the best of {len(methods)} methods" if len(methods) > 1 else ""
    if source.best is not None and metric == "accuracy":
        best = source.best.sort_values("validation", ascending=False).iloc[0]
        return (
            f"{model}{best['method']} with {_setting(best)}, chosen on validation facts"
            f"{among.replace(', the best', ' as the best')}, has an accuracy of {_amount(best, 'value')} on "
            f"{best['n_facts']} test facts of {counted(int(best['n_relations']), 'relation')}."
        )
    rows, choice = at_one_setting(frame, metrics=[metric], reading="plain", drawn=())
    means = with_intervals(measured(rows, metric), ["method"])
    best = means.sort_values("mean", ascending=kind.smaller_is_better, kind="stable").iloc[0]
    setting = _setting_of(measured(rows, metric), best["method"])
    name = f"{best['method']} with {setting}" if setting else best["method"]
    how = ", at the setting that is best on these facts" if choice and "validation" not in choice else ""
    if choice and "validation" in choice:
        how = ", at a setting chosen on validation facts"
    return (
        f"{model}{name} has {_article(kind.label)} {kind.label} of {_amount(best, 'mean')} over "
        f"{counted(int(best['n_relations']), 'relation')}{among}{how}."
    )


def _article(word: str) -> str:
    return "an" if word[:1] in "aeio" else "a"


def _amount(row: Any, name: str) -> str:
    inside = f" (95 % interval {row['low']:.3f} to {row['high']:.3f})" if math.isfinite(row["low"]) else ""
    return f"{row[name]:.3f}{inside}"


def _setting(row: Any) -> str:
    names = ("subject_layer", "object_layer", "rank", "ridge", "noise")
    return ", ".join(described(name, row[name]) for name in names if name in row and not pd.isna(row[name]))


def _setting_of(rows: pd.DataFrame, method: Any) -> str:
    """The method's setting where all relations have the same."""
    of_method = rows[rows["method"] == method]
    return ", ".join(
        described(name, of_method[name].iloc[0])
        for name in ("subject_layer", "object_layer", "rank", "ridge", "noise", *EDIT)
        if of_method[name].notna().all() and of_method[name].nunique() == 1
    )


def _what_was_run(source: ReportSource) -> list[tuple[str, str]]:
    frame, model = source.frame, source.model
    relations, seeds = in_order(frame["relation"]), in_order(frame["seed"])
    facts = frame.dropna(subset=["n_facts"]).groupby(["relation", "seed"], observed=True)["n_facts"].max()
    versions = [
        f"{name.replace('_', ' ')} {model[name]}" for name in ("transformer_lens", "torch") if name in model
    ]
    # A benchmark's file has rows of its first beta only.
    betas = source.settings.get("beta") or in_order(frame["beta"])
    return [
        (
            "model",
            ", ".join(str(model[name]) for name in ("name", "model_class", "dtype", "device") if name in model),
        ),
        ("versions", ", ".join(versions)),
        ("relations", f"{len(relations)}: {', '.join(map(str, relations[:_MOST_RELATIONS]))}"),
        ("seeds", _listed(seeds)),
        ("methods", ", ".join(in_order(frame["method"]))),
        *((name.replace("_", " ") + "s", _listed(in_order(frame[name]))) for name in CELL[:5]),
        ("betas", _listed(betas if isinstance(betas, list) else [betas])),
        ("LRE prompts", _listed(in_order(frame["n_lre_prompts"]))),
        ("edits at", _listed(in_order(frame["place"]))),
        ("test facts", f"{facts.sum():,} over all relations and seeds" if len(facts) else ""),
        ("rows", f"{len(frame):,}"),
        ("computed in", _duration(source.seconds)),
        ("read from", source.origin),
    ]


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _tables(source: ReportSource) -> list[str]:
    frame = source.frame
    metrics = [name for name in _IN_TABLES if (frame["metric"] == name).any()]
    if not metrics:
        metrics = [name for name in in_order(frame["metric"]) if name != "chance"]
    rows, choice = at_one_setting(frame, metrics=metrics, reading="plain", drawn=())
    parts = []
    if source.best is not None:
        parts.append(_best_table(source.best))
    parts.append(_method_table(rows, metrics, choice))
    parts.append(_relation_table(rows, metrics[0], choice))
    cells = _cell_table(frame, metrics[0])
    if cells:
        parts.append(cells)
    if source.comparisons:
        compared = _comparison_table(source.comparisons)
        parts.append(f"<details><summary>Methods against each other</summary>{compared}</details>")
    return parts


def _method_table(rows: pd.DataFrame, metrics: Sequence[str], choice: str) -> str:
    head = ["method", "setting"]
    columns: list[pd.DataFrame] = []
    for metric in metrics:
        head += [metric_of(metric).label, "95 % interval"]
        columns.append(with_intervals(measured(rows, metric), ["method"]).set_index("method"))
    head += ["relations", "facts"]
    body: list[list[str | Number]] = []
    first = measured(rows, metrics[0])
    for method in in_order(rows["method"]):
        line: list[str | Number] = [str(method), _setting_of(rows, method) or _setting_of(first, method)]
        for column in columns:
            entry = column.loc[method] if method in column.index else None
            line += (
                [Number(None), Number(None)] if entry is None else [Number(float(entry["mean"])), _interval(entry)]
            )
        of_method = first[first["method"] == method]
        line += [Number(int(of_method["relation"].nunique())), Number(int(of_method["n"].fillna(0).sum()))]
        body.append(line)
    note = "Methods: means over relations, each with its mean over seeds; intervals over relations."
    return table(head, body, caption=f"{note} {choice}".strip())


def _interval(row: Any) -> Number:
    if not math.isfinite(row["low"]):
        return Number(None)
    return Number(float(row["low"]), f"{row['low']:.3f} to {row['high']:.3f}")


def _relation_table(rows: pd.DataFrame, metric: str, choice: str) -> str:
    of_metric = measured(rows, metric)
    values = over_seeds(of_metric, ["method"]).pivot_table(
        index="relation", columns="method", values="value", observed=True
    )
    methods = [method for method in in_order(of_metric["method"]) if method in values.columns]
    counts = (
        of_metric.groupby(["relation", "seed"], observed=True)["n"].max().groupby("relation", observed=True).sum()
    )
    body: list[list[str | Number]] = [
        [
            str(relation),
            Number(int(counts.get(relation, 0))),
            *(Number(float(row[method]) if row[method] == row[method] else None) for method in methods),
        ]
        for relation, row in values.iterrows()
    ]
    caption = f"Relations: {metric_of(metric).label}, means over seeds. {choice}".strip()
    return table(["relation", "facts", *map(str, methods)], body, caption=caption)


def _cell_table(frame: pd.DataFrame, metric: str) -> str:
    """Every setting with its mean, the best first; empty where each method has one."""
    rows = measured(frame, metric)
    used = [name for name in (*CELL, *EDIT) if rows[name].notna().any()]
    means = over_relations(rows, ["method", *used])
    if len(means) <= rows["method"].nunique():
        return ""
    ordered = means.sort_values("mean", ascending=metric_of(metric).smaller_is_better, kind="stable")
    body: list[list[str | Number]] = [
        [
            str(row["method"]),
            *(str(row[name]) if name == "place" else _setting_cell(row[name]) for name in used),
            Number(float(row["mean"])),
            Number(int(row["n_relations"])),
        ]
        for _, row in ordered.head(_MOST_ROWS).iterrows()
    ]
    more = len(ordered) - len(body)
    caption = f"Settings: {metric_of(metric).label}, mean over relations, the best first."
    caption += f" {more:,} more are not shown; the rows of the run have them." if more else ""
    names = ["LRE prompts" if name == "n_lre_prompts" else name.replace("_", " ") for name in used]
    return table(["method", *names, metric_of(metric).label, "relations"], body, caption=caption)


def _setting_cell(value: Any) -> Number:
    return Number(None) if pd.isna(value) else Number(float(value), f"{value:g}")


def _best_table(best: pd.DataFrame) -> str:
    body: list[list[str | Number]] = [
        [
            str(row["method"]),
            _setting(row),
            Number(float(row["validation"])),
            Number(float(row["value"])),
            _interval(row),
            Number(int(row["n_facts"])),
            Number(int(row["n_cells"])),
        ]
        for _, row in best.iterrows()
    ]
    head = [
        "method",
        "setting",
        "on validation facts",
        "on test facts",
        "95 % interval",
        "test facts",
        "chosen from",
    ]
    return table(
        head, body, caption="Accuracy at the setting chosen on validation facts; intervals over test facts."
    )


def _comparison_table(comparisons: Sequence[Any]) -> str:
    body: list[list[str | Number]] = []
    for entry in comparisons:
        for name, values in entry.items():
            if not isinstance(values, dict) or values["difference"] is None:
                continue
            low, high = (math.nan if end is None else end for end in values["ci95"])
            sign = values["sign_test"]
            body.append(
                [
                    f"{entry['method']} less {entry['against']}",
                    name.replace("_", " "),
                    Number(float(values["difference"]), f"{values['difference']:+.3f}"),
                    _interval({"low": low, "high": high}),
                    Number(sign.get("p_holm", sign["p"])),
                ]
            )
    head = ["methods", "metric", "difference", "95 % interval over relations", "p (sign test, Holm)"]
    return table(head, body, caption="Differences of methods on the same prompts and edits.")
