"""Read the built site as a browser would, and complain about what did not come out: run by `make docs`.

mkdocs --strict knows links and navigation. It does not see a formula that stayed text, a docstring's markup, a picture
that is not there, or a table that lost its rows.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).resolve().parents[1] / "site"
# Outside of code: reStructuredText and Markdown that nobody turned into anything.
LEFT_OVER = re.compile(r":math:|\.\. math::|``|\$\$|<!-- generated|^>>> |\]\([^()\s]+\)|\[`|\\begin\{", re.MULTILINE)


class Page(HTMLParser):
    """Text outside of code, what is linked and shown, and counts of what was asked for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.count = {"math": 0, "img": 0, "table": 0, "td": 0}
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag in ("pre", "code", "script", "style", "math"):
            self._inside.append(tag)
        self.anchors.update(v for k in ("id", "name") if (v := given.get(k)))
        self.targets += [v for k in ("href", "src") if (v := given.get(k))]

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text.append(data)


def complaints(path: Path, pages: dict[Path, Page]) -> list[str]:
    """What is wrong with one page."""
    page = pages[path]
    found = [f"left as text: {m[0]!r}" for text in page.text for m in LEFT_OVER.finditer(text)]
    for target in page.targets:
        url = urlsplit(target)
        if url.scheme or url.netloc or (not url.path and not url.fragment):
            continue
        file = (path.parent / unquote(url.path)).resolve() if url.path and url.path != "." else path
        file = file / "index.html" if file.is_dir() else file
        if not file.exists():
            found.append(f"leads nowhere: {target}")
        elif url.fragment and file in pages and unquote(url.fragment) not in pages[file].anchors:
            found.append(f"no such place: {target}")
    return found


def main() -> None:
    """Exit with 1 and a list if anything is wrong; else say what there is."""
    pages = {p.resolve(): Page(p.read_text()) for p in SITE.rglob("*.html") if p.name != "404.html"}
    wrong = [f"{p.relative_to(SITE.resolve())}: {c}" for p in sorted(pages) for c in complaints(p, pages)]
    totals = {tag: sum(page.count[tag] for page in pages.values()) for tag in ("math", "img", "table", "td")}
    wrong += [f"no {tag} on any page" for tag, number in totals.items() if number == 0]
    curved = ("sphere", "lorentz", "stereographic", "klein", "stiefel", "grassmann", "orthogonal", "product")
    definite = ("spd", "spd-affine-invariant", "spd-flat", "spd-cholesky", "spd-bures-wasserstein")
    for spaces in (*curved, *definite):
        page = pages[(SITE / "manifolds" / f"{spaces}.html").resolve()]
        wrong += [f"manifolds/{spaces}.html has no {tag}" for tag in ("math", "img", "table") if page.count[tag] == 0]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{len(pages)} pages, {totals['math']} formulas, {totals['img']} pictures, {totals['table']} tables")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
