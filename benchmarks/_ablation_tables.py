"""Read the tables of the paper's ablations from ``ablations.yaml``; format them as Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from solo_d2 import model_zoo

DATA = Path(__file__).with_name("ablations.yaml")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: on the command line and in file names.
        label: as in the paper.
        config: relative to ``configs/``.
        published: the paper's AP, or what it says instead.
        note: what makes the row, besides what the config sets in `MODEL.SOLO`.
    """

    name: str
    label: str
    config: str
    published: str
    note: str = ""

    @property
    def paper(self) -> float | None:
        """The paper's AP in percent, where it gives one."""
        return float(self.published) if re.fullmatch(r"[\d.]+", self.published) else None

    def markdown(self) -> str:
        """Format the row for ``configs/README.md``."""
        text = Path(model_zoo.get_config_file(self.config)).read_text(encoding="utf-8")
        values = re.findall(r"^MODEL: {SOLO: {(.*)}}$", text, flags=re.MULTILINE)
        made_by = " ".join([*(f"`{line}`" for line in values), self.note]).strip()
        link = f"[{Path(self.config).name}]({self.config})"
        return f"| {self.label} | {link} | {made_by} | {self.published} |"


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        key: on the command line and in file names.
        title: heading.
        rows: its rows.
        text: paragraph below the heading.
    """

    key: str
    title: str
    rows: list[Row]
    text: str = ""

    def markdown(self) -> str:
        """Format the table for ``configs/README.md``."""
        header = "| row | file in `Ablations/` | line that makes it | published |"
        table = "\n".join([header, "|---" * 4 + "|", *(row.markdown() for row in self.rows)])
        return "\n\n".join([f"### {self.title}", *([self.text] if self.text else []), table])


def read_tables() -> dict[str, Table]:
    """Read all tables, by key."""
    tables = {}
    for entry in yaml.safe_load(DATA.read_text(encoding="utf-8")):
        rows = []
        for row in entry.pop("rows"):
            config = f"{row.pop('config')}.yaml"
            name = row.pop("name", Path(config).stem.partition("_")[2])
            rows.append(Row(name=name, config=config, **row))
        tables[entry["key"]] = Table(rows=rows, **entry)
    return tables


def readme_tables() -> str:
    """Format the tables of ``configs/README.md``: all whose configs lie in ``Ablations/``."""
    tables = (t for t in read_tables().values() if t.key != "heads")
    return "\n\n".join(table.markdown() for table in tables)
