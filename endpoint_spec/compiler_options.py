"""The arguments of the target's compiler: read from a spec, and checked against the compiler's own list."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from . import platforms
from .errors import near


def split(arguments: Sequence[str]) -> tuple[str, ...]:
    """Words as the compiler gets them: "--optlevel 2" and "--optlevel=2" are two words each."""
    words: list[str] = []
    for argument in arguments:
        for word in shlex.split(argument):
            name, equals, value = word.partition("=")
            words += [name, value] if equals and name.startswith("-") else [word]
    return tuple(words)


def problems(target: str, arguments: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the arguments for a target (inf1, inf2): the word, the problem and the way out of each."""
    table = platforms.compiler_table(target)
    compiler, options, refused = table["compiler"], table["options"], table["refused"]
    words = list(split(arguments))
    seen: set[str] = set()
    while words:
        word = words.pop(0)
        value = words.pop(0) if words and not words[0].startswith("-") else None
        option = options.get(word)
        if word in refused:
            problem, remedy = refused[word]
            yield word, problem, remedy
        elif not word.startswith("-"):
            remedy = "Options begin with a hyphen; write a value after its option."
            yield word, f"is not an option of {compiler}", remedy
        elif option is None:
            remedy = f"{near(word, options)}The options are {', '.join(options)}."
            yield word, f"is not an option of {compiler} that is known here", remedy
        else:
            yield from _value(word, value, option.get("values"))
            same = option.get("same_as", word)
            if same in seen:
                yield word, "is given twice", "Keep one of them."
            seen.add(same)


def _value(word: str, value: str | None, values: Sequence[str] | None) -> Iterator[tuple[str, str, str]]:
    if values is None and value is not None:
        yield word, f"takes no value, but is followed by {value}", f"Write {word} alone."
    if values is not None and value not in values:
        given = "no value" if value is None else value
        yield word, f"has {given}, which it does not take", f"Write one of {', '.join(values)} after it."
