"""What chat templates see and what they do with messages, in small forms of real ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from flipfast.errors import ConfigError, InputError, ModelLoadError
from flipfast.prompts.chat import ChatTemplate
from flipfast.prompts.jinja_program import format_date
from tests.prompts.conftest import CHAT, CLOCK, NO_SYSTEM, on_day

DATE = "2024-07-26"
TURN = "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n"
ASK = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
# Phi-3, as first published: user turns alone, and each opens the answer.
USER_ALONE = (
    "{% for m in messages %}{% if m.role == 'user' %}" + TURN + "<|assistant|>\n"
    "{% elif m.role == 'assistant' %}{{ m.content }}<|end|>\n{% endif %}{% endfor %}"
)
# Models with images.
PARTS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|end|>\n{% endfor %}" + ASK
)
FIRST_PART = PARTS.replace("{% for part in m.content %}", "{% set part = m.content[0] %}").replace(
    "{% endfor %}<|end|>", "<|end|>"
)
PARTS_OF_USERS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content if m.role == 'system' else "
    "m.content[0]['text'] }}<|end|>\n{% endfor %}" + ASK
)
PARTS_WITHOUT_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
PARTS_WITHOUT_SYSTEM += FIRST_PART
# Mistral: what ends the user's turn opens the answer.
BRACKETS = (
    "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>{% else %}"
    "[{{ m.role }}] {{ m.content }}[/{{ m.role }}]{% endif %}{% endfor %}"
)
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Which river?"},
    {"role": "assistant", "content": "The Ebro."},
    {"role": "user", "content": "How long?"},
]
SPLIT = (
    "<|system|>\nBe brief.<|end|>\n<|user|>\nWhich river?<|end|>\n<|assistant|>\nThe Ebro.<|end|>\n"
    "<|user|>\nHow long?<|end|>\n<|assistant|>\n"
)
FOLDED = (
    "<|user|>\nBe brief.\n\nWhich river?<|end|>\n<|assistant|>\nThe Ebro.<|end|>\n"
    "<|user|>\nHow long?<|end|>\n<|assistant|>\n"
)


@pytest.fixture
def chat(make_tokenizer: Any) -> Callable[..., ChatTemplate]:
    def make(template: Any, date: str = DATE) -> ChatTemplate:
        return ChatTemplate(make_tokenizer(chat_template=template), date=date)

    return make


@pytest.fixture
def prompt(make_tokenizer: Any, chat: Any) -> Callable[..., str]:
    """The text of a prompt with a system message and one slot, shown as `...`."""

    def render(template: str, **options: Any) -> str:
        tokenizer = make_tokenizer()
        pieces = chat(template, **options).pieces("Infer <it>:", 'as "{x}" of\nit', ("x",))
        return "".join("..." if isinstance(p, str) else tokenizer.decode(p) for p in pieces)

    return render


# What a template gets to see.

GRANITE = "Today's Date: {{ strftime_now('%B %d, %Y') }}.\n"
MISTRAL = "{% set today = strftime_now('%Y-%m-%d') %}The current date is {{ today }}.\n"
LLAMA = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today Date: {{ date_string }}\n"
)


@pytest.mark.parametrize(
    ("template", "default", "other"),
    [
        (GRANITE, "Today's Date: July 26, 2024.", "Today's Date: March 01, 2031."),
        (MISTRAL, "The current date is 2024-07-26.", "The current date is 2031-03-01."),
        (LLAMA, "Today Date: 26 Jul 2024", "Today Date: 01 Mar 2031"),
    ],
)
def test_the_date_is_the_option_s_on_any_day(
    template: str,
    default: str,
    other: str,
    make_tokenizer: Any,
    prompt: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = set()
    for day in (2, 3):
        monkeypatch.setattr(CLOCK, on_day(day))
        tokenizer = make_tokenizer(chat_template=template)
        seen.add(tokenizer.apply_chat_template(CONVERSATION, tokenize=False))
        assert prompt(template + CHAT).startswith(default + "\n<s><|system|>")
        assert prompt(template + CHAT, date="2031-03-01").startswith(other)
    assert len(seen) == 2, "the clock is not the one that transformers shows"


def test_a_date_is_english_in_every_locale() -> None:
    class NoLocale(datetime):
        def strftime(self, form: str) -> str:
            assert not {f"%{letter}" for letter in "aAbBhpPcrxXs"} & set(form.split("|"))
            return super().strftime(form)

    day = NoLocale(2024, 7, 26, 15, 4, 5)
    assert format_date(day, "%a|%A|%b|%h|%B|%p|%P") == "Fri|Friday|Jul|Jul|July|PM|pm"
    assert format_date(day, "%c|%r") == "Fri Jul 26 15:04:05 2024|03:04:05 PM"
    assert format_date(day, "%x|%X|%s|%j") == "07/26/24|15:04:05|1722006245|208"
    assert format_date(day, "100%%b %%|%Z|%é") == "100%b %||%é"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("{{ ['a', 'b'] | random }}", "'random' would make a reward differ"),
        ("{{ lipsum(n=1) }}", "'lipsum' is undefined"),
        ("{{ strftime_now(5) }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('not\nthis way') }}", "refuses the messages: not this way$"),
    ],
)
def test_a_template_that_fails_says_why(chat: Any, code: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        chat(code + CHAT)
    assert "\n" not in str(caught.value)


def test_nothing_else_is_defined(prompt: Any) -> None:
    names = [
        "now",
        "datetime",
        "os",
        "environ",
        "request",
        "config",
        "self_name",
        "documents",
        "tools",
        "custom_tools",
    ]
    code = "".join(f"{{{{ '{name} ' if {name} }}}}" for name in names)
    assert prompt(code + CHAT) == prompt(CHAT)


def test_special_tokens_are_those_of_the_start(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    made = ChatTemplate(tokenizer, date=DATE)
    tokenizer.bos_token, tokenizer.chat_template = "<|end|>", "{{ messages[0].content }}"
    assert made.text(CONVERSATION) == "<s>" + SPLIT + "<think></think>\n"


def test_a_template_has_what_transformers_gives_it(make_tokenizer: Any, chat: Any) -> None:
    template = (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% if loop.index == 3 %}{% continue %}"
        "{% endif %}{% set ns.n = ns.n + 1 %}{{ {'id': ns.n, 'é': '<'} | tojson }}\n    "
        "{% if m.role == 'user' %}\n{{ m.content }}\n    {% endif %}{% generation %}{{ m.content }}"
        "{% endgeneration %}\n{% endfor %}{{ bos_token }}{{ dict(a=tools).items() | list }}"
    ).replace("{{ m.content }}\n    ", "")
    expected = make_tokenizer(chat_template=template).apply_chat_template(
        CONVERSATION, tokenize=False, add_generation_prompt=True
    )
    assert chat(template).text(CONVERSATION) == expected
    assert '{"id": 3, "é": "<"}' in expected


# The form of the messages.


@pytest.mark.parametrize("template", [USER_ALONE, NO_SYSTEM.replace("{{ bos_token }}", "")])
def test_a_system_message_that_would_be_lost_goes_to_the_user(
    prompt: Any, chat: Any, template: str
) -> None:
    assert prompt(template).startswith(
        '<|user|>\nInfer <it>:\n\nas "..." of\nit<|end|>\n<|assistant|>\n'
    )
    assert chat(template).text(CONVERSATION).startswith(FOLDED)


def test_system_messages_anywhere_go_to_the_next_user(chat: Any) -> None:
    made = chat(USER_ALONE)
    asked = {"role": "user", "content": "a"}
    told = [{"role": "system", "content": text} for text in ("b", "c")]
    assert made.text([*told, asked]).startswith("<|user|>\nb\n\nc\n\na<|end|>")
    assert made.text([asked, *told]) == (
        "<|user|>\na<|end|>\n<|assistant|>\n<|user|>\nb\n\nc<|end|>\n<|assistant|>\n"
    )


@pytest.mark.parametrize("template", [PARTS, FIRST_PART, PARTS_OF_USERS])
def test_a_template_of_parts_gets_parts(prompt: Any, chat: Any, template: str) -> None:
    assert prompt(template) == (
        '<|system|>\nInfer <it>:<|end|>\n<|user|>\nas "..." of\nit<|end|>\n<|assistant|>\n'
    )
    assert chat(template).text(CONVERSATION) == SPLIT


def test_a_template_of_parts_without_system_messages(prompt: Any, chat: Any) -> None:
    assert prompt(PARTS_WITHOUT_SYSTEM).startswith('<|user|>\nInfer <it>:\n\nas "..." of\nit')
    assert chat(PARTS_WITHOUT_SYSTEM).text(CONVERSATION) == FOLDED


@pytest.mark.parametrize(
    "content",
    [
        "m.content | upper",
        "m.content | escape",
        "m.content | tojson",
        "m.content | string | replace('\n', ' ')",
        "m.content | truncate(40)",
        "[m.content]",
        "m.content ~ m.content",
        "m.role",
    ],
)
def test_texts_that_change_are_refused(chat: Any, content: str) -> None:
    template = "{% for m in messages %}<|{{ m.role }}|>{{ " + content + " }}{% endfor %}"
    with pytest.raises(ConfigError, match="does not keep the message .*: it makes") as caught:
        chat(template)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("role", ["system", "user"])
def test_a_long_text_that_is_cut_is_refused(chat: Any, role: str) -> None:
    cut = "{{ m.content[:200] if m.role == '" + role + "' else m.content }}"
    made, long = chat("{% for m in messages %}" + cut + "{% endfor %}"), "." * 250
    texts = {"system": "Infer.", "user": "{x}", role: long if role == "system" else "{x}" + long}
    with pytest.raises(ConfigError, match=r"does not keep the message '\w*\.\.\.\."):
        made.pieces(texts["system"], texts["user"], ("x",))


def test_a_lost_turn_of_the_user_is_an_input_error(chat: Any) -> None:
    last = "{% for m in messages %}{% if loop.last or m.role == 'system' %}" + TURN
    last += "{% endif %}{% endfor %}"
    with pytest.raises(InputError, match="does not keep the message 'Which river"):
        chat(last).text(CONVERSATION)
    think = CHAT.replace("m.content", "m.content.split('</think>')[-1]")
    answered = [CONVERSATION[1], {"role": "assistant", "content": "hm</think>ok"}, CONVERSATION[3]]
    assert "hm" not in chat(think).text(answered)


def test_a_refused_conversation_is_an_input_error(chat: Any) -> None:
    picky = "{% if messages | length > 2 %}{{ raise_exception('too long') }}{% endif %}" + CHAT
    with pytest.raises(InputError, match="refuses the messages: too long"):
        chat(picky).message_ids(CONVERSATION)


# The generation prompt.


@pytest.mark.parametrize(
    ("template", "lacks"),
    [
        ("{% for m in messages %}" + TURN + "{% endfor %}", r"'<|assistant|>\n'"),
        (PARTS.replace(ASK, ""), r"'<|assistant|>\n'"),
        (
            "{% for m in messages if m.role != 'assistant' %}" + TURN + "{% endfor %}",
            "what the model was trained to have",
        ),
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}"
            "{% endif %}" + TURN + "{% endfor %}",
            "what the model was trained to have",
        ),
    ],
)
def test_no_generation_prompt_is_logged_once(
    chat: Any, template: str, lacks: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = chat(template)
    made.text(CONVERSATION[:2])
    made.pieces(None, "{x}", ("x",))
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert f"ignores add_generation_prompt: prompts lack {lacks} before" in record.getMessage()


@pytest.mark.parametrize("template", [CHAT, PARTS, USER_ALONE, BRACKETS, NO_SYSTEM, None])
def test_whole_prompts_log_nothing(
    chat: Any, template: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    chat(template)
    assert not caplog.records


# Templates that are none.


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m.content }}", "cannot be read: line 1: .*'endfor'"),
        ("{{ messages | no_such_filter }}", "cannot be read: line 1: No filter named"),
        ({"rag": CHAT, "tool_use": CHAT}, "one of 'rag', 'tool_use', and none is named 'default'"),
        ({"default": ["x"]}, r"must be a text, not \['x'\]"),
    ],
)
def test_templates_that_cannot_be_read(chat: Any, template: Any, reason: str) -> None:
    with pytest.raises(ModelLoadError, match=reason) as caught:
        chat(template)
    assert "\n" not in str(caught.value)


def test_of_several_the_default_is_taken(prompt: Any) -> None:
    assert prompt({"default": CHAT, "tool_use": "{{ nothing"}) == prompt(CHAT)
