"""docs/peers.rst is what its figures make it; a contender that fails has no figure."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from benchmarks.peers.page import CHART, FIGURES, documents
from benchmarks.peers.report import Figure, figure_of, read
from benchmarks.peers.roster import every_contender
from benchmarks.peers.rounds import Result, affordable
from benchmarks.peers.witness import Witness


def test_the_page_and_the_chart_are_made_from_the_figures():
    for path, text in documents(read(FIGURES)).items():
        assert path.read_text() == text, (
            f"{path.name} is out of date: "
            "python -m benchmarks.peers --read docs/figures/peers.json --docs"
        )
    ET.parse(CHART)


def test_every_contender_has_its_side_and_pins_what_is_installed():
    assert every_contender()[0].id == "ours"
    for contender in every_contender():
        assert (contender.folder / "app.py").exists()
        if contender.library == "ours":
            continue
        pins = (contender.folder / "requirements.txt").read_text().splitlines()
        assert all("==" in pin for pin in pins if not pin.startswith("#")), contender.id


def test_the_witness_tells_lost_and_doubled_jobs(tmp_path):
    ours = Witness.create(tmp_path / "witness", 4)
    theirs = Witness(tmp_path / "witness")
    for number in (0, 2, 2):
        theirs.see(number)
    assert (ours.ran(), ours.doubled()) == (2, 1)
    first, never, third, _ = ours.starts
    assert never == 0 < first <= third


def test_a_contender_that_failed_once_has_no_figure():
    rounds = [{"rate": 3.0}, {"rate": 1.0}, {"rate": 2.0}]
    assert figure_of(Result(10, rounds), "rate") == Figure(2.0, 1.0, 3.0)
    assert figure_of(Result(10, rounds, ["1 of 10 jobs lost"]), "rate") is None
    assert figure_of(Result(10), "rate") is None


@pytest.mark.parametrize(("most", "jobs"), [(20_000, 10_000), (9_999, 5_000), (130, 100), (3, 10)])
def test_a_slow_contender_is_given_a_round_number_of_jobs(most, jobs):
    assert affordable(10_000, most) == jobs
