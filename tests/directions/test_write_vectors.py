"""Directions that read with one vector and write with another: scores, operations on models, and sets of them.

In float64 the laws hold to 1e-10 of |h|; the Bridge's residuals are float32.
"""

from dataclasses import replace

import pytest
import torch
from tiny_steering import residuals

import lrc_tl as lrc
from lrc_tl.directions.writing import writing_vector
from lrc_tl.evaluation.causality import counterfactual_edits
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.numerics.covariance import Covariance
from lrc_tl.tuning.beta_choice import _at_the_end

HOOK = "blocks.1.hook_resid_post"
WIDTH = 12
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
NAMES = ("w4", "w5", "w6")
PROMPTS = [
    lrc.Prompt(text=f"w{number} w2 w3", subject=f"w{number}", object=NAMES[number % 3], relation="r")
    for number in range(20, 32)
]


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(vector):
    return vector / vector.norm()


SIGMA = Covariance.of_samples(draw(60, WIDTH, seed=0) * torch.linspace(0.2, 2.0, WIDTH).double(), shrinkage=0.1)


def a_pair(seed=1, name="w4", rule="covariance", offset=-1.5, **more):
    read = 4 * draw(WIDTH, seed=seed)
    return lrc.ConceptDirection.from_unscaled(
        read,
        write_vector=SIGMA.times(read),
        write_rule=rule,
        offset=offset,
        relation="r",
        object_name=name,
        hook_name=HOOK,
        **more,
    )


def a_set(**more):
    return lrc.ConceptSet(
        {name: a_pair(seed, name, offset=seed / 2, **more) for seed, name in enumerate(NAMES, start=1)}
    )


def only_writing(concepts):
    """The set whose directions read, too, with the vectors that these write with."""
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection(
                vector=direction.write_vector, relation="r", object_name=name, hook_name=HOOK
            )
            for name, direction in concepts.items()
        }
    )


@pytest.fixture
def acts():
    return 50 * draw(2, 5, WIDTH, seed=9)


def require_close(actual, expected, acts):
    """To the precision of the dtype, relative to the length of each activation."""
    length = acts.norm(dim=-1)
    difference = actual - expected
    size = difference.norm(dim=-1) if difference.ndim == acts.ndim else difference.abs()
    assert (size <= TOLERANCE[acts.dtype] * length).all(), (size / length).max()


def test_the_score_keeps_the_length_of_the_reading_vector(acts):
    direction = a_pair()
    read = 4 * draw(WIDTH, seed=1)
    assert direction.norm == direction.scale == pytest.approx(float(read.norm()))
    require_close(direction.score(acts), acts @ read + 1.5, acts)
    concepts = a_set()
    for column, each in enumerate(concepts.values()):
        require_close(concepts.scores(acts)[..., column], each.score(acts), acts)
        require_close(each.score(acts), each.norm * (acts @ each.vector) - each.offset, acts)


def test_the_vectors_of_a_set_are_those_that_read_and_those_that_write():
    concepts = a_set()
    reading = torch.stack([unit(draw(WIDTH, seed=seed)) for seed in (1, 2, 3)])
    torch.testing.assert_close(concepts.vectors, reading)
    expected = SIGMA.times(reading)
    torch.testing.assert_close(concepts.write_vectors, expected / expected.norm(dim=1, keepdim=True))
    torch.testing.assert_close(concepts.similarity(), reading @ reading.T)
    torch.testing.assert_close(concepts.subspace().project(reading), reading)


def test_on_a_model_the_operations_do_to_the_score_what_they_say(word_model):
    direction = a_pair()
    ids = word_model.to_tokens("w1 w2 w3")
    h = residuals(word_model, ids)[0, 1:]
    before = direction.score(h)
    for steering, expected in (
        (direction.add(strength=2.5, unit="score"), before + 2.5),
        (direction.clamp(value=-3.0), torch.full_like(before, -3.0)),
        (direction.ablate(), torch.zeros_like(before)),
        (direction.reflect(), -before),
        (direction.add(strength=0.1), direction.score(h + 0.1 * h.norm(dim=-1)[:, None] * direction.write_vector)),
        (direction.add(strength=3.0, unit="absolute"), direction.score(h + 3.0 * direction.write_vector)),
    ):
        with steering.on(word_model):
            after = residuals(word_model, ids)[0, 1:]
        scale = direction.scale
        require_close(direction.score(after) / scale, expected / scale, h)
        beside = (after - h).double()
        beside = beside - (beside @ direction.write_vector)[:, None] * direction.write_vector
        require_close(h + beside.to(h), h, h)
        assert not torch.equal(after, h)


def test_the_score_moves_by_exactly_the_strength_in_steer_and_in_a_plain_hook(word_model):
    direction = a_pair()
    ids = word_model.to_tokens("w1 w2 w3")
    h = residuals(word_model, ids)[0]
    with direction.steer(word_model, strength=-4.0, unit="score"):
        steered = residuals(word_model, ids)[0]
    require_close((direction.score(steered) - direction.score(h))[1:], torch.full((3,), -4.0), h[1:])
    assert torch.equal(steered[0], h[0])
    with word_model.hooks(fwd_hooks=[direction.hook(strength=-4.0, unit="score")]):
        hooked = residuals(word_model, ids)[0]
    assert torch.equal(hooked[1:], steered[1:])
    require_close(direction.score(hooked) - direction.score(h), torch.full((4,), -4.0), h)


def test_probes_and_gates_go_by_the_score_that_is_read(word_model):
    ids = word_model.to_tokens("w1 w2 w3 w7 w8")
    h = residuals(word_model, ids)[0]
    plain = a_pair()
    middle = float(plain.score(h)[1:].median()) + 1e-3
    direction = plain.calibrated(threshold=middle)
    fires = direction.predict(h)
    assert fires[1:].tolist() != (h.double() @ direction.write_vector > middle)[1:].tolist()
    assert 0 < fires[1:].sum() < 5
    assert direction.gate().fires(h).tolist() == fires.tolist()
    assert direction.gate(above=False).fires(h).tolist() == (~fires).tolist()
    with direction.add(strength=1.0).at(gate=direction.gate()).on(word_model):
        changed = (residuals(word_model, ids)[0] != h).any(-1)
    assert changed[1:].tolist() == fires[1:].tolist()
    read = direction.read(word_model, "w1 w2 w3 w7 w8").scores
    require_close(read.to(h) / direction.scale, direction.score(h).to(h) / direction.scale, h)


def test_pooled_scores_are_pools_of_the_scores(acts):
    direction, concepts = a_pair(), a_set()
    mask = torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(direction.pool(acts, by="mean", mask=mask), direction.score(acts).mean(1))
    torch.testing.assert_close(concepts.pool(acts, by="max", mask=mask), concepts.scores(acts).amax(1))


def test_every_swap_of_a_set_is_along_its_writing_vectors(word_model):
    concepts = a_set().with_beta(0.3)
    edits = counterfactual_edits(PROMPTS, seed=0, per_object=2)
    differences = swap_differences(concepts, edits)
    at_subject = lrc.swap_at_subject(word_model, concepts)
    assert len(edits) == 6
    for edit, difference in zip(edits, differences, strict=True):
        written = concepts[edit.target].write_vector - concepts[edit.prompt.object].write_vector
        assert torch.equal(difference, written)
        prompt = edit.prompt
        steering = concepts.swap_steering(
            word_model, remove=prompt.object, add=edit.target, text=prompt.text, subject=prompt.subject
        )
        h = draw(1, 3, WIDTH, seed=4)
        for swap in (steering.operation, at_subject(edit).operation):
            expected = 0.3 * h.norm(dim=-1, keepdim=True) * written
            require_close(swap.shift(h), expected, h)
            assert torch.equal(swap.vector, concepts[edit.target].vector)
        at_the_end = _at_the_end(concepts, edit).operation
        require_close(at_the_end.with_amount(0.3).shift(h), steering.operation.shift(h), h)


def test_a_pair_set_reads_with_one_vector_and_edits_as_a_set_of_the_other(word_model):
    concepts = a_set()
    written = only_writing(concepts)
    pairs = lrc.evaluate(word_model, concepts, PROMPTS, beta=0.4, progress=False)
    plain = lrc.evaluate(word_model, written, PROMPTS, beta=0.4, progress=False)
    assert torch.equal(pairs.causality_result.edited, plain.causality_result.edited)
    assert not torch.equal(pairs.causality_result.edited, pairs.causality_result.clean)
    activations = lrc.subject_activations(word_model, PROMPTS, layer=1)
    expected = [NAMES[place] for place in concepts.scores(activations).argmax(-1).tolist()]
    assert pairs.classification.predicted == tuple(expected)
    assert pairs.classification.predicted != plain.classification.predicted


def test_calibrated_strengths_are_those_of_the_writing_vectors(word_model):
    edits = lrc.edits_towards(PROMPTS[:6], "w6")
    limits = lrc.Limits(kl=None, perplexity_ratio=None, repetition=None)
    curves = []
    for concepts in (a_set(), only_writing(a_set())):
        swap = lrc.swap_at_subject(word_model, concepts)
        options = {"wanted": 0.9, "limits": limits, "strengths": [0.1, 0.5, 2.0], "refinements": 0}
        found = lrc.calibrate_strength(word_model, swap, edits, progress=False, **options)
        curves.append(found.to_frame())
    assert curves[0].equals(curves[1])


def test_under_the_covariance_rule_what_is_uncorrelated_with_the_concept_stays(word_model):
    direction = a_pair()
    seen = SIGMA.times(direction.vector)
    others = draw(4, WIDTH, seed=5)
    others = others - (others @ seen)[:, None] / (direction.vector @ seen) * direction.vector
    ids = word_model.to_tokens("w1 w2 w3")
    h = residuals(word_model, ids)[0, 1:]
    for steering in (direction.add(strength=0.5), direction.reflect(), direction.clamp(value=9.0)):
        with steering.on(word_model):
            after = residuals(word_model, ids)[0, 1:]
        assert ((after - h).norm(dim=-1) > 1e-3 * h.norm(dim=-1)).all(), "it was steered"
        for other in others:
            require_close(after.double() @ unit(other), h.double() @ unit(other), h)


def test_without_a_writing_vector_everything_is_as_it_was_to_the_bit(acts):
    vector = unit(draw(WIDTH, seed=1))
    direction = lrc.ConceptDirection(
        vector=vector, relation="r", object_name="x", hook_name=HOOK, norm=7.0, offset=0.25
    )
    assert direction.write_vector is vector
    assert (direction.write_rule, direction.scale) == ("vector", 1.0)
    assert torch.equal(direction.score(acts), acts @ vector - 0.25)
    concepts = lrc.ConceptSet({"x": direction})
    assert torch.equal(concepts.scores(acts), acts @ vector[None].T - 0.25)
    v = vector / vector.norm()
    length, projection = acts.norm(dim=-1, keepdim=True), (acts * v).sum(-1, keepdim=True)
    for steering, expected in (
        (direction.add(strength=0.25), 0.25 * length * v),
        (direction.add(strength=2.5, unit="absolute"), (2.5 * v).expand_as(acts)),
        (direction.clamp(value=3.0), (3.25 - projection) * v),
        (direction.ablate(), (0.0 - projection) * v),
        (direction.reflect(), 2 * (0.0 - projection) * v),
    ):
        assert torch.equal(steering.operation.shift(acts), expected)
        assert steering.operation.dual is None
    assert direction.gate(threshold=1.0).threshold == 1.25


def test_a_writing_vector_may_have_any_length_and_its_rule_is_given_unless_said():
    read = draw(WIDTH, seed=1)
    direction = lrc.ConceptDirection.from_unscaled(
        read, write_vector=30 * SIGMA.times(read), relation="r", object_name="x", hook_name=HOOK
    )
    torch.testing.assert_close(writing_vector(direction), unit(SIGMA.times(read)))
    narrow = lrc.ConceptDirection.from_unscaled(
        read.float(), write_vector=SIGMA.times(read.float()), relation="r", object_name="x", hook_name=HOOK
    )
    assert (narrow.vector.dtype, narrow.write_vector.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(narrow.write_vector.double(), direction.write_vector, rtol=0, atol=1e-6)
    assert direction.write_rule == "given"
    assert direction.norm == pytest.approx(float(read.norm()))


def across(seed=5):
    vector = unit(draw(WIDTH, seed=1))
    return unit(draw(WIDTH, seed=seed) - (draw(WIDTH, seed=seed) @ vector) * vector)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"write_vector": -unit(draw(WIDTH, seed=1))}, r"of 'x' have the cosine -1; it must be 0\.001 or more"),
        (
            {"write_vector": unit(across() + 0.99e-3 * unit(draw(WIDTH, seed=1)))},
            r"the reading and the writing vector of 'x' have the cosine 0\.00099; it must be 0\.001 or more",
        ),
        ({"write_vector": torch.eye(3).double()[0]}, "of 'x' has width 3, the reading one 12; they must be equal"),
        ({"write_vector": unit(draw(WIDTH, seed=1)).float()}, "of 'x' is torch.float32 on cpu, the reading one"),
        (
            {"write_vector": 2 * unit(draw(WIDTH, seed=1))},
            "the writing vector of 'x' has shape .* one finite unit",
        ),
        ({"write_vector": float("nan") * draw(WIDTH, seed=1)}, "the writing vector of 'x' has shape .* norm nan"),
        ({"write_rule": "covariance"}, "write_rule is 'covariance', but the direction of 'x' has no write_vector"),
        ({"write_vector": unit(draw(WIDTH, seed=1)), "write_rule": "vector"}, "another is given beside"),
        (
            {"write_vector": unit(draw(WIDTH, seed=1)), "write_rule": "mean"},
            "write_rule is 'mean'; allowed are 'vector', 'covariance' and 'given'",
        ),
        ({"write_vector": unit(draw(WIDTH, seed=1)), "norm": None}, "the norm of 'x' is None; with another"),
        ({"write_vector": unit(draw(WIDTH, seed=1)), "norm": 0.0}, r"the norm of 'x' is 0\.0; with another"),
        ({"write_vector": unit(draw(WIDTH, seed=1)), "norm": -2.0}, r"the norm of 'x' is -2\.0; with another"),
    ],
)
def test_vectors_that_do_not_go_together_are_refused_with_the_numbers(given, message):
    fields = {"vector": unit(draw(WIDTH, seed=1)), "relation": "r", "object_name": "x", "hook_name": HOOK}
    with pytest.raises(ValueError, match=message):
        lrc.ConceptDirection(**{**fields, "norm": 1.0, **given})


def test_a_zero_writing_vector_is_refused_with_its_name():
    with pytest.raises(ValueError, match=r"the writing vector for 'x' has norm 0\.0; it must be finite and not"):
        lrc.ConceptDirection.from_unscaled(
            draw(WIDTH, seed=1),
            write_vector=torch.zeros(WIDTH),
            relation="r",
            object_name="x",
            hook_name=HOOK,
        )


def test_another_reading_vector_alone_is_refused_since_the_writing_one_was_the_dual_of_the_first():
    plain = replace(a_pair(), write_vector=None, write_rule=None)
    with pytest.raises(ValueError, match="give write_vector=None and write_rule=None to keep that"):
        replace(plain, vector=unit(draw(WIDTH, seed=8)))
    other = replace(plain, vector=unit(draw(WIDTH, seed=8)), write_vector=None, write_rule=None)
    assert other.write_vector is other.vector


def test_centring_moves_the_scores_and_leaves_both_vectors(acts):
    concepts = a_set()
    rows = acts.reshape(-1, WIDTH)
    centred = concepts.centred(rows)
    assert torch.equal(centred.vectors, concepts.vectors)
    assert torch.equal(centred.write_vectors, concepts.write_vectors)
    require_close(centred.scores(rows).mean(0), torch.zeros(3), rows[:3])
    differences = concepts.scores(rows) - centred.scores(rows)
    torch.testing.assert_close(differences, differences[:1].expand_as(differences), rtol=0, atol=1e-9)
    for direction in centred.values():
        require_close(direction.score(rows + direction.ablate().operation.shift(rows[None])[0]), 0.0, rows)


def test_a_calibration_goes_by_the_scores_and_keeps_the_writing_vectors():
    concepts = a_set()
    rows = draw(60, WIDTH, seed=3) + 3 * concepts.vectors.repeat(20, 1)
    calibrated = concepts.calibrate(rows, list(concepts) * 20)
    assert torch.equal(calibrated.write_vectors, concepts.write_vectors)
    scores = concepts.scores(rows)
    for column, direction in enumerate(calibrated.values()):
        assert scores[:, column].min() < direction.threshold < scores[:, column].max()
        assert torch.equal(direction.predict(rows), scores[:, column] > direction.threshold)
    torch.testing.assert_close(calibrated.probabilities(rows).sum(-1), torch.ones(60).double())


def test_random_controls_write_with_the_vector_that_they_read_with():
    control = lrc.evaluation.random_concepts(a_set(), seed=0)
    assert torch.equal(control.write_vectors, control.vectors)
    assert {(direction.write_rule, direction.offset) for direction in control.values()} == {("vector", 0.0)}
    assert [direction.norm for direction in control.values()] == [one.norm for one in a_set().values()]


def test_a_direction_shows_itself_in_one_line_and_in_two_where_it_writes_with_another_vector():
    pair = a_pair()
    plain = replace(pair, write_vector=None, write_rule=None)
    first = f"ConceptDirection('r': 'w4' at {HOOK}, lrc, norm {pair.norm:.4g})"
    cosine = f"{float(pair.vector @ pair.write_vector):.2g}"
    assert repr(plain) == first
    assert repr(pair) == f"{first}\n  writes with another vector, cosine {cosine}"
    assert repr(a_pair(rule="given")) == f"{pair!r}; directions uncorrelated with it are not kept"
    assert repr(replace(plain, norm=None)).endswith("lrc, norm not recorded)")
    assert repr(a_set()) == f"ConceptSet('r', 3 concepts at {HOOK}: w4, w5, w6)"
