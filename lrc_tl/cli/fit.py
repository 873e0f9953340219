"""`lrc-tl fit`: its options, and what they mean for `fit_concepts` and `LinearRelationalEmbedding`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import lrc_tl as lrc
from lrc_tl.cli.common import (
    DEFAULT_DEVICE,
    DEFAULT_DTYPE,
    METHODS_AT_LAST,
    Device,
    Dtype,
    Json,
    Model,
    RelationName,
    Run,
    bad_usage,
    loaded_model,
    print_table,
    print_text,
    read_files,
    remark,
    require_finite,
)
from lrc_tl.cli.completing import fit_dtypes, method_names
from lrc_tl.lre.fit_settings import fit_dtype_named
from lrc_tl.methods.method import METHODS, OBJECT_SHARE, Method, default_method, meant_method, require_methods
from lrc_tl.methods.settings import FitSettings
from lrc_tl.storage.json_results import check_target

if TYPE_CHECKING:  # imports torch
    from lrc_tl.passes.known_prompts import KnownPrompts


def fit(
    model: Model,
    relation: RelationName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.safetensors", help="Where to save the concepts.")],
    subject_layer: Annotated[
        int | None,
        typer.Option("--subject-layer", help="Negative layers count from the end; half way by default."),
    ] = None,
    object_layer: Annotated[
        int | None,
        typer.Option(
            "--object-layer",
            help=f"Above the subject layer; {OBJECT_SHARE} of the depth by default, and the last layer for "
            f"{METHODS_AT_LAST}.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            autocompletion=method_names,
            help=f"One of those below; else {default_method(rank=1)} with a rank or ridge, and "
            f"{default_method(rank=None)} without.",
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="Rank of the inverse.")] = None,
    ridge: Annotated[
        float,
        typer.Option("--ridge", min=0.0, help="Fades small singular values out, such as 0.2; no rank needed."),
    ] = 0.0,
    shots: Annotated[int, typer.Option("--shots", min=0, help="Examples in each prompt.")] = 4,
    max_lre_prompts: Annotated[
        int, typer.Option("--max-lre-prompts", min=1, help="Prompts to fit on, balanced over objects.")
    ] = FitSettings.max_lre_prompts,
    noise: Annotated[
        float | None,
        typer.Option("--noise", help="Of dual directions (lrc-map), above 0; else chosen on the training facts."),
    ] = None,
    fit_dtype: Annotated[
        str,
        typer.Option(
            "--fit-dtype",
            autocompletion=fit_dtypes,
            help="In what a bfloat16 or float16 model is run while LREs are fitted: model (its own), or float32.",
        ),
    ] = FitSettings.fit_dtype,
    first_token: Annotated[
        bool, typer.Option("--first-token", help="Use the object's first token, not the mean over its tokens.")
    ] = False,
    centre: Annotated[
        bool, typer.Option("--centre", help="Take what all subjects share (zero-shot prompts) from the scores.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of templates, examples and the choice of prompts.")] = 0,
    device: Device = DEFAULT_DEVICE,
    dtype: Dtype = DEFAULT_DTYPE,
    json_file: Json = None,
) -> None:
    """Make concept directions from the facts that the model knows, by an LRE or a baseline, and save them."""
    method = default_method(rank=rank, ridge=ridge) if method is None else method
    run = Run("fit", locals(), outputs={"--out": out}, inputs=read_files(relation, model))
    import lrc_tl.methods.options as needs  # imports torch
    from lrc_tl.methods.lre_grids import lre_prompts

    with bad_usage():
        settings = FitSettings(
            max_lre_prompts=max_lre_prompts,
            noise=noise,
            fit_dtype=fit_dtype_named(fit_dtype, argument="--fit-dtype"),
        )
        require_methods([method])
        asked = meant_method(METHODS[method], object_layer=object_layer)
        _require_own_options(asked, rank=rank, ridge=ridge, first_token=first_token, noise=noise)
        if fit_dtype != FitSettings.fit_dtype and asked.is_baseline:
            raise typer.BadParameter(f"--fit-dtype is for methods with an LRE, which {asked.name} has not")
        needs.require_method_options(asked, rank=rank, ridge=ridge, solver=settings.solver)
        needs.require_layer_order(asked, subject_layer=subject_layer, object_layer=object_layer)
    check_target(out)
    if ignored := needs.ignored_options(asked, object_layer=object_layer, rank=rank):
        remark(ignored)
    facts = lrc.load_relation(relation)
    prompts = facts.prompts(shots=shots, seed=seed)
    plain = facts.prompts(seed=seed)
    loaded = loaded_model(model, device=device, dtype=dtype)
    with bad_usage():
        places = needs.require_places(
            loaded, asked, subject_layer=subject_layer, object_layer=object_layer, rank=rank
        )
    subject_layer = places.subject_layer if subject_layer is None else subject_layer
    object_layer = places.object_layer if object_layer is None else object_layer
    known = lrc.filter_known(loaded, prompts)
    known.require_nonempty()
    used = lre_prompts(known, asked, most=settings.max_lre_prompts, seed=seed)
    if asked.open_settings:
        assert object_layer is not None
        lre = lrc.LinearRelationalEmbedding.fit(
            loaded,
            used,
            subject_layer=subject_layer,
            object_layer=object_layer,
            object_aggregation="first_token" if first_token else "mean",
            solver=settings.solver,
            fit_dtype=settings.fit_dtype,
        )
        concepts = lre.concepts(loaded, known.prompts, rank=rank, ridge=ridge)
    else:
        concepts = lrc.fit_concepts(
            loaded,
            known.prompts,
            method=asked.name,
            subject_layer=subject_layer,
            object_layer=object_layer if asked.takes_object_layer else None,
            rank=rank if asked.needs_rank else None,
            seed=seed,
            settings=settings,
        )
    if centre:
        concepts = concepts.centred(lrc.subject_activations(loaded, plain, layer=subject_layer))
    out.parent.mkdir(parents=True, exist_ok=True)
    concepts.save(out)
    counts: dict[str, Any] = {"relation": facts.name, "n_facts": len(facts.facts)}
    counts |= {"n_known": len(known.prompts), "n_lre_prompts": len(used)}
    print_table([{**counts, "hook_name": concepts.hook_name}])
    print_text(f"{len(concepts)} concepts saved in {out}: {', '.join(concepts)}")
    results = {**counts, "objects": list(concepts), "hook_name": concepts.hook_name, "out": out}
    run.finish({**results, "dropped": _dropped_rows(known)}, model=loaded)


def _dropped_rows(known: "KnownPrompts") -> list[dict[str, str]]:
    """Prompts that the model does not answer correctly, for JSON."""
    return [
        {
            "text": dropped.prompt.text,
            "object": dropped.prompt.object,
            "answer": dropped.answer,
            "reason": dropped.reason,
        }
        for dropped in known.dropped
    ]


def _require_own_options(
    asked: Method, *, rank: int | None, ridge: float, first_token: bool, noise: float | None
) -> None:
    """Refuse a ridge, a noise or a way of reading objects where a method has none, or no inverse."""
    if asked.open_settings and rank is None and not ridge:
        raise typer.BadParameter("--rank, --ridge or both must be given, such as --rank 64 or --ridge 0.2")
    if not asked.open_settings and (ridge or first_token):
        theirs = ", ".join(other.name for other in METHODS.values() if other.open_settings)
        raise typer.BadParameter(f"--ridge and --first-token belong to --method {theirs}, not to {asked.name}")
    require_finite("--ridge", ridge)
    if noise is not None and not asked.is_dual:
        theirs = ", ".join(other.name for other in METHODS.values() if other.is_dual)
        raise typer.BadParameter(f"--noise belongs to --method {theirs}, not to {asked.name}")
