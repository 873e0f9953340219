"""Relations made of what a tiny random model says itself, so that it knows them."""

import torch

import lrc_tl as lrc


def spoken_relation(model, *, name="spoken", tail="w41", count=40):
    """Subjects w0, w1 ... with the greedy next word as object, in the one template `{} tail`; for 0 shots."""
    ids = torch.cat([model.to_tokens(f"w{number} {tail}") for number in range(count)])
    with torch.no_grad():
        next_ids = model(ids)[:, -1].argmax(-1)
    answers = [model.tokenizer.decode(int(next_id)) for next_id in next_ids]
    pairs = [(f"w{number}", answer) for number, answer in enumerate(answers) if answer.startswith("w")]
    return lrc.Relation.from_pairs(name, pairs, templates=["{} " + tail])


def has_enough(relation, *, facts):
    """Whether a split leaves this many test facts, of two objects or more."""
    try:
        _, test = relation.split(seed=0)
    except lrc.errors.RelationError:
        return False
    return len(test.facts) >= facts and len(test.objects) >= 2


def spoken_relations(model, count):
    """Relations that can be evaluated, named `r0`, `r1` ..., each with a template of its own."""
    found = []
    for number in range(44):
        relation = spoken_relation(model, name=f"r{len(found)}", tail=f"w{number}")
        if has_enough(relation, facts=6):
            found.append(relation)
        if len(found) == count:
            return found
    raise AssertionError(f"the tiny model has only {len(found)} usable relations")
