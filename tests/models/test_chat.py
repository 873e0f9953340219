"""Chats: the tokenizer's template with one beginning token, and the same as its text wherever a text goes in."""

import inspect

import pytest
import tiny_models
import torch
from public_names import public_function, taking_a_model
from tiny_steering import HOOK, unit

import lrc_tl as lrc
from lrc_tl.models.chat import as_texts
from lrc_tl.passes.batches import whole_text_ids

TEMPLATE = (
    "{{ beginning }}{% for m in messages %}"
    "{% if m['role'] == 'system' and not loop.first %}{{ raise_exception('system first') }}{% endif %}"
    "{{ m['role'] }} : {{ m['content'] }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
ASKED = [{"role": "system", "content": "w1"}, {"role": "user", "content": "w2 w3"}]
BEGUN = [*ASKED, {"role": "assistant", "content": "w4 w5"}]


@pytest.fixture(scope="module", params=["writes the beginning", "writes none"])
def model(request, class_of_model, tmp_path_factory):
    made = tiny_models.model_with(class_of_model, "own pad token", tmp_path_factory.mktemp("chat"))
    beginning = "<bos> " if request.param == "writes the beginning" else ""
    made.tokenizer.chat_template = TEMPLATE.replace("{{ beginning }}", beginning)
    return made


def direction():
    return lrc.ConceptDirection.from_unscaled(unit(), relation="r", object_name="a", hook_name=HOOK)


def concepts():
    made = [
        lrc.ConceptDirection.from_unscaled(unit(n), relation="r", object_name=f"o{n}", hook_name=HOOK)
        for n in (0, 1)
    ]
    return lrc.ConceptSet({one.object_name: one for one in made})


def test_the_assistants_turn_is_opened_after_the_user_and_left_open_after_the_assistant(model):
    asked, begun = lrc.models.chat_text(model, ASKED), lrc.models.chat_text(model, BEGUN)
    assert asked.removeprefix("<bos> ") == "system : w1 <eos> user : w2 w3 <eos> assistant :"
    assert begun.removeprefix("<bos> ") == "system : w1 <eos> user : w2 w3 <eos> assistant : w4 w5"


def test_a_chat_runs_with_exactly_one_beginning(model):
    read = direction().read(model, ASKED)
    assert read.tokens.count("<bos>") == 1
    assert read.tokens[0] == "<bos>"


def test_a_chat_is_its_text_wherever_a_text_goes_in(model):
    text, begun = lrc.models.chat_text(model, ASKED), lrc.models.chat_text(model, BEGUN)
    close = torch.testing.assert_close
    close(direction().read(model, ASKED).scores, direction().read(model, text).scores)
    for one, other in zip(
        concepts().read_texts(model, [ASKED, "w9", BEGUN]),
        concepts().read_texts(model, [text, "w9", begun]),
        strict=True,
    ):
        close(one.scores, other.scores)
    close(concepts().read(model, ASKED).scores, concepts().read(model, text).scores)
    assert concepts().classify(model, ASKED, subject="w3") == concepts().classify(model, text, subject="w3")
    for options in ({"by": "mean"}, {"by": "last_subject_token", "subjects": ["w3", "w5"]}):
        pooled = concepts().pool_texts(model, [ASKED, BEGUN], **options)
        close(pooled, concepts().pool_texts(model, [text, begun], **options))
        close(direction().pool_texts(model, [ASKED, BEGUN], **options), pooled[:, 0])
    place = lrc.last_subject_token(model, BEGUN, subject="w3")
    assert place == lrc.last_subject_token(model, begun, subject="w3")
    swap = {"remove": "o0", "add": "o1", "subject": "w3", "beta": 0.2}
    chats = lrc.generate(
        model, [ASKED, BEGUN], steering=concepts().swap_steering(model, text=ASKED, **swap), max_new_tokens=3
    )
    texts = lrc.generate(
        model, [text, begun], steering=concepts().swap_steering(model, text=text, **swap), max_new_tokens=3
    )
    for one, other in zip(chats, texts, strict=True):
        assert (one.prompt, one.text) == (other.prompt, other.text)
    assert (
        lrc.generate(model, BEGUN, max_new_tokens=3)[0].text
        == lrc.generate(model, begun, max_new_tokens=3)[0].text
    )
    with concepts().swap(model, text=ASKED, **swap):
        assert model(torch.tensor([whole_text_ids(model, text)])) is not None


def test_the_marks_of_a_chat_are_no_content(model):
    (last,) = lrc.passes.content_activations(model, [BEGUN], layer=1)
    text = lrc.models.chat_text(model, BEGUN)
    torch.testing.assert_close(last, lrc.passes.content_activations(model, [text], layer=1)[0])
    chats = {name: [[{"role": "user", "content": f"{name} w{n}"}] for n in range(4)] for name in ("w30", "w31")}
    made = lrc.contrast_concepts(model, classes=chats, layer=1, at=-2)
    texts = {name: [lrc.models.chat_text(model, chat) for chat in own] for name, own in chats.items()}
    torch.testing.assert_close(made.vectors, lrc.contrast_concepts(model, classes=texts, layer=1, at=-2).vectors)


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        ([], ValueError, "there are no messages"),
        ([{"role": "usr", "content": "a"}], ValueError, r"messages\[0\] has the role 'usr'; did you mean user"),
        (
            [*ASKED, {"role": "user", "content": " "}],
            ValueError,
            r"messages\[2\] has the content ' '; give some text",
        ),
        ([{"role": "user"}], ValueError, r"messages\[0\] has the keys \['role'\]; a message has 'role' and"),
        ([*ASKED, ASKED[0]], ValueError, r"refuses messages\[2\] \(of the system\): system first"),
        (["a"], TypeError, r"messages\[0\] is 'a' \(str\); each must be a Mapping"),
    ],
)
def test_bad_messages_are_refused_with_their_number(model, messages, error, message):
    with pytest.raises(error, match=message):
        lrc.models.chat_text(model, messages)


def test_a_tokenizer_without_a_template_and_one_chat_for_several_are_refused(model, word_model):
    with pytest.raises(ValueError, match="the model's tokenizer has no chat template"):
        lrc.generate(word_model, ASKED)
    with pytest.raises(TypeError, match="texts is one chat; give a list of chats"):
        concepts().read_texts(model, ASKED)
    with pytest.raises(TypeError, match=r"texts\[1\] is 3 \(int\); each must be a str or a list of messages"):
        as_texts(model, ["a", 3], "texts")
    with pytest.raises(ValueError, match="there are no messages"):
        direction().read(model, [])


def test_every_public_entry_point_with_a_model_and_a_text_takes_a_chat():
    texts = {"text", "texts", "neutral_texts", "positive", "negative", "classes"}
    found = set()
    for path in taking_a_model():
        parameters = inspect.signature(public_function(path)).parameters
        for parameter in texts & set(parameters):
            found.add(path)
            assert "Mapping[str, str]" in str(parameters[parameter].annotation), (path, parameter)
    assert {"ConceptSet.read", "logit_lens", "calibrate_strength", "free_text_edits", "contrast_concepts"} < found


def test_a_prompt_is_made_from_a_chat_and_says_the_object_behind_its_marks(model):
    prompt = lrc.models.chat_prompt(model, ASKED, subject="w2", object="w7", relation="r")
    assert prompt == lrc.Prompt(text=lrc.models.chat_text(model, ASKED), subject="w2", object="w7", relation="r")
    tokens = lrc.relations.tokenize_prompt(model, prompt)
    assert list(tokens.input_ids).count(model.tokenizer.bos_token_id) == 1
    assert model.tokenizer.decode([tokens.input_ids[tokens.subject_position]]) == "w2"
    assert model.tokenizer.decode(list(tokens.object_ids)) == "w7"
    again = [*ASKED, {"role": "assistant", "content": "w2"}]
    text = lrc.models.chat_text(model, again)
    places = [lrc.models.chat_prompt(model, again, subject="w2", object="w7", subject_start=start)
              for start in (None, text.index("w2"))]  # fmt: skip
    last, first = (lrc.relations.tokenize_prompt(model, one).subject_position for one in places)
    assert first < last == len(tokens.text_ids)
    with pytest.raises(lrc.errors.PositionError):
        lrc.models.chat_prompt(model, ASKED, subject="w9", object="w7")


def test_the_object_follows_a_line_end_directly(model, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "chat_template", model.tokenizer.chat_template.replace(
        "assistant :{% endif", "assistant :{{ '\\n' }}{% endif"))  # fmt: skip
    assert lrc.models.chat_text(model, ASKED).endswith("assistant :\n")
    assert lrc.models.chat_prompt(model, ASKED, subject="w2", object="w7").joint == ""
    assert lrc.models.chat_prompt(model, BEGUN, subject="w2", object="w7").joint == " "


def test_a_chat_with_a_gap_is_a_template_of_a_relation(model):
    form = lrc.models.chat_text(model, [{"role": "user", "content": "w1 {} w3"}])
    relation = lrc.Relation.from_pairs("r", [("w2", "w7"), ("w5", "w8")], templates=form)
    for prompt in relation.prompts():
        chat = [{"role": "user", "content": f"w1 {prompt.subject} w3"}]
        made = lrc.models.chat_prompt(model, chat, subject=prompt.subject, object=prompt.object)
        assert (prompt.text, prompt.joint) == (made.text, made.joint)


def test_edits_and_neutral_texts_may_be_chats(model):
    text = lrc.models.chat_text(model, BEGUN)
    assert lrc.free_text_edits([BEGUN], "w7", model=model) == lrc.free_text_edits([text], "w7")
    for given in ([BEGUN], BEGUN, ["w1", BEGUN]):
        with pytest.raises(ValueError, match="needs the template of a model; give model="):
            lrc.free_text_edits(given, "w7")
    edits = lrc.free_text_edits(["w1 w2 w3"], "w7")

    def calibrated(texts):
        return lrc.calibrate_strength(
            model, direction().add(strength=0.1), edits, strengths=[0.5], neutral_texts=texts,
            limits=lrc.Limits(repetition=None), refinements=0,
        )  # fmt: skip

    long = [{"role": "user", "content": " ".join(f"w{number}" for number in range(1, 12))}]
    chats, texts = calibrated([long]), calibrated([lrc.models.chat_text(model, long)])
    assert chats.to_frame().equals(texts.to_frame())


@pytest.mark.real_model
def test_smollm2_is_asked_in_its_own_template():
    model = lrc.load_model("packaged:smollm2-135m")
    asked = [{"role": "user", "content": "In which country is Osaka? Answer with its name alone."}]
    text = model.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert lrc.models.chat_text(model, asked) == text
    (answer,) = lrc.generate(model, asked, max_new_tokens=8)
    assert answer.text == lrc.generate(model, text, max_new_tokens=8)[0].text
    begun = [*asked, {"role": "assistant", "content": "The country is"}]
    assert lrc.models.chat_text(model, begun) == f"{text}The country is"
    tokens = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    place = lrc.last_subject_token(model, asked, subject="Osaka").position
    assert model.tokenizer.decode([tokens[place]]).strip() in "Osaka"
