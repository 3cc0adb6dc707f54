"""Mending the end of a fill that had to be a sentence of a fixed number of tokens.

The last token of such a hole is a full stop whether or not the sentence is complete. So a short
fragment behind a complete sentence is dropped, and words that cannot end an English sentence are
taken off. Our own rules, found by reading fills. Knows strings only.
"""

import re

FRAGMENT = 3  # words: a shorter last sentence behind a complete one is taken for cut off
DANGLING_TEXT = """
a an the and or but nor of to in on at by for from with into as than that which who whose if
when where while because is are was were be been being has have had can could will would
should must may might do does not your my its their his her our this these either whether
you're between about based
"""
DANGLING = frozenset(DANGLING_TEXT.split())
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|\n+")
LOOSE = " \n,;:-–—.!?"
FINAL = ".!?"


def mend_end(text: str) -> str:
    """`text` without a loose end; the text itself where too little would be left."""
    if text[-1:] not in FINAL:
        return text
    body = _without_dangling(text[:-1])
    starts = [match.end() for match in SENTENCE.finditer(body)]
    if starts and len(body[starts[-1] :].split()) < FRAGMENT <= len(body[: starts[-1]].split()):
        return mend_end(body[: starts[-1]].rstrip())
    if len(body.split()) < max(2, len(text.split()) // 2):
        return text
    return body + text[-1]


def _without_dangling(body: str) -> str:
    """Take off loose punctuation and words that end no sentence, until a good word is last."""
    body = body.rstrip(LOOSE)
    while body and (last := body.split()[-1]).strip("\"'(“‘,").lower() in DANGLING | {""}:
        body = body[: -len(last)].rstrip(LOOSE)
    return body
