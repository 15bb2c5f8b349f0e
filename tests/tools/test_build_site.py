"""The documentation site: what becomes of links, and that wrong ones are found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from commands import load_script
from test_docstrings import MODULES

ROOT = Path(__file__).resolve().parents[2]
site = load_script("tools/build_site.py")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    stage = site.Stage(folder)
    stage.write()
    return folder


@pytest.mark.parametrize(
    ("source", "link", "target"),
    [
        ("docs/data.md", "training.md#stop", "training.md#stop"),
        ("README.md", "docs/models.md", "models.md"),
        ("docs/models.md", "../MODEL_ZOO.md#a-b", "model_zoo.md#a-b"),
        ("configs/README.md", "../docs/recipe.md", "recipe.md"),
        ("docs/extending.md", "../examples/cluster_nms.py", "source/examples/cluster_nms.py.md"),
        ("docs/data.md", "#here", "#here"),
        ("docs/data.md", "https://a.org/b.md", "https://a.org/b.md"),
        ("docs/data.md", "missing.md", "missing.md"),
    ],
)
def test_a_link_leads_to_the_page_in_the_site(tmp_path, source, link, target):
    text = f"[text]({link})\n\n```python\na[0](README.md)\n```\n"
    expected = f"[text]({target})\n\n```python\na[0](README.md)\n```\n"
    assert site.Stage(tmp_path)._linked(source, text) == expected


def test_a_linked_file_becomes_a_page_and_a_folder_a_list(pages):
    page = (pages / "source/examples/cluster_nms.py.md").read_text("utf-8")
    assert (ROOT / "examples/cluster_nms.py").read_text("utf-8") in page
    folder = (pages / "source/examples.md").read_text("utf-8")
    assert "[cluster_nms.py](examples/cluster_nms.py.md)" in folder


def test_the_api_has_every_public_name(pages):
    assert set(site.MODULES) == set(MODULES)
    text = (pages / "api/solo_d2.layers.md").read_text("utf-8")
    assert "::: solo_d2.layers" in text
    assert "        - matrix_nms\n" in text


def test_the_navigation_names_every_page_once(pages):
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    nav = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)["nav"]
    named = re.findall(r"[\w./]+\.md", str(nav))
    assert len(named) == len(set(named))
    written = {path.relative_to(pages).as_posix() for path in pages.rglob("*.md")}
    assert set(named) == {name for name in written if not name.startswith("source/")}


def test_the_papers_tables_are_all_on_its_page():
    tables = yaml.safe_load((ROOT / "benchmarks/ablations.yaml").read_text("utf-8"))
    page = (ROOT / "docs/paper.md").read_text("utf-8")
    numbers = [m for t in tables if (m := re.match(r"\d\([a-g]\)", t["title"]))]
    assert len(numbers) == 14
    assert [m[0] for m in numbers if m[0] not in page] == []


def test_wrong_links_are_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b.html").write_text('<h1 id="top">B</h1><a href="../a.html">A</a>')
    right = '<a href="sub/b.html#top"></a><a href="#c"></a><p id="c"><a href="https://d.org"></a>'
    (tmp_path / "a.html").write_text(right)
    assert list(site.broken_links(tmp_path)) == []
    wrong = ["https://cdn.org/x.js", "missing.png"]
    (tmp_path / "a.html").write_text(
        right + '<a href="sub/b.html#no"></a><a href="no.html"></a>'
        + "".join(f'<img src="{name}">' for name in wrong)
    )  # fmt: skip
    found = [f"a.html: {link}" for link in sorted([*wrong, "sub/b.html#no", "no.html"])]
    assert list(site.broken_links(tmp_path)) == found
