"""What mkdocs calls while it builds: generated parts, links to papers, figures of the examples, formulas as MathML.

Formulas are turned into MathML here and not by a script in the reader's browser: the site needs no network, and a
formula that does not parse stops the build.
"""

from __future__ import annotations

import html
import re

import generated
from latex2mathml.converter import convert
from markup import link_papers
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)
CODE_OR_LINK = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`|\[[^\]]*\]\([^)]*\))", re.MULTILINE | re.DOTALL)


def on_files(files, config):
    """The figures of the examples, beside the gallery."""
    for figure in generated.example_figures():
        files.append(File.generated(config, f"figures/{figure.name}", abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Generated parts in, papers linked."""
    parts = CODE_OR_LINK.split(generated.fill(markdown))
    return "".join(part if i % 2 else link_papers(part) for i, part in enumerate(parts))


def on_page_content(content, page, config, files):
    """Formulas as MathML."""

    def render(match: re.Match) -> str:
        formula = html.unescape(match[2]).strip()
        display = formula.startswith(r"\[")
        try:
            mathml = convert(formula[2:-2].strip(), display="block" if display else "inline")
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: formula {formula!r} does not parse: {error}") from error
        return f'<div class="formula">{mathml}</div>' if display else mathml

    return FORMULA.sub(render, content)
