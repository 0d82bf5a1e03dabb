"""What README.rst says is true: its settings exist, its first job runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from webtest import TestApp

from pyramid_durable.exceptions import InvalidSetting
from pyramid_durable.settings import read_settings

README = (Path(__file__).parents[2] / "README.rst").read_text()
TABLE = README.partition(".. settings-begin")[2].partition(".. settings-end")[0]
KEYS = re.findall(r"^    \* - ``([\w.*]+)``$", TABLE, re.MULTILINE)


def code_block(language: str) -> str:
    """The first code block in this language, without its indentation."""
    block = re.search(rf"\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", README)
    assert block
    return re.sub(r"^    ", "", block[1], flags=re.MULTILINE)


def test_every_setting_of_the_table_exists():
    assert len(KEYS) > 30
    read_settings({f"scheduler.{key.replace('*', 'anything')}": "" for key in KEYS})


def test_every_setting_that_exists_is_in_the_table():
    with pytest.raises(InvalidSetting) as caught:
        read_settings({"scheduler.no_such_thing": "1"})
    known = str(caught.value).rpartition("there are: ")[2].split(", ")
    assert sorted(KEYS) == sorted(known)


def test_the_first_job_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "readme_hello.py").write_text(code_block("python"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "readme_hello", raising=False)
    import readme_hello

    app = readme_hello.main({}, **{"scheduler.jobstore.default.url": f"sqlite:///{tmp_path}/s"})
    assert "You will be greeted." in TestApp(app).get("/hello/Ada")
    (job,) = app.registry.scheduler.run_due()
    assert capsys.readouterr().out == "Hello, Ada!\n"
    assert app.registry.scheduler.get_job(job.id).result == "Ada was greeted"


def test_its_first_job_takes_twenty_lines():
    assert len([line for line in code_block("python").splitlines() if line.strip()]) <= 20
