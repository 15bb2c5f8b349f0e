#!/usr/bin/env python
"""Build the documentation site: pages of this repository, the API, and a check of every link.

The pages stay where GitHub shows them. Here they are put together in one folder, with links that
lead from page to page; a file that a page links to becomes a page of its own.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "overview.md",
    "MODEL_ZOO.md": "model_zoo.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
    "configs/README.md": "configs.md",
}
"""Pages outside of docs/, and their names in the site."""

MODULES = (
    "solo_d2",
    *(
        f"solo_d2.{room}"
        for room in (
            "checkpoint", "data", "engine", "evaluation", "export", "inference", "layers",
            "model_zoo", "modeling", "serve", "testing", "tracking", "web",
        )
    ),
)  # fmt: skip
"""Modules whose public names are the API."""

_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)


class Stage:
    """The folder of pages that the site is built from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = dict(PAGES)
        for path in sorted((ROOT / "docs").rglob("*")):
            if path.is_file():
                name = path.relative_to(ROOT / "docs").as_posix()
                self.names[f"docs/{name}"] = re.sub(r"\.ipynb$", ".md", name)

    def write(self) -> None:
        """Write all pages, and those of the files that they link to."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for source in list(self.names):
            if source.endswith(".md"):
                self._put(source, self._linked(source, (ROOT / source).read_text("utf-8")))
            elif source.endswith(".ipynb"):
                self._notebook(source)
            else:
                target = self.folder / self.names[source]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, target)
        for module in MODULES:
            names = "".join(f"\n        - {n}" for n in importlib.import_module(module).__all__)
            self.names[module] = f"api/{module}.md"
            self._put(module, f"# {module}\n\n::: {module}\n    options:\n      members:{names}\n")

    def _put(self, source: str, text: str) -> None:
        target = self.folder / self.names[source]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")

    def _notebook(self, source: str) -> None:
        from nbconvert import MarkdownExporter

        text, resources = MarkdownExporter().from_filename(ROOT / source)
        self._put(source, self._linked(source, text))
        for name, data in resources["outputs"].items():
            (self.folder / self.names[source]).with_name(name).write_bytes(data)

    def _linked(self, source: str, text: str) -> str:
        """Return a page with its links as they are in the site; code blocks stay."""
        parts = _FENCE.split(text)
        parts[::2] = [
            _LINK.sub(lambda m: m[1] + self._target(source, m[2]) + m[3], part)
            for part in parts[::2]
        ]
        return "".join(parts)

    def _target(self, source: str, link: str) -> str:
        path, mark, anchor = link.partition("#")
        if urlsplit(link).scheme or not path:
            return link
        place = os.path.normpath(os.path.join(os.path.dirname(source), path))
        if place not in self.names and (ROOT / place).exists():
            self._add(place)
        if place not in self.names:
            return link  # an output of the notebook, or missing, which the check finds
        here = os.path.dirname(self.names[source])
        return os.path.relpath(self.names[place], here or ".") + mark + anchor

    def _add(self, place: str) -> None:
        """Add a page that shows a file, or lists the files of a folder."""
        path = ROOT / place
        self.names[place] = f"source/{place}.md"
        if path.is_dir():
            files = [f for f in sorted(path.glob("[!_]*")) if f.suffix in {".py", ".yaml"}]
            rows = [f"- [{f.name}]({place}/{f.name})" for f in files]
            body = self._linked_from_root(place, "\n".join(rows))
        else:
            body = f"``` {path.suffix[1:]}\n{path.read_text('utf-8')}\n```"
        self._put(place, f"---\nsearch:\n  exclude: true\n---\n# {place}\n\n{body}\n")

    def _linked_from_root(self, place: str, text: str) -> str:
        here = os.path.dirname(self.names[place])

        def relative(match: re.Match[str]) -> str:
            if match[2] not in self.names:
                self._add(match[2])
            return f"{match[1]}{os.path.relpath(self.names[match[2]], here)}{match[3]}"

        return _LINK.sub(relative, text)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors = {""}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        for name, value in attrs:
            if name in {"href", "src"} and value:
                self.links.add(value)
                if name == "src" or ("rel", "stylesheet") in attrs:
                    self.loaded.add(value)
            elif name in {"id", "name"} and value:
                self.anchors.add(value)


def broken_links(site: Path) -> Iterator[str]:
    """Yield a line for every link of a site that leads nowhere.

    Args:
        site: Folder of HTML files. Links to other hosts are not followed, but what a page loads
            from one is a mistake: it would be missing without a network.
    """
    pages = {}
    for path in sorted(site.rglob("*.html")):
        if path.name == "404.html":  # its links are from the root of the host
            continue
        pages[path.resolve()] = page = _Links()
        page.feed(path.read_text("utf-8"))
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.netloc and link in page.loaded:
                yield f"{path.relative_to(site.resolve())}: {link}"
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.exists() or (target in pages and anchor not in pages[target].anchors):
                yield f"{path.relative_to(site.resolve())}: {link}"


def main(argv: list[str] | None = None) -> int:
    """Build the site in output/site, and return 1 if anything in it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage-only", action="store_true", help="only put the pages together")
    args = parser.parse_args(argv)
    Stage(ROOT / "output/pages").write()
    if args.stage_only:
        return 0
    builder = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run([*builder, "--config-file", "mkdocs.yml"], cwd=ROOT)
    wrong = list(broken_links(ROOT / "output/site"))
    print("\n".join(wrong) or "all links lead somewhere", file=sys.stderr if wrong else None)
    return 1 if done.returncode or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
