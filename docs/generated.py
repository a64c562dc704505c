"""The parts of pages that are made from the repository when the site is built.

A page asks for one by a line ``<!-- generated: NAME ARGUMENT -->``. New examples, results, laws and public names appear
by themselves. Plain functions from files to Markdown: nothing here needs mkdocs.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from markup import prose

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MARK = re.compile(r"^<!-- generated: (\w+) ?([\w.]*) -->$", re.MULTILINE)


def fill(markdown: str) -> str:
    """The page with every mark replaced."""
    return MARK.sub(lambda m: PARTS[m[1]](*filter(None, [m[2]])), markdown)


def table(rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; the first row is the head."""
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * (lines[0].replace(r"\|", "").count("|") - 1))
    return "\n".join(lines)


def paragraphs(docstring: str) -> list[str]:
    """The paragraphs of a docstring as Markdown, each on one line; indented ones (commands) as code."""
    blocks = [b for b in re.split(r"\n\s*\n", docstring.strip("\n")) if b.strip()]
    return [
        f"```bash\n{textwrap.dedent(b).strip()}\n```" if b.startswith("    ") else prose(" ".join(b.split()))
        for b in blocks
    ]


def module_docstring(path: Path) -> str:
    """The docstring of a script, without running it."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


# ---- the gallery ----------------------------------------------------------------------------------------------


def example_scripts() -> list[Path]:
    """The numbered examples."""
    return sorted((ROOT / "examples").glob("[0-9]*.py"))


def example_figures() -> list[Path]:
    """The figures that the examples wrote."""
    return sorted((ROOT / "examples" / "figures").glob("*.png"))


def example(script: Path) -> str:
    """One example: title and text from its docstring, its figure, its command, its code."""
    title, *text = paragraphs(module_docstring(script))
    name = script.stem.split("_", 1)[1].replace("_", " ")
    parts = [f"## {name.capitalize()}", f"**{title}**", *text]
    if not any(p.startswith("```bash") for p in text):
        parts.append(f"```bash\npython examples/{script.name}\n```")
    figures = [f for f in example_figures() if f.stem.startswith(script.stem)]
    parts += [f"![{title.rstrip('.')}](figures/{f.name}){{ loading=lazy }}" for f in figures]
    code = textwrap.indent(f"```{{.python .no-test}}\n{script.read_text().strip()}\n```", "    ")
    parts.append(f'??? example "examples/{script.name}"\n\n{code}')
    return "\n\n".join(parts)


def gallery() -> str:
    """Every example in ``examples/``."""
    return "\n\n".join(map(example, example_scripts()))


# ---- benchmarks -----------------------------------------------------------------------------------------------


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if value != 0 and not 1e-2 <= abs(value) < 1e4 else f"{value:.3g}"
    return str(value)


def _ratio(given: Any) -> str:
    """Our speed as a multiple of another's; what we lose is said in words."""
    if isinstance(given, dict) and "peer" in given:  # beside ours, where several of ours have each its own peer
        return f"{_ratio(given.get('speed'))} against {given['peer']}"
    value = given.get("ratio") if isinstance(given, dict) else given
    if not isinstance(value, (int, float)):
        return ""
    shown = f"{value:.2g}" if value < 10 else f"{value:.0f}"
    return f"**{shown}**" if value >= 1 else f"{shown} (slower)"


def _time(c: dict[str, Any]) -> str:
    return f"{c['median_ms']:.3g} [{c['q1_ms']:.3g}, {c['q3_ms']:.3g}]" if "median_ms" in c else ""


def timing_rows(lines: list[dict[str, Any]]) -> Iterable[list[str]]:
    """A row a contender: its time, our speed as a multiple of its, and what else was noted of it."""
    contenders = [c for line in lines for c in line["contenders"].values()]
    facts = list(dict.fromkeys(k for c in contenders for k in c if k not in ("median_ms", "q1_ms", "q3_ms")))
    yield ["", "", "ms [quartiles]", "ratio of speeds", *[k.replace("_", " ") for k in facts]]
    for line in lines:
        ratios = line.get("ratios", {})
        for i, (name, c) in enumerate(line["contenders"].items()):
            title = f"**{line['name']}**" if i == 0 else ""
            noted = [_number(c.get(k, "")) for k in facts]
            yield [title, name, _time(c), _ratio(ratios.get(name)), *noted]


def plain_rows(lines: list[dict[str, Any]]) -> Iterable[list[str]]:
    """Any other result: its numbers and words, a column a key."""
    keys = list(dict.fromkeys(k for line in lines for k, v in line.items() if not isinstance(v, (dict, list))))
    yield ["" if k == "name" else k for k in keys]
    for line in lines:
        yield [_number(line.get(k, "")) for k in keys]


def result(path: Path) -> str:
    """One file of results: what was measured, on what, and the figures."""
    data = json.loads(path.read_text())
    script = ROOT / "benchmarks" / f"{path.stem}.py"
    parts = [f"## {path.stem.replace('_', ' ').capitalize()}"]
    parts += paragraphs(module_docstring(script)) if script.exists() else []
    machine = {k: v for k, v in data.get("environment", {}).items() if v is not None and not isinstance(v, dict)}
    parts.append("*" + ", ".join(f"{k} {v}" for k, v in machine.items()) + "*")
    lines = data.get("lines", [])
    timed, plain = [x for x in lines if "contenders" in x], [x for x in lines if "contenders" not in x]
    for rows in (timing_rows(timed) if timed else [], plain_rows(plain) if plain else []):
        parts += [f'<div class="figures" markdown>\n\n{table(rows)}\n\n</div>'] if rows else []
    return "\n\n".join(parts)


def benchmarks() -> str:
    """Every file in ``benchmarks/results/``."""
    return "\n\n".join(result(p) for p in sorted((ROOT / "benchmarks" / "results").glob("*.json")))


def method() -> str:
    """The section "Method" of ``benchmarks/README.md``."""
    text = (ROOT / "benchmarks" / "README.md").read_text()
    found = re.search(r"^## Method\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, "benchmarks/README.md has no section Method"
    return found[1].strip()


# ---- laws and names -------------------------------------------------------------------------------------------


def laws() -> str:
    """Every law of ``torchriemann.testing.LAWS`` with its tolerances."""
    from torchriemann.testing import LAWS

    rows = [["subject", "law", "what it says", "float64", "float32"]]
    for law in sorted(LAWS.values(), key=lambda law: law.subject.removeprefix("the ").lower()):
        says = prose(" ".join((law.__doc__ or "").split()))
        bounds = [_number(b) if b else ("exact" if b == 0 else "") for b in (law.float64, law.float32)]
        name = law.name.replace("_", "_<wbr>")  # where a line may end
        rows.append([law.subject, f"<code>{name}</code>", says, *bounds])
    return f"{len(LAWS)} laws.\n\n{table(rows)}"


def layer_laws() -> str:
    """Every law of ``torchriemann.testing.LAYER_LAWS``."""
    from torchriemann.testing import LAYER_LAWS

    rows = [["law", "concerns", "what it says"]]
    for law in LAYER_LAWS.values():
        concerns = {"module": "modules", "input": "layers with an input", "image": "layers whose results are points"}
        says = prose(" ".join((law.__doc__ or "").split()))
        name = law.name.replace("_", "_<wbr>")  # where a line may end
        rows.append([f"<code>{name}</code>", concerns.get(law.about, "every layer"), says])
    return table(rows)


def public_names(package: str) -> list[str]:
    """What ``torchriemann.PACKAGE`` exports, in the order of its ``__init__.py``."""
    tree = ast.parse((ROOT / "torchriemann" / package / "__init__.py").read_text())
    exported: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            exported += [alias.asname for alias in node.names if alias.asname]
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            exported.append(node.name)
    return [n for n in exported if not n.startswith("_")]


def pages_of(package: str) -> dict[str, Path]:
    """The public names that a page documents itself, by a line ``::: torchriemann.PACKAGE.NAME``."""
    asked = re.compile(rf"^::: torchriemann\.{package}\.(?:\w+\.)?(\w+)$", re.MULTILINE)
    return {name: page for page in sorted(DOCS.rglob("*.md")) for name in asked.findall(page.read_text())}


def api(package: str) -> str:
    """The reference of a package: links to the names that have a page, the others in full."""
    elsewhere, names = pages_of(package), public_names(package)
    target = f"torchriemann.{package}"
    links = [f"[`{n}`][{target}.{n}]" for n in names if n in elsewhere]
    parts = ["With a page of their own: " + ", ".join(links) + "."] if links else []
    modules = {path.stem for path in (ROOT / "torchriemann" / package).glob("*.py")}
    # A module hides the function of the same name from those who read the source and do not run it.
    parts += [f"::: {target}.{n}.{n}" if n in modules else f"::: {target}.{n}" for n in names if n not in elsewhere]
    return "\n\n".join(parts)


def bibtex() -> str:
    """``CITATION.cff`` as an entry for BibTeX."""
    fields = dict(re.findall(r'^(\w[\w-]*): "?([^"\n]+)"?$', (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE))
    authors = " and ".join(f"{{{a}}}" for a in re.findall(r"- name: (.+)", (ROOT / "CITATION.cff").read_text()))
    rows = [("title", fields["title"]), ("author", authors), ("version", fields["version"])]
    rows += [("year", fields.get("date-released", "")[:4]), ("note", fields["license"])]
    entry = ["@software{torchriemann,", *(f"  {name} = {{{value}}}," for name, value in rows if value), "}"]
    return "\n".join(["```bibtex", *entry, "```"])


PARTS: dict[str, Callable[..., str]] = {
    f.__name__: f for f in (gallery, benchmarks, method, laws, layer_laws, api, bibtex)
}
