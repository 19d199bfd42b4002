"""`python -m flipfast.training.own_pairs`: pairs that an instruct model writes by itself.

After the header of a user's turn alone, an instruct model writes an instruction; answered by the
same model, it is a pair (Magpie, Xu et al. 2024, arXiv 2406.08464). The responses of a small model
are poor, but they are about their instruction, and that is what an inverter learns from.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from flipfast.backends import InversionRequest, SamplingParams, load_inverter
from flipfast.config import FlipConfig
from flipfast.prompts.chat import ChatTemplate

SOURCE = "own"
_BATCH = 128
_INSTRUCTION = SamplingParams(max_new_tokens=64, temperature=0.9)
_RESPONSE = SamplingParams(max_new_tokens=112, temperature=0.6)
_FEWEST_WORDS = 3
_MARK = "\x00"


class Author:
    """Writes pairs.

    Args:
        base: an instruct model, a GGUF file or a folder.
        seed: of all samples.
    """

    def __init__(self, base: Path, seed: int) -> None:
        self._inverter = load_inverter("native", str(base))
        self._seed = seed
        chat = ChatTemplate(self._inverter.tokenizer, date=FlipConfig.prompt_date)
        text = chat.text([{"role": "user", "content": _MARK}])
        self._start, self._between = text.split(_MARK)

    def write(self, n: int) -> Iterator[dict[str, str]]:
        """Yield n pairs; outputs that do not end as instructions are dropped."""
        while n > 0:
            instructions = [
                text
                for text, ended in self._run([self._start] * _BATCH, _INSTRUCTION)
                if ended and len(text.split()) >= _FEWEST_WORDS
            ]
            prompts = [self._start + text + self._between for text in instructions]
            answers = self._run(prompts, _RESPONSE)
            for instruction, (response, _) in zip(instructions, answers, strict=True):
                if response and n > 0:
                    n -= 1
                    yield {"instruction": instruction, "response": response, "source": SOURCE}

    def _run(self, prompts: list[str], sampling: SamplingParams) -> list[tuple[str, bool]]:
        """Return the output for each prompt, and whether it came to an end."""
        encoded = [self._inverter.tokenizer.encode(p, add_special_tokens=False) for p in prompts]
        requests = [InversionRequest(ids, self._seed + i) for i, ids in enumerate(encoded)]
        self._seed += len(prompts)
        outputs = self._inverter.generate(requests, sampling)
        return [((out.text or "").strip(), out.finish_reason == "stop") for out in outputs]


def main() -> None:
    """Read the command line and write the pairs."""
    parser = argparse.ArgumentParser(prog="python -m flipfast.training.own_pairs")
    parser.add_argument("--base", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument("--out", type=Path, required=True, help="gzipped JSON lines to write")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with gzip.open(arguments.out, "wt", encoding="utf-8") as out:
        for pair in Author(arguments.base, arguments.seed).write(arguments.n):
            out.write(json.dumps(pair) + "\n")


if __name__ == "__main__":
    main()
