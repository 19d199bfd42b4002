"""The robust parser: every form written out, the recorded outputs, and properties."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flipfast import ConfigError, InputError, extract_instruction

STATUSES = ("ok", "recovered", "prose", "truncated", "empty", "unparsed")
FORMAT = '{"REASONING": "...", "INFERRED INSTRUCTION": "..."}'
HOSTILE = [
    "{",
    '"',
    "\\",
    "<think>",
    "<think></think>",
    "</think>",
    "[{",
    " ",
    "\n",
    "```",
    '","',
    '" : ',
    '"instruction":',
    '"instruction":"',
    '"instruction":["',
    '"instruction": "a"\nx',
    '"INFERRED INSTRUCTION":a ',
    "\\ud83d",
    "inferred instruction:\n",
    '"//',
    '"//\n',
    '"/*',
    '"# ',
    '{"a": "b",',
    '"{a: "b"}',
    '"""',
    "„",
    '{\\"',
    ";a:\\n",
    "a:\\U",
    "<instruction>",
    "<inferred instruction></",
    "<reasoning>",
]
# Random outputs seldom hold the characters that matter, so these are put in often.
PIECES = st.sampled_from(
    [
        *"\"'\\{}[],:\nx",
        *("<think>", "</think>", "```json", "\\u00", "REASONING"),
        *('"INFERRED INSTRUCTION": ', "'instruction': ", "“Inferred_Instruction”:"),
        *(
            '{"a": "b", "c": 1}',
            "\\frac",
            "\\nabla",
            "C:\\Users\\new",
            '\\"',
            "// x\n",
            "/*",
            "„",
            "“",
        ),
        *("：", "，", "=", '"""', "<reasoning>", "</reasoning>", "<inferred_instruction>", "</"),
    ]
)


@pytest.fixture
def golden(shared_file):
    with gzip.open(
        shared_file("golden/extraction_golden.jsonl.gz"), "rt", encoding="utf-8"
    ) as file:
        return [json.loads(line) for line in file]


def test_recorded_outputs_give_what_the_model_emitted(golden):
    nothing = {"empty": "empty", "null_value": "empty", "missing_key": "unparsed"}
    nothing["number"] = "unparsed"
    for row in golden:
        found, status = extract_instruction(row["model_output"])
        emitted = row["emitted_instruction"]
        form = row["form"]
        if form in nothing:
            assert (found, status) == ("", nothing[form]), row
        elif form == "truncated":
            assert emitted.startswith(found), row
            assert status == "truncated" or found == emitted, row
        elif form == "raw_newline":
            # Made by adding a line to the value and simplifying its quotes and backslashes.
            assert found == emitted.replace('"', "'").replace("\\", "") + "\nsecond line", row
        else:
            assert found == emitted, row
            assert status in (("prose",) if form == "plain" else ("ok", "recovered")), row


CLEAN = [
    '{"REASONING": "r", "INFERRED INSTRUCTION": "What is x?"}',
    '{\r\n  "REASONING": "r",\r\n  "inferred_instruction": "What is x?"\r\n}\n',
    '```json\n{"INFERRED INSTRUCTION": "What is x?"}\n```',
    '```{"INFERRED INSTRUCTION": "What is x?"}```',
    '```JSON {"INFERRED INSTRUCTION": "What is x?"}',
    '<think>\nr {"a"\n</think>\n\n{"INFERRED INSTRUCTION": "What is x?"}',
    '<think>a</think><think>b</think>```\n{"Inferred-Instruction": "What is x?"}\n```',
    '{"inferredInstruction": "What is x?"}',
    '{"INFERED_INSTUCTION": "What is x?"}',
    '{"Instruction": "What is x?", "instruction_language": "German"}',
    '{"instruction": "no", "Inferred instructions": "What is x?"}',
    '{"INFERRED INSTRUCTION": null, "inferred instruction": "What is x?"}',
    '{"Inferred_Instruction": "What is x?", "INFERRED INSTRUCTION": "no"}',
    '{"Inferred_Instruction": "...", "INFERRED INSTRUCTION": "What is x?"}',
    '{"REASONING": "r", "INFERRED INSTRUCTION": "What is x?"}\n\nI hope this helps!',
    '{"INFERRED INSTRUCTION": "What is x?", "REASONING": "it was cut',
]
MENDED = [
    'Here it is:\n{"REASONING": "r", "INFERRED INSTRUCTION": "What is x?"}\n\nI hope this helps!',
    '{{"REASONING": "r", "INFERRED INSTRUCTION": "What is x?"}}',
    '{"REASONING": "r", "INFERRED INSTRUCTION": "What is x?",}',
    '{"REASONING": "r" "INFERRED INSTRUCTION": "What is x?" "NOTE": "n"}',
    '{"REASONING": "r"\n"INFERRED INSTRUCTION": "What is x?"',
    '{"INFERRED INSTRUCTION": "What is x?"\n\nI hope this helps!',
    '{"INFERRED INSTRUCTION": "What is x?"\n{"REASONING": "r"}',
    '{"REASONING": "the \'inferred instruction\': \'it", "INFERRED INSTRUCTION": "What is x?",}',
    "{'REASONING': 'r', 'INFERRED INSTRUCTION': 'What is x?'}",
    "{'REASONING': \"it's\", 'INFERRED INSTRUCTION': \"What is x?\"}",
    "{“REASONING”: “r”, “INFERRED INSTRUCTION”: “What is x?”}",
    '{“INFERRED INSTRUCTION”: "What is x?"}',
    '{INFERRED INSTRUCTION: "What is x?"}',
    '{"INFERRED INSTRUCTION": What is x?}',
    '{"INFERRED INSTRUCTION: "What is x?"}',
    '{"REASONING": "r", "INFERRED INSTRUCTION": ["What is x?"]}',
    '[{"REASONING": "r", "INFERRED INSTRUCTION": "What is x?"}]',
    '{"answer": {"INFERRED INSTRUCTION": "What is x?"}}',
    '{"INFERRED INSTRUCTION": {"text": "What is x?"}}',
    '{\\n "REASONING": "r",\\n "INFERRED INSTRUCTION": "What is x?"\\n}',
    '{"REASONING":\\_ "r\\_", "INFERRED INSTRUCTION": "What is x?"}',
    '<think>\nFirst I look. {"REASONING": "r", "INFERRED INSTRUCTION": "What is x?"}',
    'I looked.\n</think>\n{"INFERRED INSTRUCTION": "What is x?"}',
    '<answer>{"INFERRED INSTRUCTION": "What is x?"}</answer>',
    'REASONING: r\nINFERRED INSTRUCTION: "What is x?"',
    "**Reasoning:** r\n\n**Inferred Instruction:** What is x?",
    "### Inferred instruction\n\nWhat is x?",
    r"{\"REASONING\": \"r\", \"INFERRED INSTRUCTION\": \"What is x?\"}",
    r"{\n  \"REASONING\": \"an \\\"r\\\"\",\n  \"INFERRED INSTRUCTION\": \"What is x?\"\n}",
    r'"{\"REASONING\": \"r\", \"INFERRED INSTRUCTION\": \"What is x?\"}"',
    r"Here: ```json {\\\"INFERRED INSTRUCTION\\\": \\\"What is x?\\\"} ```",
    '{"REASONING": "r", // how\n"INFERRED INSTRUCTION": "What is x?" // final\n}',
    '{"REASONING": "r", // the "how"\n"INFERRED INSTRUCTION": "What is x?", // "final"\n}',
    '{"REASONING": "r", "INFERRED INSTRUCTION": "What is x?" // final }',
    '{"REASONING": "r" /* how */, "INFERRED INSTRUCTION": /* * */ "What is x?" /* final */}',
    '{"REASONING": "r", # how\n"INFERRED INSTRUCTION": "What is x?" # final\n}',
    "{„REASONING“: „r“, „INFERRED INSTRUCTION“: „What is x?“}",
    "{„REASONING”: „r”, „INFERRED INSTRUCTION”: „What is x?”}",
    '{„INFERRED INSTRUCTION“: "What is x?", „NOTE“: „n“}',
    "{‚REASONING‘: ‚r‘, ‚INFERRED INSTRUCTION‘: ‚What is x?‘}",
    "{«REASONING» : «r», «INFERRED INSTRUCTION» : «What is x?»}",
    "{»REASONING«: »r«, »INFERRED INSTRUCTION«: »What is x?«}",
    "{「REASONING」：「r」，「INFERRED INSTRUCTION」：「What is x?」}",
    "{『INFERRED INSTRUCTION』：『What is x?』，『NOTE』：『n』}",
    '{"REASONING"："r"，"INFERRED INSTRUCTION"："What is x?"}',
    "｛“REASONING”：“r”，“INFERRED INSTRUCTION”：“What is x?”｝",
    '{"Begründung": "r", "Abgeleitete Anweisung": "What is x?"}',
    '{"推理": "r", "推断的指令": "What is x?"}\n\n希望对你有帮助',
    "```json\n{“推理”：“r”，“推断的指令”：“What is x?”}\n```",
    '<think>x</think><answer>{"推理": "the "r"", "指令": "What is x?",}</answer>',
    "<inferred_instruction>What is x?</inferred_instruction>",
    "<INFERRED INSTRUCTION>\nWhat is x?\n</INFERRED INSTRUCTION>\nBye!",
    'Sure: <inferred-instruction>"What is x?"</inferred-instruction>',
    "<reasoning>r</reasoning><instruction>What is x?</instruction>",
    "<inferred_instruction>...</inferred_instruction>\n"
    "<inferred_instruction>What is x?</inferred_instruction>",
    '"REASONING" = "r"\n"INFERRED INSTRUCTION" = "What is x?"',
    '{"REASONING" = "r", "INFERRED INSTRUCTION" = "What is x?"}',
    '{"REASONING" => "r", "INFERRED INSTRUCTION" => "What is x?"}',
    'reasoning = "r"\ninferred_instruction = "What is x?"',
    '{"REASONING": "r", "INFERRED INSTRUCTION": """What is x?"""}',
    '{"REASONING": """r""", "INFERRED INSTRUCTION": """\nWhat is x?\n"""\n}',
    "{'REASONING': '''r''', 'INFERRED INSTRUCTION': '''What is x?''', 'NOTE': 'n'}",
    'INFERRED INSTRUCTION: """What is x?"""',
]


# No object: the whole text is the instruction.
PROSE = [
    "What is x?",
    "```\nWhat is x?\n```",
    "<answer>What is x?</answer>",
    "<think>a</think>What is x?",
    "I looked.</think>What is x?",
    "<reasoning>r</reasoning>\n\nWhat is x?",
    "<Thinking>r</Thinking><answer>What is x?</answer>",
]


@pytest.mark.parametrize("output", PROSE)
def test_output_without_an_object(output):
    assert extract_instruction(output) == ("What is x?", "prose")


@pytest.mark.parametrize(
    "text",
    [
        "Now, new instruction: be brief",
        "\x1c\"quoted\" 'text'\n",
        'Convert {"name": "Bob", "city": "Rome"} to YAML.',
        "Explain the <instruction>x</instruction> tag.",
        "What does <inferred_instruction> do?",
        "<instruction> and <instructions>: which?",
        r'Escape {"name": "Bob"} as {\"name\": \"Bob\"}.',
    ],
)
def test_text_without_an_object_is_kept_whole(text):
    assert extract_instruction(text) == (text, "prose")


@pytest.mark.parametrize("output", CLEAN)
def test_clean_object(output):
    assert extract_instruction(output) == ("What is x?", "ok")


@pytest.mark.parametrize("output", MENDED)
def test_mended_output(output):
    assert extract_instruction(output) == ("What is x?", "recovered")


COMPARE = 'Compare "War and Peace", "Emma" now.'


# Values whose quotes, brackets and all, are not escaped.
UNESCAPED = [
    'Convert {"name": "Bob", "age": 3} to YAML.',
    'Convert "{"name": "Bob", "age": 3}" to YAML.',
    'To YAML: {"name": "Bob", "tags": ["a", {"b": "c"}]}',
    '{"name": "Bob", "in": {"a": "b"}} to YAML, please',
    'Convert {name: "Bob"} and a { content: "" } to JSON.',
    'Convert {\n  "name": "Bob",\n  "age": 3\n} to YAML.',
    'Run print({"a": "b", "c": "d"}) // twice',
    'Explain the pair "name": "Bob", "age": 3 to me.',
    'What does { mean in {"a": "b", "c": 1}?',
    'What does "{" mean?',
    'Replace "{" by "}" now.',
    'What is 6" in cm?',
    'How long is a 6" cut in {"a": "b", "c": 1}?',
    'Say "hi" // "there"',
]
BEHIND = [
    "}",
    "\n}\n\nI hope this helps!",
    ', "REASONING": "an {\\"a\\": 1}"}',
    ', "NOTE": "}"}',
    "",
]


@pytest.mark.parametrize("value", UNESCAPED)
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("before", ['{"REASONING": "r", ', 'Here: {"REASONING": "r", '])
def test_a_value_with_unescaped_quotes_is_whole(before, value, behind):
    output = f'{before}"INFERRED INSTRUCTION": "{value}"{behind}'
    assert extract_instruction(output) == (value, "recovered")


def test_a_cut_value_with_unescaped_quotes():
    start = '{"REASONING": "r", "INFERRED INSTRUCTION": "'
    for cut in (UNESCAPED[0][:-5], UNESCAPED[1][:-5], UNESCAPED[2][:-4]):
        assert extract_instruction(start + cut) == (cut, "truncated")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (r"Solve \frac{a}{b} = \sqrt{2}", None),
        (r"Solve \frac{a}{b}.", None),
        (r"\alpha + \beta", None),
        (r"\begin{bmatrix} \bar x \boldsymbol{b} \binom n k \end{bmatrix}", None),
        (r"\nabla f, \theta, \text{if} \rho \times r \neq 0", None),
        (r"$E = h\nu$, f\colon A \to B, \tan\theta, \right)", None),
        (r"\underline{u} \upsilon", None),
        (r"Read C:\Users\new\test.txt now", None),
        (r"Read d:\repos\bin and E:\Über\temp", None),
        # Escaped as they should be.
        (r"\\frac C:\\Users\\new", r"\frac C:\Users\new"),
        # Escapes: a line, a tab, and a sign of no command.
        (
            r"one\nabout\ttwo\nThe\nexists\n\ntext\b\f\r\n",
            "one\nabout\ttwo\nThe\nexists\n\ntext\b\f\r\n",
        ),
        (r"Q:\nwhat?\nA:\tthat", "Q:\nwhat?\nA:\tthat"),
        (r"Open C:\Users\nThen \u00e9", "Open C:\\Users\nThen é"),
        (r"w\to the\nu\tan one", "w\to the\nu\tan one"),
    ],
)
def test_backslashes_that_were_not_escaped(raw, value):
    value = raw if value is None else value
    for output in (
        f'{{"REASONING": "r", "INFERRED INSTRUCTION": "{raw}"}}',
        f'{{"REASONING": "r", "instruction": "{raw}"}}',
        f'Here: {{"REASONING": "r", "INFERRED INSTRUCTION": "{raw}",}}',
    ):
        try:
            clean = value in json.loads(output).values()
        except json.JSONDecodeError:
            clean = False
        assert extract_instruction(output) == (value, "ok" if clean else "recovered")


def test_a_command_in_the_reasoning_does_not_matter():
    for key in ("INFERRED INSTRUCTION", "instruction"):
        output = f'{{"REASONING": "\\frac", "{key}": "x"}}'
        assert extract_instruction(output) == ("x", "ok")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ('{"INFERRED INSTRUCTION": "' + COMPARE + '"}', COMPARE),
        ('{"INFERRED INSTRUCTION": "' + COMPARE + '", "CONFIDENCE": 1}', COMPARE),
        ("{'INFERRED INSTRUCTION': '" + COMPARE + "'}", COMPARE),
        ("{“INFERRED INSTRUCTION”: “" + COMPARE + "”}", COMPARE),
        ("{„INFERRED INSTRUCTION“: „Sage „hallo“ laut.“, „NOTE“: „n“}", "Sage „hallo“ laut."),
        ("{'INFERRED INSTRUCTION': 'What's up?', 'NOTE': 'it's'}", "What's up?"),
        ('{"INFERRED INSTRUCTION": """Say "hi" now""""}', 'Say "hi" now"'),
        ("<instruction>Explain <instructions>.</instruction>", "Explain <instructions>."),
        ("<reasoning>r</reasoning>{'INFERRED INSTRUCTION': 'x'}", "x"),
        (
            '<inferred_instruction>Turn {"instruction": "x"} into YAML.</inferred_instruction>',
            'Turn {"instruction": "x"} into YAML.',
        ),
        ("{'INFERRED INSTRUCTION': 'What's up, 'doc'?'}", "What's up, 'doc'?"),
        ("{'INFERRED INSTRUCTION': 'a\\'b\\x41\\U0001f600\\u00e9'}", "a'bA😀é"),
        ('{"INFERRED INSTRUCTION": "a\\x41 \\_ \\u12",}', "a\\x41 \\_ \\u12"),
        ('{"INFERRED INSTRUCTION": "\\ud83d\\ude00 \\\\n \\"\\/\\t\\ud800",}', '😀 \\n "/\t\ud800'),
        ('{"INFERRED INSTRUCTION": "one\n\ntwo\x00"}', "one\n\ntwo\x00"),
        ('{"INFERRED INSTRUCTION": "<think>x</think> </think>",}', "<think>x</think> </think>"),
        ('{"INFERRED INSTRUCTION": ["one", "two"]}', "one\ntwo"),
        ('{"INFERRED INSTRUCTION": 42}', "42"),
    ],
)
def test_text_of_a_mended_value(output, expected):
    assert extract_instruction(output) == (expected, "recovered")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (FORMAT + '\n{"REASONING": "r", "INFERRED INSTRUCTION": "x"}', ("x", "recovered")),
        ('{"REASONING": "r", "INFERRED INSTRUCTION": "x"}\n' + FORMAT, ("x", "ok")),
        (FORMAT + '\n{"REASONING": "r", "INFERRED INSTRUCTION": "x', ("x", "truncated")),
        ('{"inferred instruction": "a"} or {"inferred instruction": "b"}', ("a", "ok")),
        ('So {"inferred instruction": "a"} {"inferred instruction": "b"}', ("b", "recovered")),
        ('So {"inferred instruction": "a"} {"inferred instruction": "b', ("a", "recovered")),
        ('{"INFERRED INSTRUCTION": "a",} {"instruction": "b"}', ("a", "recovered")),
        ('{"INFERRED INSTRUCTION": "a",} {"INFERRED INSTRUCTION": "b"}', ("a", "recovered")),
        ('{"INFERRED INSTRUCTION": "a" "INFERRED INSTRUCTION": "b"}', ("a", "recovered")),
        ('So {"INFERRED INSTRUCTION": "a" "INFERRED INSTRUCTION": "b"}', ("b", "recovered")),
        (
            '{"INFERRED INSTRUCTION": "a {INFERRED INSTRUCTION: b',
            ("a {INFERRED INSTRUCTION: b", "truncated"),
        ),
        ('{"Inferred Instructs": "a", "ключ": 1, "INFERRED INSTRUCTION": "b"}', ("a", "recovered")),
        ('{"INFERRED INSTRUCTION": "a", "ключ": 1}', ("a", "ok")),
        ('{"INFERRED INSTRUCTION": "a", "it\'s": "b"}', ("a", "ok")),
        ('{"INFERRED INSTRUCTION": "a", "REAS«ONING": "b"}', ("a", "ok")),
        ('{"推理": "a", "指令": "b was cu', ("b was cu", "truncated")),
        ("<inferred_instruction>b was cu", ("b was cu", "truncated")),
        ('{"INFERRED INSTRUCTION": """b was cu', ("b was cu", "truncated")),
        (r"{\"INFERRED INSTRUCTION\": \"b was cu", ("b was cu", "truncated")),
        ('{"INFERRED INSTRUCTION": "<text>"} {"INFERRED INSTRUCTION": "a"}', ("a", "recovered")),
        (
            '{"REASONING": "the \'instruction\': \'x", "INFERRED INSTRUCTION": "a",}',
            ("a", "recovered"),
        ),
    ],
)
def test_which_of_several_objects(output, expected):
    assert extract_instruction(output) == expected


@pytest.mark.parametrize(
    ("output", "status"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("<think>only thoughts</think>\n", "empty"),
        ('{"INFERRED INSTRUCTION": ""}', "empty"),
        ('{"INFERRED INSTRUCTION": " ",}', "empty"),
        ("{'INFERRED INSTRUCTION': None}", "empty"),
        ('{"INFERRED INSTRUCTION": []}', "empty"),
        ('{"REASONING": "r", "INFERRED INSTRUCTION":', "empty"),
        ('{"REASONING": "r", "INFERRED INSTRUCTION": "', "empty"),
        ('{"REASONING": "r"}', "unparsed"),
        ('Sure!\n{"REASONING": "r"}', "unparsed"),
        ('{"REASONING": "it was cut', "unparsed"),
        ('{"REASONING": "r", "INFERRED INSTR', "unparsed"),
        ('{"question": "r"}', "unparsed"),
        ('{"推理": "r"}', "unparsed"),
        ('{"推理": "r", "指令": "..."}', "unparsed"),
        ('{"推理": "r", "指令": "x", "语言": "y"}', "unparsed"),
        ('{"推理": "r", "指令": 1}', "unparsed"),
        ("<reasoning>it was cut", "unparsed"),
        ("<reasoning>r</reasoning>", "empty"),
        ("<inferred_instruction> </inferred_instruction>", "empty"),
        (r"{\"REASONING\": \"r\"}", "unparsed"),
        (r"{\"INFERRED INSTRUCTION\": \"\"}", "empty"),
        ('{"REASONING": "an \\"inferred instruction: none\\" is",}', "unparsed"),
        ('{"question": "it was cut', "unparsed"),
        ("<think>it was cut", "unparsed"),
        ("Reasoning: it was cut", "unparsed"),
        ("90", "unparsed"),
        ("null", "unparsed"),
        ("[1, 2]", "unparsed"),
        ("{", "unparsed"),
        ("?!", "unparsed"),
    ],
)
def test_nothing_to_find(output, status):
    assert extract_instruction(output) == ("", status)


def test_wrong_use():
    with pytest.raises(ConfigError, match=r"'strict'.*robust, reference, plain"):
        extract_instruction("x", parser="strict")
    with pytest.raises(InputError, match="NoneType"):
        extract_instruction(None)


def wrap(instruction: str, form: str, ascii_only: bool) -> str:
    record = {"REASONING": 'r "q" {', "INFERRED INSTRUCTION": instruction}
    indent = 2 if form == "pretty" else None
    output = json.dumps(record, ensure_ascii=ascii_only, indent=indent)
    if form == "fence":
        return f"```json\n{output}\n```"
    return f"<think>\nr\n</think>\n\n{output}" if form == "think" else output


INSTRUCTIONS = st.one_of(st.text(), st.lists(PIECES | st.text(max_size=3)).map("".join))


@given(INSTRUCTIONS, st.sampled_from(["compact", "pretty", "fence", "think"]), st.booleans())
def test_clean_json_round_trip(instruction, form, ascii_only):
    found = extract_instruction(wrap(instruction, form, ascii_only))
    assert found == ((instruction, "ok") if instruction.strip() else ("", "empty"))


@given(INSTRUCTIONS, st.sampled_from(["{}", "Here:\n{}", "{}\n\nBye!", "{{{}}}", "[{}]", "x {},"]))
def test_wrapped_json_round_trip(instruction, wrapping):
    output = wrapping.format(json.dumps({"REASONING": "r", "INFERRED INSTRUCTION": instruction}))
    assert extract_instruction(output)[0] == (instruction if instruction.strip() else "")


@given(st.text().filter(str.strip))
def test_python_dict_round_trip(instruction):
    output = repr({"REASONING": "r", "INFERRED INSTRUCTION": instruction})
    assert extract_instruction(output) == (instruction, "recovered")


@given(INSTRUCTIONS, st.booleans(), st.data())
def test_a_cut_value_gives_its_beginning(instruction, ascii_only, data):
    output = wrap(instruction, "compact", ascii_only)
    value_start = output.index('"INFERRED INSTRUCTION": "') + len('"INFERRED INSTRUCTION": "')
    cut = data.draw(st.integers(value_start, len(output) - 2))
    found, status = extract_instruction(output[:cut])
    assert instruction.startswith(found)
    assert status == ("truncated" if found else "empty")


@given(INSTRUCTIONS, st.integers(0, 60))
def test_any_cut_output_gives_a_status(instruction, length):
    assert extract_instruction(wrap(instruction, "fence", True)[:length])[1] in STATUSES


@pytest.mark.slow
@settings(max_examples=500)
@given(st.lists(PIECES | st.text(max_size=3)).map("".join), st.sampled_from(["robust", "plain"]))
def test_no_text_raises(text, parser):
    found, status = extract_instruction(text, parser)
    assert status in STATUSES
    assert bool(found.strip()) == (status in ("ok", "recovered", "prose", "truncated"))


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("start", ["", '{"INFERRED INSTRUCTION": "', "{'INFERRED INSTRUCTION': ["])
def test_long_hostile_text(unit, start):
    # A step for each pair of characters would take minutes.
    found, status = extract_instruction(start + unit * (300_000 // len(unit)))
    assert isinstance(found, str)
    assert status in STATUSES


def test_deep_nesting_is_not_followed():
    output = '{"a":' * 100_000 + '{"INFERRED INSTRUCTION": "x"}'
    assert extract_instruction(output) == ("x", "recovered")
