"""Renting, returning, being late: the pages and what they leave in the database."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from sqlalchemy import func, select
from webtest import TestApp

from demo.models import Charge, Rental, Report, Ski


def rent(browser, ski="1", customer="1", **options):
    form = browser.get("/").forms[f"rent-{ski}"]
    form["customer"] = customer
    response = form.submit(**options)
    return response.follow() if response.status_int == 303 else response


def give_back(browser, ski="1"):
    return browser.get("/").forms[f"return-{ski}"].submit().follow()


def count(session, model):
    return session.scalar(select(func.count()).select_from(model))


def test_the_jetty_shows_every_ski(browser):
    page = browser.get("/")
    assert len(page.html.select("article.card")) == 6
    assert "Kingfisher" in page
    assert "20s" in page.html.select_one("p.lead").text


def test_renting_schedules_the_late_fee(browser, scheduler, session):
    page = rent(browser)
    assert "Ada is out with Kingfisher." in page
    assert "scheduled" in page.html.select_one("#ski-1-state").text
    (job,) = scheduler.get_jobs()
    (rental,) = session.scalars(select(Rental))
    assert job.state == "scheduled"
    assert job.id == rental.fee_job_id
    assert list(job.args) == [rental.id]
    assert 19 <= (job.run_at - rental.rented_at).total_seconds() <= 25


def test_a_late_customer_is_charged_exactly_once(browser, session, pass_time):
    rent(browser)
    assert pass_time(5) == []
    pass_time(30)
    pass_time(60)
    (charge,) = session.scalars(select(Charge))
    assert (charge.amount, charge.customer.name) == (Decimal(600), "Ada")
    page = browser.get("/")
    assert "$600.00" in page.html.select_one("tr.charge").text
    assert "succeeded" in page.html.select_one("#ski-1-state").text


def test_a_ski_returned_in_time_makes_the_fee_void(browser, scheduler, session, pass_time):
    rent(browser)
    assert "Kingfisher is back." in give_back(browser)
    pass_time(30)
    assert count(session, Charge) == 0
    assert [job.state for job in scheduler.get_jobs()] == ["cancelled"]


def test_a_ski_rented_again_owes_only_its_own_fee(browser, session, pass_time):
    rent(browser, customer="1")
    give_back(browser)
    rent(browser, customer="2")
    pass_time(30)
    (charge,) = session.scalars(select(Charge))
    assert charge.customer.name == "Grace"


def test_a_ski_that_is_out_is_not_rented_twice(browser, scheduler, session):
    stale = browser.get("/").forms["rent-1"]
    rent(browser)
    stale["customer"] = "2"
    assert "Kingfisher is out already." in stale.submit().follow()
    assert count(session, Rental) == 1
    assert len(scheduler.get_jobs()) == 1


def test_a_declined_card_leaves_neither_rental_nor_job(browser, scheduler, session, pass_time):
    page = rent(browser, customer="4", status=402)
    assert "declined" in page
    assert scheduler.get_jobs() == []
    assert count(session, Rental) == 0
    assert not session.get(Ski, 1).out_for_rent
    assert pass_time(30) == []


def test_returning_twice_changes_nothing(browser, session):
    rent(browser)
    form = browser.get("/").forms["return-1"]
    form.submit()
    returned_at = session.scalar(select(Rental.returned_at))
    form.submit()
    session.expire_all()
    assert session.scalar(select(Rental.returned_at)) == returned_at


def test_the_report_by_hand(browser, session, pass_time):
    rent(browser)
    browser.get("/reports").forms["report"].submit()
    pass_time(1)
    (report,) = session.scalars(select(Report))
    assert report.body == "1 jet skis are out. Late fees so far: 0.00."
    assert report.body in browser.get("/reports")


@pytest.mark.parametrize("path", ["/nope", "/jobs/nope"])
def test_what_is_not_there_is_said(browser, path):
    assert "Not found" in browser.get(path, status=404)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/skis/1/rent", 404), ("/skis/99/rent", 404), ("/rentals/99/return", 404)],
)
def test_bad_forms_change_nothing(browser, scheduler, session, path, status):
    token = browser.get("/").forms["rent-1"]["csrf_token"].value
    browser.post(path, {"csrf_token": token, "customer": "x"}, status=status)
    assert count(session, Rental) == 0
    assert scheduler.get_jobs() == []


def test_a_form_from_elsewhere_is_refused(browser, session):
    browser.post("/skis/1/rent", {"customer": "1"}, status=400)
    assert count(session, Rental) == 0


@pytest.mark.parametrize("path", ["/", "/jobs", "/reports"])
def test_pages_load_nothing_from_elsewhere(browser: TestApp, path):
    page = browser.get(path)
    assert re.findall(r"""(?:src|href|action)=["'](?!/)[^"']+""", page.text) == []
    for asset in page.html.select("script[src], link[href]"):
        browser.get(asset.get("src") or asset["href"], status=200)
