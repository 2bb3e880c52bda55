"""Names in Markdown: shown as they are written, whatever they contain."""

import re

# What begins an element of Markdown, HTML or a formula; an underscore inside a word does not, nor does a bracket without a link.
SPECIAL = re.compile(r"[\\`*<|$]|(?<=\])[(\[]|&(?=#?\w+;)")


def plain(text: object) -> str:
    """Return a text in one line whose words are shown as they are written, between other Markdown or in a cell of a table."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(str(text).split("\n")))


def code(text: object, *, cell: bool = False) -> str:
    """Return a code span that shows a text as it is written.

    Args:
        cell: whether it is in a cell of a table, where a bar would begin the next cell.
    """
    content = " ".join(str(text).split("\n"))
    fence = "`" * (1 + max(map(len, re.findall("`+", content)), default=0))
    space = " " if content.startswith("`") or content.endswith("`") else ""
    span = f"{fence}{space}{content}{space}{fence}"
    return span.replace("|", r"\|") if cell else span
