"""The prompt syntax of web UIs (imports no torch).

(words) get a weight of 1.1, [words] of 1 / 1.1, (words:1.4) of 1.4; nested weights multiply. A backslash
before a bracket makes it literal. BREAK starts a new chunk for the text encoder.
"""

import re
from collections.abc import Collection, Iterator, Sequence

EMPHASIS = 1.1
_CLOSING = {")": ("(", EMPHASIS), "]": ("[", 1 / EMPHASIS)}
_SYNTAX = re.compile(
    r"\\(?P<plain>[()\[\]\\])|:\s*(?P<weight>[-+]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<bracket>[()\[\]])"
    r"|[^\\()\[\]:]+|.",
    re.S,
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_AND = re.compile(r"\bAND\b")
_TURNS = re.compile(r"\[[^\[\]]*(\|[^\[\]]*|:\s*[-+.\d]+\s*)\]")
_NETWORK = re.compile(
    r"<(?P<kind>lora|lyco|locon|hypernet)\s*:\s*(?P<name>[^:>]+)(:(?P<weight>[^:>]*))?[^>]*>", re.I
)
TO_WEIGHTED = (
    "prompt_syntax: plain treats it as words; set prompt_syntax: weighted to read it as web UIs do"
)


def check_networks(prompt: str) -> None:
    """Refuse LoRAs named in the prompt, as web UIs allow; the text encoder would read them as words.

    Raises:
        ValueError: the prompt names one; the message says where it belongs.
    """
    match = _NETWORK.search(prompt)
    if match and match["kind"].lower() == "hypernet":
        raise ValueError(f"the prompt contains {match[0]}; hypernetworks are not supported, remove it")
    if match:
        name, weight = match["name"].strip(), (match["weight"] or "1").strip()
        raise ValueError(
            f"the prompt contains {match[0]}; LoRAs belong in the job: "
            f"`loras: [{{path: {name}.safetensors, weight: {weight}}}]`"
        )


def without_networks(prompt: str, used: Collection[str]) -> str:
    """`prompt` without the web UIs' way to name those LoRAs that are `used` anyhow, as they take it out.

    >>> without_networks("a cat <lora:ink:0.8>, <lora:oil:1>", {"ink"})
    'a cat , <lora:oil:1>'
    """
    return _NETWORK.sub(
        lambda tag: "" if tag["kind"].lower() != "hypernet" and tag["name"].strip() in used else tag[0],
        prompt,
    )


def unread(prompt: str, *, weighted: bool) -> Iterator[tuple[str, str]]:
    """Yield each piece of web-UI syntax in `prompt` that is not supported here, and what to do."""
    if _AND.search(prompt):
        yield "AND", "it combines several prompts in web UIs, but is a word here; write a single prompt"
    if match := _TURNS.search(prompt):
        yield (
            match[0],
            "web UIs change these words from step to step, but here they stay; write them out",
        )
    if weighted:
        return
    if _BREAK.search(prompt):
        yield "BREAK", TO_WEIGHTED
    if parse_weights(prompt) not in ([], [(prompt, 1.0)]):
        yield "weights, ( ) or [ ],", TO_WEIGHTED


def parse_weights(prompt: str) -> list[tuple[str, float]]:
    """The pieces of `prompt` and their weights. A bracket that is never closed extends to the end.

    >>> parse_weights("a (red:1.5) [old] house")
    [('a ', 1.0), ('red', 1.5), (' ', 1.0), ('old', 0.9090909090909091), (' house', 1.0)]
    """
    pieces: list[tuple[str, float]] = []
    opened: list[tuple[str, int]] = []

    def close(bracket: str, factor: float) -> bool:
        if not opened or opened[-1][0] != bracket:
            return False
        _, first = opened.pop()
        pieces[first:] = [(text, weight * factor) for text, weight in pieces[first:]]
        return True

    for match in _SYNTAX.finditer(prompt):
        text = match["plain"] or match[0]
        opening, factor = _CLOSING.get(match["bracket"], ("", 1.0))
        if match["weight"]:
            opening, factor = "(", float(match["weight"])
        if match["bracket"] in ("(", "["):
            opened.append((text, len(pieces)))
        elif not close(opening, factor):
            pieces.append((text, 1.0))
    while opened:
        close(*_CLOSING[")" if opened[-1][0] == "(" else "]"])
    return _joined(pieces)


def _joined(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    joined: list[tuple[str, float]] = []
    for text, weight in pieces:
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        else:
            joined.append((text, weight))
    return joined


def readings(pieces: Sequence[tuple[str, float]]) -> list[list[tuple[str, float]]]:
    """Split the pieces of a prompt at each BREAK.

    A BREAK with nothing before it leaves an empty part, as in web UIs; one at the end leaves none.

    >>> readings([("a BREAK b", 1.0), (" c", 1.2)])
    [[('a', 1.0)], [('b', 1.0), (' c', 1.2)]]
    """
    found: list[list[tuple[str, float]]] = [[]]
    for text, weight in pieces:
        first, *others = _BREAK.split(text)
        found[-1].append((first, weight))
        found += [[(other, weight)] for other in others]
    found = [[piece for piece in reading if piece[0]] for reading in found]
    return found if found[-1] or len(found) == 1 else found[:-1]
