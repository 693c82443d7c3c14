"""The committed tables: the documentation shows those of reports/tables.json."""

from pbe import layout
from pbe.demo.tables.markdown import markdown
from pbe.runtime.files import read_json
from tests.support.parameters import ROOT


def test_the_documentation_has_the_tables_of_the_committed_run() -> None:
    text = markdown(read_json(ROOT / layout.TABLES))
    assert text == (ROOT / layout.TABLES).with_suffix(".md").read_text()
    assert text in (ROOT / "docs/tables.md").read_text()
