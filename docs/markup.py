"""Docstrings as Markdown, because the library writes them as plain text for ``help()``.

Formulas (``:math:`` and ``.. math::``) go to the formula renderer, doctests and indented code into code blocks, papers
become links, and what Markdown would take for markup in the rest, such as ``*`` and ``<x, u>``, is kept as it is.
"""

from __future__ import annotations

import re
import textwrap

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):\s*$")
NAMES = re.compile(r"^    (\w+(?:, \w+)+): ")  # "betas, eps: as in torch" in a section
DIRECTIVE = re.compile(r"^(?P<indent> *)\.\. math::(?P<first>.*)$")
DOI = re.compile(r"\bdoi:?\s+(10\.\d{4,9}/[^\s,;]*[^\s,;.)])")
ARXIV = re.compile(r"\barXiv:((?:\d{4}\.\d{4,5})|(?:[a-z-]+/\d{7}))")
KEPT = re.compile(r"(:math:`[^`]+`|``.+?``|`[^`\n]+`|(?<!\S)\*\*\w[^*]*\*\*|!?\[[^\]]*\]\([^()\s]+\))", re.DOTALL)


def link_papers(text: str) -> str:
    """``arXiv:2011.13699`` and ``doi 10.1137/100802529`` as Markdown links."""
    text = ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return DOI.sub(r"[doi \1](https://doi.org/\1)", text)


def _plain(text: str) -> str:
    for character, shown in (("&", "&amp;"), ("<", "&lt;"), ("*", r"\*"), ("[", "&#91;"), ("]", "&#93;"), ("$", r"\$")):
        text = text.replace(character, shown)
    return link_papers(text)


def prose(text: str) -> str:
    """A run of prose: formulas marked, code and links kept, the rest escaped."""
    parts = KEPT.split(text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = _plain(part)
        elif part.startswith(":math:"):
            parts[i] = "$" + part.removeprefix(":math:").strip("`") + "$"
    return "".join(parts)


def _display(lines: list[str]) -> str:
    """A formula on lines of its own: one row a line of the docstring that ends with \\quad, aligned at its sign."""
    rows = [row.strip() for row in re.split(r"\\q?quad\s*\n", "\n".join(lines).strip())]
    if len(rows) == 1:
        return f"$$\n{rows[0]}\n$$"
    aligned = [re.sub(r"(=|\\le\b|\\leftarrow)", r"&\1", row, count=1) for row in rows]
    return "$$\n\\begin{align*}\n" + " \\\\\n".join(aligned) + "\n\\end{align*}\n$$"


def _one_name_each(lines: list[str], start: int) -> list[str]:
    """An entry "a, b: text" of a section as "a: text" and "b: text"; griffe looks up one name an entry."""
    found = NAMES.match(lines[start])
    end = start + 1
    while end < len(lines) and lines[end].startswith("     "):
        end += 1
    entry = [lines[start][found.end() :], *lines[start + 1 : end]] if found else []
    names = found[1].split(", ") if found else []
    split = [line for name in names for line in (f"    {name}: {entry[0]}", *entry[1:])]
    return [*lines[:start], *split, *lines[end:]]


def _block(lines: list[str], start: int) -> int:
    """The end of the block that begins at `start`: the next blank line."""
    end = start
    while end < len(lines) and lines[end].strip():
        end += 1
    return end


def _is_code(lines: list[str], i: int, in_section: bool) -> bool:
    after_blank = i > 0 and not lines[i - 1].strip()
    return after_blank and not in_section and lines[i].startswith("    ")


def to_markdown(docstring: str) -> str:
    """A docstring (cleaned, as ``inspect.cleandoc`` leaves it) as Markdown with Google-style sections."""
    lines, out, run = docstring.split("\n"), [], []
    in_section, i = False, 0

    def close() -> None:
        out.append(prose("\n".join(run)))
        run.clear()

    while i < len(lines):
        if in_section and NAMES.match(lines[i]):
            lines = _one_name_each(lines, i)
        line, end = lines[i], _block(lines, i)
        if SECTION.match(line):
            in_section = True
        elif line.strip() and not line.startswith(" "):
            in_section = False
        if directive := DIRECTIVE.match(line):
            close()
            formula = _display([directive["first"].strip(), *map(str.strip, lines[i + 1 : end])])
            out += ["", textwrap.indent(formula, directive["indent"]), ""]
        elif line.lstrip().startswith(">>>"):
            close()
            out += ["", "```pycon", *(textwrap.dedent("\n".join(lines[i:end])).split("\n")), "```", ""]
        elif _is_code(lines, i, in_section):
            close()
            out += ["", "```python", *(textwrap.dedent("\n".join(lines[i:end])).split("\n")), "```", ""]
        else:
            run.append(line)
            i += 1
            continue
        i = end
    close()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip("\n")
