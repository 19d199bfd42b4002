"""The prompt's pieces, its fit into the context, and the chat templates' ways."""

from typing import Any

import pytest

from flipfast.errors import ConfigError, InputError
from flipfast.parsing.wrappers import leaves_think_open
from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import STYLES, TARGETS, PromptTemplate, get_template
from tests.prompts.conftest import CHAT, NO_SYSTEM

DATE = "2024-07-26"
SHORT = PromptTemplate("short", None, "A {response} B", "C {context} A {response} B", False)


def renderer(tokenizer: Any, template: PromptTemplate = SHORT, **options: Any) -> PromptRenderer:
    usual = {"date": DATE, "thinking": False, "max_prompt_tokens": 4000}
    return PromptRenderer(tokenizer, template, **{**usual, **options})


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_prompt_reads_as_the_chat_template_says(
    make_tokenizer: Any, style: str, target: str
) -> None:
    tokenizer = make_tokenizer()
    template = get_template(style, target)
    prompt = renderer(tokenizer, template).render("the response", "the context")
    messages = [{"role": "user", "content": None}]
    assert template.user_with_context is not None
    messages[0]["content"] = template.user_with_context.format(
        response="the response", context="the context"
    )
    if template.system:
        messages.insert(0, {"role": "system", "content": template.system.format()})
    expected = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False)
    assert tokenizer.decode(prompt.token_ids) == expected
    assert not prompt.cut


def test_json_braces_are_single_in_the_prompt(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    text = tokenizer.decode(renderer(tokenizer, get_template("standalone")).render("x").token_ids)
    assert text.count('{"REASONING": "...", "INFERRED INSTRUCTION": "..."}') == 2
    assert "{{" not in text


def test_the_prefix_is_the_same_in_every_prompt(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    render = renderer(tokenizer, get_template("conversation")).render
    n_prefix = len(render("").token_ids) - len(tokenizer("\n").input_ids)
    prompts = [render(text).token_ids for text in ("\n\nline", " a man", "{}", "<|end|>")]
    common = 0
    while len({tuple(ids[: common + 1]) for ids in prompts}) == 1:
        common += 1
    assert common > 50
    assert all(ids[:common] == render("").token_ids[:common] for ids in prompts)
    assert n_prefix > common  # the tail follows the response


def test_braces_and_slots_in_a_response_are_text(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    text = "{response} {{x}} %s FLIPFASTxRESPONSExSLOT FLIPFASTxCONTEXTxSLOT"
    prompt = renderer(tokenizer).render(text, "c")
    assert f"C c A {text} B" in tokenizer.decode(prompt.token_ids)


def test_thinking_follows_the_option(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    off = tokenizer.decode(renderer(tokenizer).render("x").token_ids)
    on = tokenizer.decode(renderer(tokenizer, thinking=True).render("x").token_ids)
    assert off == on + "<think></think>\n"


def test_a_template_that_refuses_a_system_message_gets_one_message(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer(chat_template=NO_SYSTEM)
    template = get_template("standalone")
    text = tokenizer.decode(renderer(tokenizer, template).render("x").token_ids)
    assert template.system is not None
    assert f"<|user|>\n{template.system.format()}\n\n[Response]\nx" in text


def test_a_template_that_drops_the_message_is_refused(make_tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="does not keep"):
        renderer(make_tokenizer(chat_template="<|assistant|>"))


def test_the_date_in_a_template_is_fixed(make_tokenizer: Any) -> None:
    template = "{{ date_string }} {{ messages[-1].content }}"
    tokenizer = make_tokenizer(chat_template=template)
    assert "26 Jul 2024" in tokenizer.decode(renderer(tokenizer).render("x").token_ids)


def test_a_model_without_chat_template_gets_plain_text(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer(chat_template=None)
    template = get_template("standalone")
    text = tokenizer.decode(renderer(tokenizer, template).render("x").token_ids)
    assert template.system is not None
    assert text.startswith(template.system.format() + "\n\n[Response]\nx\n")
    assert text.endswith("\n\n")


@pytest.mark.parametrize("room", [100, 157, 900])
def test_a_long_response_loses_its_middle_only(make_tokenizer: Any, room: int) -> None:
    tokenizer = make_tokenizer()
    response = " ".join(str(i) for i in range(2000))
    prompt = renderer(tokenizer, max_prompt_tokens=room).render(response)
    text = tokenizer.decode(prompt.token_ids)
    assert prompt.cut
    assert len(prompt.token_ids) == room
    assert text.startswith("<s><|user|>\nA 0 1 2")
    assert text.endswith("1999 B<|end|>\n<|assistant|>\n<think></think>\n")
    assert "[...]" in text


def test_a_response_of_just_the_right_length_is_whole(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    length = len(renderer(tokenizer).render("x" * 200).token_ids)
    assert not renderer(tokenizer, max_prompt_tokens=length).render("x" * 200).cut
    assert renderer(tokenizer, max_prompt_tokens=length - 1).render("x" * 200).cut


def test_a_bound_on_the_response_alone(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    empty = len(renderer(tokenizer).render("").token_ids)
    prompt = renderer(tokenizer, max_response_tokens=64).render("0 " * 500)
    assert prompt.cut
    assert len(prompt.token_ids) == empty + 64


def test_a_long_context_leaves_room_for_the_response(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    prompt = renderer(tokenizer, max_prompt_tokens=300).render("1 " * 40, "2 " * 5000)
    text = tokenizer.decode(prompt.token_ids)
    assert prompt.cut
    assert len(prompt.token_ids) == 300
    assert "1 " * 40 in text


def test_no_room_is_an_error(make_tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="room for -?\\d+ tokens of response within 20"):
        renderer(make_tokenizer(), max_prompt_tokens=20)


def test_a_context_without_a_place_is_an_error(make_tokenizer: Any) -> None:
    template = PromptTemplate("bare", None, "{response}", None, True)
    with pytest.raises(InputError, match="no {context}"):
        renderer(make_tokenizer(), template).render("x", "y")


@pytest.mark.parametrize("reserved", [0, 40, 90])
def test_what_follows_a_prompt_has_its_room(make_tokenizer: Any, reserved: int) -> None:
    prompts = renderer(make_tokenizer(), max_prompt_tokens=200)
    assert len(prompts.render("0 " * 500, reserved=reserved).token_ids) == 200 - reserved
    short = prompts.render("0 ", reserved=reserved)
    assert not short.cut
    most = 200 - len(short.token_ids)
    assert prompts.render("0 ", reserved=most) == short
    with pytest.raises(InputError, match=rf"{most + 1} to follow .* room for 1 tokens .* 200"):
        prompts.render("0 ", reserved=most + 1)
    with pytest.raises(InputError, match="room for 15 tokens"):
        prompts.render("0 " * 500, reserved=most + 2 - 15)


@pytest.mark.parametrize(
    ("template", "think_open"), [(CHAT, False), (CHAT + "<think>\n", True), (None, False)]
)
def test_what_prompts_end_with(make_tokenizer: Any, template: Any, think_open: bool) -> None:
    tokenizer = make_tokenizer(chat_template=template)
    made = renderer(tokenizer)
    endings = made.endings()
    assert len(endings) == 2
    for ending, context in zip(endings, (None, "the context"), strict=True):
        prompt = tokenizer.decode(made.render("the response", context).token_ids)
        assert prompt.endswith(f"the response{ending}")
        assert leaves_think_open(ending) == think_open
