"""Names in Markdown: shown as they are written, whatever they contain."""

import re

# What begins an element of Markdown, HTML or a formula. An underscore inside a word does not, nor does a bracket without a link,
# a note or attributes. A list, a heading and a quotation begin where the text does.
SPECIAL = re.compile(r"[\\`*<|$~]|(?<=\])[(\[{]|(?<=\[)\^|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|\A([#>%=:]|[-+](?=[-\s]|\Z))")
NUMBER = re.compile(r"\A(\s*\d+)(?=[.)](\s|\Z))")


def one_line(text: object) -> str:
    """Return a text whose lines follow each other in one."""
    return " ".join(str(text).splitlines())


def plain(text: object) -> str:
    """Return a text in one line whose words are shown as they are written, in a line of Markdown or in a cell of a table."""
    return NUMBER.sub(r"\g<1>\\", SPECIAL.sub(r"\\\g<0>", one_line(text).lstrip()))


def code(text: object, *, cell: bool = False) -> str:
    """Return a code span that shows a text as it is written.

    Args:
        cell: whether it is in a cell of a table, where a bar would begin the next cell.
    """
    content = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", content)), default=0))
    space = " " if content.startswith("`") or content.endswith("`") else ""
    span = f"{fence}{space}{content}{space}{fence}"
    return span.replace("|", r"\|") if cell else span
