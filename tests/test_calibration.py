"""Thresholds are the best that trying every one of them finds."""

from itertools import pairwise

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.calibration import best_threshold


def quality(scores, positive, threshold, by):
    said = [score > threshold for score in scores.tolist()]
    pairs = list(zip(said, positive.tolist(), strict=True))
    hits = sum(yes and is_ for yes, is_ in pairs)
    false = sum(yes and not is_ for yes, is_ in pairs)
    n = sum(positive.tolist())
    if by == "f1":
        return 2 * hits / (hits + false + n)
    return (hits / n + 1 - false / (len(pairs) - n)) / 2


@pytest.mark.parametrize("by", ["balanced_accuracy", "f1"])
@pytest.mark.parametrize("seed", range(8))
def test_no_other_threshold_is_better(seed, by):
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(40, generator=generator) < 0.3
    # Rounded, so that equal scores of both kinds occur.
    scores = (torch.randn(40, generator=generator) + positive).mul(4).round() / 4
    found = best_threshold(scores, positive, by=by)
    values = sorted(set(scores.tolist()))
    middles = [(low + high) / 2 for low, high in pairwise(values)]
    assert found in middles
    assert quality(scores, positive, found, by) == pytest.approx(
        max(quality(scores, positive, t, by) for t in middles)
    )


def test_separable_scores_are_separated_in_the_middle():
    assert best_threshold(torch.tensor([1.0, 2.0, 5.0, 9.0]), torch.tensor([False, False, True, True])) == 3.5


def test_scaling_and_shifting_the_scores_does_so_to_the_threshold():
    generator = torch.Generator().manual_seed(0)
    scores, positive = torch.randn(30, generator=generator), torch.rand(30, generator=generator) < 0.5
    threshold = best_threshold(scores, positive)
    assert best_threshold(6500 * scores - 3, positive) == pytest.approx(6500 * threshold - 3, rel=1e-5)


def test_samples_that_decide_nothing_are_refused():
    both = torch.tensor([True, False])
    with pytest.raises(ValueError, match="given are 2 positive and 0 negative"):
        best_threshold(torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
    with pytest.raises(ValueError, match="all 2 scores are equal"):
        best_threshold(torch.ones(2), both)
    with pytest.raises(ValueError, match="a score is not finite"):
        best_threshold(torch.tensor([float("nan"), 1.0]), both)


def test_a_set_is_calibrated_concept_by_concept():
    generator = torch.Generator().manual_seed(0)
    names = ("a", "b", "c")
    centres = torch.eye(12)[:3]
    concepts = lrc.ConceptSet(
        {
            name: lrc.ConceptDirection(
                vector=centre, relation="r", object_name=name, hook_name="blocks.1.hook_resid_post"
            )
            for name, centre in zip(names, centres, strict=True)
        },
        settings={"rank": 3},
    )
    objects = [names[row % 3] for row in range(60)]
    acts = torch.stack([centres[names.index(name)] for name in objects])
    acts = acts * 4 + torch.randn(60, 12, generator=generator) * 0.3
    calibrated = concepts.calibrate(acts, objects)
    assert calibrated.settings == {"rank": 3}
    assert torch.equal(calibrated.vectors, concepts.vectors)
    for name, direction in calibrated.items():
        assert direction.predict(acts).tolist() == [other == name for other in objects]
    assert concepts["a"].threshold is None
    with pytest.raises(ValueError, match="59 objects for 60 activations"):
        concepts.calibrate(acts, objects[1:])
    with pytest.raises(ValueError, match="concept 'c': a threshold needs samples of both kinds"):
        concepts.calibrate(acts[:2], objects[:2])
