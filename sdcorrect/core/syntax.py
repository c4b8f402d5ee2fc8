"""What web UIs read in a prompt beside its words (imports no torch).

(words) weigh 1.1 times, [words] 1 / 1.1 times, (words:1.4) 1.4 times, nested ones their product; a
backslash before a bracket means the bracket. After BREAK the text encoder reads anew.
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
TO_WEIGHTED = "plain reads it as words; set prompt_syntax: weighted, which reads it as web UIs do"


def check_networks(prompt: str) -> None:
    """Refuse web UIs' way to name LoRAs within a prompt, which the text encoder would read as words.

    Raises:
        ValueError: the prompt names one; the message says where it belongs.
    """
    match = _NETWORK.search(prompt)
    if match and match["kind"].lower() == "hypernet":
        raise ValueError(f"{match[0]} stands in the prompt; hypernetworks are not known, leave it out")
    if match:
        name, weight = match["name"].strip(), (match["weight"] or "1").strip()
        raise ValueError(
            f"{match[0]} stands in the prompt; LoRAs are named in the job: "
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
    """What a web UI would read in `prompt` and its syntax here does not, and what to do about each."""
    if _AND.search(prompt):
        yield "AND", "it joins several prompts in web UIs and is a word here; make one prompt of them"
    if match := _TURNS.search(prompt):
        yield (
            match[0],
            "web UIs change these words from step to step, here they stay; write them out",
        )
    if weighted:
        return
    if _BREAK.search(prompt):
        yield "BREAK", TO_WEIGHTED
    if parse_weights(prompt) not in ([], [(prompt, 1.0)]):
        yield "weights, ( ) or [ ],", TO_WEIGHTED


def parse_weights(prompt: str) -> list[tuple[str, float]]:
    """The pieces of `prompt` and their weights. A bracket that is never closed reaches to the end.

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
    """The pieces of a prompt and their weights, from each BREAK to the next.

    A BREAK with nothing before it leaves an empty reading there, as web UIs do; one at the end, none.

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
