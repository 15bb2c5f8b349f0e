"""Commands in the documentation: verbs, options and config keys are those that there are."""

from __future__ import annotations

import re
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest
from commands import call, load_script
from detectron2.config import CfgNode, get_cfg

from solo_d2.cli import main as cli
from solo_d2.config import add_solo_config

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / name for name in ("README.md", "MODEL_ZOO.md", "CONTRIBUTING.md", "configs/README.md")
]
PAGES += sorted((ROOT / "docs").glob("*.md"))
# What begins a command, and the words of `solo-d2` or the script that it stands for.
STARTS = {
    r"solo-d2": [],
    r"python train_net\.py": ["train"],
    r"python -m solo_d2\.data\.scenes": ["scenes"],
    r"python ((?:benchmarks|demo|tools)/\w+\.py)": None,
}
BLOCK = r"^ *```\w*\n(.*?)^ *```"
TEMPLATE = re.compile(r"[A-Z]+|\.\.\.|\[.*|.*\]|<.*")  # KEY, VALUE, VERB, DIR, ...


def commands(text):
    """Return the words of every command in the blocks of a page: verb or script, then the rest."""
    found = []
    for block in re.findall(BLOCK, text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for start, words in STARTS.items():
                if match := re.match(rf" *(?:\$ )?{start} (\S.*)", line):
                    *script, rest = match.groups()
                    rest = shlex.split(rest.split(" | ")[0], comments=True)
                    found.append([*(script if words is None else words), *rest])
    return found


@cache
def known_options(verb, kind=None):
    if verb.endswith(".py"):
        sys.path.insert(0, str(ROOT / verb.partition("/")[0]))  # modules beside the script
        try:
            done = call(load_script(verb).main, "--help")
        finally:
            del sys.path[0]
    else:
        done = call(cli.main, verb, *filter(None, [kind]), "--help")
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", done.stdout))


def exists(key):
    node = get_cfg()
    add_solo_config(node)
    for part in key.split("."):
        if not isinstance(node, CfgNode) or part not in node:
            return False
        node = node[part]
    return True


def wrong(words):
    """Return what of a command there is not."""
    verb, *rest = words
    if verb.startswith("-") or TEMPLATE.fullmatch(verb):
        return []
    if verb not in cli.VERBS and not (ROOT / verb).is_file():
        return [verb]
    nested = verb == "scenes" or (verb == "zoo" and rest[:1] in (["save"], ["push"]))
    kind = rest[0] if nested and rest and not rest[0].startswith("-") else None
    options = {word.split("=")[0] for word in rest if re.match(r"--?[A-Za-z]", word)}
    keys = {word for word in rest if re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+", word)}
    return sorted(options - known_options(verb, kind)) + [key for key in keys if not exists(key)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_options_and_keys_that_there_are(page):
    errors = {" ".join(words): wrong(words) for words in commands(page.read_text("utf-8"))}
    assert {text: bad for text, bad in errors.items() if bad} == {}


def test_what_there_is_not_is_found():
    text = "```bash\nsolo-d2 predict --model a --input b \\\n  MODEL.SOLO.NO_KEY 1 # text\n```\n"
    ((verb, *rest),) = commands(text)
    assert wrong([verb, *rest]) == ["--model", "MODEL.SOLO.NO_KEY"]
    assert wrong(["forecast"]) == ["forecast"]
    assert wrong(["predict", "--input", "a", "MODEL.SOLO.NMS_TYPE", "hard"]) == []
    assert wrong(["scenes", "stamps", "--train", "1"]) == []
    assert wrong(["scenes", "stamps", "--trains", "1"]) == ["--trains"]
    (script,) = commands("```\npython benchmarks/tiles.py --output a --color red\n```\n")
    assert wrong(script) == ["--color"]
    assert wrong(["benchmarks/none.py"]) == ["benchmarks/none.py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_targets_of_make_that_there_are(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    blocks = re.findall(
        r"^ *```\w*\n(.*?)^ *```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = re.findall(r"^ *(?:\$ )?make ([^#\n]*)", "\n".join(blocks), re.MULTILINE)
    named = {word for line in lines for word in shlex.split(line) if re.fullmatch("[a-z-]+", word)}
    assert named - targets == set()
