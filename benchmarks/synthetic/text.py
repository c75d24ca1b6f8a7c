"""Text of a wanted number of tokens, without tokenising every row.

Words are drawn from a fixed list; how many of them make a token is measured once per tokenizer, on 4,000 words. So a
prompt has its length only within a few percent, which is why results count the tokens that the engine saw.
"""

from __future__ import annotations

import random
from pathlib import Path

_TEXT = """
the batch holds one request and each request gets exactly one answer about an image or a video what do you see first
second third picture shows red circle white table blue square green triangle yellow light describe in one sentence
which colour is largest shape how many objects are there answer with single word yes no read number on sign say whether
two images show same place summarise following document three points then translate it you helpful assistant briefly
function takes location returns weather temperature wind rain clouds cold today warm snow sun morning old train left
station slowly crossed river near mill climbed mountains people waited under trees while children played small brown dog
nobody noticed letter ground later evening everything had become quiet she opened window looked stars above town science
begins careful measurement length weight time speed energy theory cannot be tested against experiment explains nothing
engine reads tokens computes attention over every position writes next token until complete workers lease rows render
them generate commit after failure handed out again once house street garden school market kitchen bottle paper book
music water bread apple lemon cheese coffee sugar horse bird north south east west right below before between hundred
"""
WORDS = _TEXT.split()
_SAMPLE = 4000
_GUESS = 0.75  # words a token, for a tokenizer that cannot be looked at


def words_per_token(model: str) -> float:
    """`model`: a folder with tokenizer.json; anything else gets a usual value of English text."""
    path = Path(model) / "tokenizer.json"
    if not path.is_file():
        return _GUESS
    from tokenizers import Tokenizer

    sample = " ".join(random.Random(0).choices(WORDS, k=_SAMPLE))
    return _SAMPLE / len(Tokenizer.from_file(str(path)).encode(sample).ids)


class Writer:
    def __init__(self, rate: float) -> None:
        self._rate = rate

    def text(self, seed: str, tokens: int) -> str:
        """About `tokens` tokens; the same for the same seed, and other from the first words on for another."""
        words = max(1, round(tokens * self._rate))
        return " ".join(random.Random(seed).choices(WORDS, k=words))
