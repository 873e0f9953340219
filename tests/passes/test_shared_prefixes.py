"""Groups that begin alike: the beginning is run once, and every residual is that of its text alone."""

import pytest
import torch

from lrc_tl.passes import shared_prefixes
from lrc_tl.passes.batches import kept_residuals
from lrc_tl.passes.shared_prefixes import LEAST_SPARED, ReadSequence, residuals_at_positions

BEGINNING = (1, 7, 9, 11, 20, 21, 13, 9)
LAYERS = (0, 2)


def sequences_of(n_rows, *, beginning=BEGINNING, group="one", length=2):
    """Each with the beginning, one or more words of its own, and a word behind the position that is read."""
    made = []
    for row in range(n_rows):
        own = tuple(4 + (row + 3 * place) % 40 for place in range(1 + row % length))
        made.append(ReadSequence(ids=(*beginning, *own, 5), position=len(beginning) + len(own) - 1, group=group))
    return made


def alone(model, sequence, layer):
    name = f"blocks.{layer}.hook_resid_post"
    kept = kept_residuals(model, [sequence.ids], [name], read=lambda _, residual: residual[0, sequence.position])
    return kept[name].cpu()


@pytest.fixture
def runs(monkeypatch):
    """Shape of each pass, and the tokens of each beginning that is run once."""
    shapes, beginnings = [], []
    run, cached = shared_prefixes.hooked_pass, shared_prefixes.prefix_caches

    def counted(model, ids, **options):
        shapes.append(tuple(ids.shape))
        return run(model, ids, **options)

    def kept(model, prefixes, **options):
        beginnings.extend(prefixes)
        return cached(model, prefixes, **options)

    monkeypatch.setattr(shared_prefixes, "hooked_pass", counted)
    monkeypatch.setattr(shared_prefixes, "prefix_caches", kept)
    return shapes, beginnings


def test_every_residual_is_that_of_its_text_alone_and_a_shared_beginning_is_run_once(word_model, runs):
    shapes, beginnings = runs
    other = (1, 30, 31)
    sequences = [
        *sequences_of(24, length=3),
        *sequences_of(6, beginning=other, group="few"),
        ReadSequence(ids=(1, 8), position=1, group="short"),
        ReadSequence(ids=(1,), position=0, group="shortest"),
    ]
    ran = []
    found = residuals_at_positions(word_model, sequences, LAYERS, ran=ran.extend)
    assert beginnings == [BEGINNING]
    assert sorted(ran) == list(range(len(sequences)))
    assert shapes == [(24, 4), (8, 6)]  # what follows the shared beginning, and the others whole
    for layer in LAYERS:
        expected = torch.stack([alone(word_model, sequence, layer) for sequence in sequences])
        torch.testing.assert_close(found[layer], expected, rtol=1e-4, atol=1e-4)


def test_a_beginning_that_spares_little_is_not_run_apart(word_model, runs):
    few = LEAST_SPARED // len(BEGINNING)
    residuals_at_positions(word_model, sequences_of(few), LAYERS, ran=lambda batch: None)
    assert runs[1] == []
    residuals_at_positions(word_model, sequences_of(few + 1), LAYERS, ran=lambda batch: None)
    assert runs[1] == [BEGINNING]


def test_rows_are_not_padded_for_longer_ones_where_another_batch_costs_less(word_model, runs):
    shapes, _ = runs
    short = [ReadSequence(ids=(1, row + 4), position=1, group="short") for row in range(30)]
    long = [ReadSequence(ids=(1, *range(4, 10), row + 10), position=7, group="long") for row in range(3)]
    found = residuals_at_positions(word_model, [*long, *short], LAYERS, ran=lambda batch: None)
    assert shapes == [(30, 2), (3, 8)]
    expected = torch.stack([alone(word_model, sequence, 2) for sequence in [*long, *short]])
    torch.testing.assert_close(found[2], expected, rtol=1e-4, atol=1e-4)


def test_what_is_read_is_never_part_of_what_is_shared(word_model, runs):
    same = [ReadSequence(ids=(*BEGINNING, row + 4), position=7, group="one") for row in range(30)]
    found = residuals_at_positions(word_model, same, LAYERS, ran=lambda batch: None)
    assert runs[1] == [BEGINNING[:7]]
    expected = alone(word_model, same[0], 2).expand(30, -1)
    torch.testing.assert_close(found[2], expected, rtol=1e-4, atol=1e-4)
