"""Edited runs that share a prefix are the runs of the whole sequence, one at a time."""

import pytest
import torch
from tiny_models import D_MODEL

from lrc_tl.evaluation.edited_passes import EditedSequence, edited_logits, least_spared
from lrc_tl.models.hooked_model import is_bridge

SEQUENCES = [
    EditedSequence(ids=(1, 7, 9, 11, 13), edited_position=2, wanted=(2, 4)),
    EditedSequence(ids=(1, 7, 20, 21, 22, 23, 24), edited_position=2, wanted=(6,)),
    EditedSequence(ids=(1, 7, 9, 5), edited_position=3, wanted=(3,)),
    EditedSequence(ids=(1, 30), edited_position=0, wanted=(0, 1)),
]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}


def alone(model, sequence, shift, layers, unit):
    """The whole sequence without a cache, the edit written by hand."""

    shares = layers if isinstance(layers, dict) else dict.fromkeys(layers, 1)

    def edit(residual, hook):
        share = shares[int(hook.name.split(".")[1])]
        changed = residual.clone()
        h = residual[0, sequence.edited_position]
        changed[0, sequence.edited_position] = h + (h.norm() if unit == "share" else 1) * share * shift.to(h)
        return changed

    hooks = [(f"blocks.{layer}.hook_resid_post", edit) for layer in shares]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        return model(torch.tensor([sequence.ids]))[0, list(sequence.wanted)]


@pytest.mark.parametrize(
    ("layers", "unit"),
    [((0, 1, 2), "share"), ((1,), "share"), ((0, 2), "absolute"), ({0: 0.5, 2: -2}, "share")],
)
@pytest.mark.parametrize("max_tokens", [12, 4096])
def test_every_row_is_what_running_it_alone_gives(word_model, layers, unit, max_tokens, monkeypatch):
    monkeypatch.setattr("lrc_tl.evaluation.edited_passes._LEAST_SPARED", 14)
    generator = torch.Generator().manual_seed(0)
    # Eight rows share the prefix of the first two sequences, the others have too few to share anything.
    numbers = torch.tensor([0, 1, 0, 2, 1, 0, 3, 0, 1, 0, 2])
    shifts = 0.5 * torch.randn(len(numbers), D_MODEL, generator=generator)
    found = dict(
        edited_logits(word_model, SEQUENCES, numbers, shifts, layers=layers, unit=unit, max_tokens=max_tokens)
    )
    assert sorted(found) == list(range(len(numbers)))
    for row, number in enumerate(numbers.tolist()):
        expected = alone(word_model, SEQUENCES[number], shifts[row], layers, unit)
        torch.testing.assert_close(found[row], expected, rtol=0, atol=TOLERANCE[expected.dtype])
    assert not any(point.fwd_hooks for point in word_model.hook_dict.values())


def behind(model, sequence, ids, shift):
    """The logits behind the last of `ids`, run as a whole with the sequence's edit in every layer."""
    whole = EditedSequence(ids=tuple(ids), edited_position=sequence.edited_position, wanted=(len(ids) - 1,))
    return alone(model, whole, shift, (0, 1, 2), "share")


@pytest.mark.parametrize("kept", [2**29, 0])
@pytest.mark.parametrize("least", [14, 10**6])
def test_rows_that_go_on_are_decoded_as_whole_runs_are(word_model, monkeypatch, kept, least):
    monkeypatch.setattr("lrc_tl.evaluation.edited_passes._LEAST_SPARED", least)
    monkeypatch.setattr("lrc_tl.passes.growing_cache._MOST_BYTES", kept)
    generator = torch.Generator().manual_seed(0)
    numbers = torch.tensor([0, 1, 0, 2, 1, 0, 3, 0, 1, 0, 2])
    shifts = 0.5 * torch.randn(len(numbers), D_MODEL, generator=generator)
    n_more = {row: row % 4 for row in range(len(numbers))}  # some end at once, others after three tokens
    given = {row: [] for row in n_more}
    said = {row: list(SEQUENCES[number].ids) for row, number in enumerate(numbers.tolist())}

    def follow(row):
        return said[row] if len(given[row]) <= n_more[row] else None

    for row, logits in edited_logits(word_model, SEQUENCES, numbers, shifts, layers=(0, 1, 2), follow=follow):
        sequence = SEQUENCES[numbers[row]]
        expected = behind(word_model, sequence, said[row], shifts[row])
        if given[row]:
            torch.testing.assert_close(logits, expected, rtol=0, atol=TOLERANCE[expected.dtype])
        given[row].append(logits)
        said[row].append(int(expected[0].argmax()))
    assert {row: len(steps) - 1 for row, steps in given.items()} == n_more


def test_a_row_may_go_on_from_a_beginning_of_what_was_run(word_model):
    shift = torch.randn(1, D_MODEL, generator=torch.Generator().manual_seed(0))
    asked = iter([[1, 7, 9, 40], None])
    passes = edited_logits(
        word_model, SEQUENCES[:1], torch.zeros(1).long(), shift, layers=(0, 1, 2), follow=lambda row: next(asked)
    )
    _, (_, found) = passes
    expected = behind(word_model, SEQUENCES[0], [1, 7, 9, 40], shift[0])
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[expected.dtype])


@pytest.fixture
def widths(word_model, monkeypatch):
    """Rows and tokens of each pass."""
    shapes = []
    call = type(word_model).forward

    def counted(self, ids, *args, **options):
        shapes.append(tuple(ids.shape))
        return call(self, ids, *args, **options)

    monkeypatch.setattr(type(word_model), "forward", counted)
    return shapes


@pytest.mark.parametrize("max_tokens", [9, 4096])
def test_only_the_new_token_of_rows_that_go_on_is_run_for_all_batches_together(
    word_model, widths, monkeypatch, max_tokens
):
    monkeypatch.setattr("lrc_tl.evaluation.edited_passes._LEAST_SPARED", 18)
    more = {row: iter([[*SEQUENCES[0].ids, 5], None] if row % 2 else [None]) for row in range(10)}
    numbers = torch.zeros(10, dtype=torch.long)
    passes = edited_logits(
        word_model, SEQUENCES, numbers, torch.zeros(10, D_MODEL), layers=[0], max_tokens=max_tokens,
        follow=lambda row: next(more[row]),
    )  # fmt: skip
    assert sorted(row for row, _ in passes) == sorted([*range(10), 1, 3, 5, 7, 9])
    batches = [(3, 3), (3, 3), (3, 3), (1, 3)] if max_tokens == 9 else [(10, 3)]
    # Caches of another library are not joined.
    alone = is_bridge(word_model) and max_tokens == 9
    assert widths == [(1, 2), *batches, *([(1, 1), (2, 1), (1, 1), (1, 1)] if alone else [(5, 1)])]


def test_what_waits_is_run_before_it_takes_too_much_memory(word_model, widths, monkeypatch):
    monkeypatch.setattr("lrc_tl.evaluation.edited_passes._LEAST_SPARED", 18)
    cfg = word_model.cfg
    of_a_token = 2 * (cfg.n_key_value_heads or cfg.n_heads) * cfg.d_head * cfg.n_layers * cfg.dtype.itemsize
    monkeypatch.setattr("lrc_tl.passes.growing_cache._MOST_BYTES", 16 * of_a_token)  # 3 rows of 5 tokens
    more = {row: iter([[*SEQUENCES[0].ids, 5], None]) for row in range(10)}
    numbers = torch.zeros(10, dtype=torch.long)
    passes = edited_logits(
        word_model, SEQUENCES, numbers, torch.zeros(10, D_MODEL), layers=[0], max_tokens=9,
        follow=lambda row: next(more[row]),
    )  # fmt: skip
    assert len(list(passes)) == 20
    assert widths == [(1, 2), (3, 3), (3, 1), (3, 3), (3, 1), (3, 3), (3, 1), (1, 3), (1, 1)]


@pytest.mark.parametrize(("least", "expected"), [(18, [(1, 2), (10, 3)]), (19, [(10, 5)])])
def test_only_what_lies_behind_a_prefix_that_is_worth_sharing_is_run(
    word_model, widths, least, expected, monkeypatch
):
    monkeypatch.setattr("lrc_tl.evaluation.edited_passes._LEAST_SPARED", least)
    numbers = torch.zeros(10, dtype=torch.long)
    list(edited_logits(word_model, SEQUENCES, numbers, torch.zeros(10, D_MODEL), layers=[0]))
    assert widths == expected


@pytest.mark.parametrize(("device", "is_shared"), [("cpu", True), ("cuda:1", False), ("mps", False)])
def test_a_prefix_of_few_tokens_is_shared_on_the_cpu_alone(device, is_shared):
    assert (least_spared(device) <= 9 * 40) is is_shared
    assert least_spared(torch.device(device)) <= 42 * 400  # a long one everywhere


@pytest.mark.parametrize("wanted", [(), (1,), (5,)])
def test_positions_before_the_edit_or_outside_are_refused(wanted):
    with pytest.raises(ValueError, match="give positions inside the sequence, at the edit or after it"):
        EditedSequence(ids=(1, 7, 9, 11, 13), edited_position=2, wanted=wanted)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([1, 2, 1], r"layer 1 of \[1, 2, 1\] was given twice"),
        ([1, -1, 2], "layer 2 of .* was given twice"),
        ({0: float("nan")}, "layer 0 gets nan of the edit; give a finite number"),
    ],
)
def test_bad_layers_are_refused(word_model, layers, message):
    with pytest.raises(ValueError, match=message):
        next(edited_logits(word_model, SEQUENCES, torch.zeros(1).long(), torch.zeros(1, D_MODEL), layers=layers))


@pytest.mark.real_model
def test_shared_prefixes_change_nothing_on_a_real_model(gemma, monkeypatch):
    import lrc_tl as lrc

    prompt = lrc.Prompt(
        text="Rome is in the country of Italy\nKyoto is in the country of", subject="Kyoto", object="Japan"
    )
    tokens = lrc.relations.tokenize_prompt(gemma, prompt)
    sequence = EditedSequence(
        ids=tokens.input_ids, edited_position=tokens.subject_position, wanted=tuple(tokens.object_positions)
    )
    generator = torch.Generator().manual_seed(0)
    shifts = torch.randn(7, 640, generator=generator)
    shifts = 0.2 * shifts / shifts.norm(dim=-1, keepdim=True)
    numbers = torch.zeros(7, dtype=torch.long)
    monkeypatch.setattr("lrc_tl.evaluation.edited_passes._LEAST_SPARED", 1)
    shared = dict(edited_logits(gemma, [sequence], numbers, shifts, layers=range(18)))
    monkeypatch.setattr("lrc_tl.evaluation.edited_passes._LEAST_SPARED", 10**6)
    whole = dict(edited_logits(gemma, [sequence], numbers, shifts, layers=range(18)))
    for row in range(7):
        torch.testing.assert_close(shared[row], whole[row], rtol=0, atol=2e-3)
    assert (shared[0] - shared[1]).abs().max() > 0.1
