"""Languages other than the instruction's, in sentences that would fit any instruction."""

from __future__ import annotations

from random import Random

from flipfast.quality.attacks.base import Attack, Case, from_text

_SENTENCES = {
    "german": "Das ist eine gute Frage, und die Antwort darauf hängt von vielen Dingen ab.",
    "spanish": "Es una buena pregunta, y la respuesta depende de muchas cosas.",
    "french": "C'est une bonne question, et la réponse dépend de beaucoup de choses.",
    "chinese": "这是一个好问题，答案取决于很多因素。",  # noqa: RUF001 - its own comma
    "russian": "Это хороший вопрос, и ответ на него зависит от многого.",
}


def _mixed(_: Case, random: Random) -> str:
    return " ".join(random.sample(sorted(_SENTENCES.values()), len(_SENTENCES)))


ATTACKS = (
    *(from_text(f"languages/{name}", text) for name, text in _SENTENCES.items()),
    Attack("languages/mixed", _mixed),
    from_text(
        "languages/framed",
        "Claro, con mucho gusto. Aquí tiene la respuesta:\n\n{response}\n\n"
        "Espero que le sea útil. Quedo a su disposición para cualquier otra pregunta.",
    ),
)
