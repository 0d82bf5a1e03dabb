"""The list of jobs and the page of one job."""

from __future__ import annotations

from demo import jobs


def service(browser, ski):
    return browser.get("/").forms[f"service-{ski}"].submit().follow()


def listed(browser, query=""):
    return [row.text.split() for row in browser.get(f"/jobs{query}").html.select("tr.job")]


def test_the_list_shows_jobs_and_their_states(browser, pass_time):
    service(browser, 1)
    pass_time(1)
    service(browser, 2)
    newest, oldest = listed(browser)
    assert newest[:4] == ["service", "Sea", "Otter", "scheduled"]
    assert oldest[:3] == ["service", "Kingfisher", "succeeded"]


def test_the_list_can_be_narrowed_to_a_state(browser, pass_time):
    service(browser, 1)
    pass_time(1)
    assert len(listed(browser, "?state=succeeded")) == 1
    assert listed(browser, "?state=failed") == []
    assert "no state" in browser.get("/jobs?state=nope", status=400)


def test_a_failing_job_is_retried_and_shows_its_tracebacks(browser, pass_time):
    page = service(browser, 6)
    pass_time(1)
    pass_time(60)
    page = browser.get(page.request.path)
    assert page.html.select_one(".state").text == "failed"
    tracebacks = [pre.text for pre in page.html.select("pre.traceback")]
    assert len(tracebacks) == 2
    for text in tracebacks:
        assert text.startswith("Traceback")
        assert "WorkshopError: Rusty has no spark" in text


def test_a_result_is_shown(browser, pass_time):
    page = service(browser, 1)
    pass_time(1)
    page = browser.get(page.request.path)
    assert page.html.select_one("code.result").text == "Kingfisher runs like new"
    assert "cancel" not in page.forms


def test_a_waiting_job_can_be_cancelled(browser, scheduler, pass_time):
    page = service(browser, 1)
    page = page.forms["cancel"].submit().follow()
    assert page.html.select_one(".state").text == "cancelled"
    assert "Cancelled." in page
    pass_time(1)
    assert [job.state for job in scheduler.get_jobs()] == ["cancelled"]


def test_the_inventory_counts_what_is_there(browser, scheduler, pass_time):
    form = browser.get("/").forms["rent-1"]
    form.submit()
    job_id = scheduler.add_async_job(jobs.count_inventory)
    pass_time(1)
    job = scheduler.get_job(job_id)
    assert job.result == {"at the jetty": 5, "out": 1}
    assert (job.progress.done, job.progress.total) == (6, 6)


def test_the_pages_refresh_their_live_parts(browser):
    page = browser.get("/jobs")
    assert [part["id"] for part in page.html.select("[data-live]")] == ["jobs", "schedules"]
    assert page.html.select_one("noscript meta[http-equiv=refresh]")
