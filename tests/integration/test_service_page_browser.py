"""The page of a real service in a real Chromium: sign in, submit, watch, cancel, errors, accessibility."""

from __future__ import annotations

import io
import json
import re
import tarfile

import pytest
from guarded_service import CANARY
from page_browser import Person, chromium
from PIL import Image
from playwright.sync_api import expect
from service_process import MODEL, delivered

ROWS = 1200


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def base(guarded):
    return f"http://127.0.0.1:{guarded.port}/"


@pytest.fixture
def person(browser, base, guarded):
    one = Person(browser, base, viewport={"width": 1280, "height": 900})
    one.sign_in(guarded.token)
    yield one
    one.context.close()
    assert one.wrong == []


def row(number):
    parts = [{"type": "text", "text": f"What is on picture {number}?"}]
    parts.append({"type": "image_url", "image_url": {"url": f"file:files/{number % 5}.png"}})
    body = {"model": MODEL, "max_tokens": 16, "messages": [{"role": "user", "content": parts}]}
    hostile = "<img src=x onerror=alert(1)>" if number == 0 else f"row-{number}"
    return {"custom_id": hostile, "method": "POST", "url": "/v1/chat/completions", "body": body}


def archive(rows):
    files = {"jobs.jsonl": "\n".join(map(json.dumps, rows)).encode()}
    for number in range(5):
        buffer = io.BytesIO()
        Image.new("RGB", (640, 400), (40 * number, 90, 200 - 40 * number)).save(buffer, "PNG")
        files[f"files/{number}.png"] = buffer.getvalue()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def upload(person, content, name="batch.tar"):
    """The id of the batch."""
    page = person.page
    page.get_by_role("link", name="Submit", exact=True).click()
    form = page.get_by_role("region", name="A file from this computer")
    form.get_by_label("Model").select_option(MODEL)
    form.get_by_label("Window").fill("2h")
    form.get_by_label("File").set_input_files({"name": name, "mimeType": "application/x-tar", "buffer": content})
    form.get_by_role("button", name="Upload and submit").click()
    expect(page.get_by_text("The batch was accepted.")).to_be_visible()
    return page.get_by_role("heading", level=1).inner_text()


def test_submit_watch_and_take_the_results(person, guarded, tmp_path):
    page = person.page
    bad = {**row(1), "method": "GET", "custom_id": "the-bad-one"}
    batch_id = upload(person, archive([*map(row, range(ROWS)), bad]))
    expect(page.get_by_role("progressbar").first).to_be_visible()
    guarded.wait_for_rows(batch_id, 100)
    page.reload()
    rows = page.get_by_role("table", name="finished rows, spread over the batch")
    expect(rows.get_by_text("What is on picture")).not_to_have_count(0)
    expect(rows.get_by_text("<img src=x onerror=alert(1)>").or_(rows.get_by_text("row-")).first).to_be_visible()
    pictures = rows.get_by_role("img")
    pictures.first.scroll_into_view_if_needed()
    expect(pictures.first).to_have_js_property("naturalWidth", 320)
    bar = page.get_by_role("progressbar").first
    expect(bar).not_to_have_attribute("value", bar.get_attribute("value"), timeout=20_000)  # nobody loads it again
    expect(page.get_by_role("img", name="Throughput over time")).to_be_visible()
    person.look("batch-running")
    status = page.locator("[data-part=progress] .status")
    expect(status).to_contain_text("completed", timeout=60_000)
    expect(page.locator("#announce")).to_contain_text("completed")
    errors = page.get_by_role("table", name="Rows that failed, by error code")
    expect(errors.get_by_text("invalid_method")).to_be_visible()
    page.reload()
    with page.expect_download() as begun:
        page.get_by_role("link", name="Download the output").click()
    begun.value.save_as(tmp_path / "output")
    done = (tmp_path / "output").read_bytes()
    assert len(done.splitlines()) == ROWS
    person.look("batch-completed")


def test_cancel_and_errors(person, guarded, gossip):
    page = person.page
    gossip.objects["/page.tar"] = archive(map(row, range(6000)))
    page.get_by_role("link", name="Submit", exact=True).click()
    form = page.get_by_role("region", name="Pre-signed URLs")
    form.get_by_label("Input URL").fill(gossip.url("/page.tar"))
    form.get_by_label("Output URL").fill(gossip.url("/page.out"))
    form.get_by_label("Window").fill("soon")
    form.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("'soon' is not a time")
    expect(page.get_by_role("alert")).to_be_focused()
    person.look("submit-refused")
    assert CANARY not in page.content()
    form.get_by_label("Input URL").fill(gossip.url("/page.tar"))
    form.get_by_label("Output URL").fill(gossip.url("/page.out"))
    form.get_by_label("Window").fill("2h")
    form.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("The batch was accepted.")).to_be_visible()
    batch_id = page.get_by_role("heading", level=1).inner_text()
    guarded.wait_for_rows(batch_id, 1)
    page.locator("summary", has_text="Cancel").click()
    page.get_by_role("button", name="Cancel the batch").click()
    expect(page.get_by_text("The batch is being cancelled")).to_be_visible()
    expect(page.locator("[data-part=progress] .status")).to_contain_text("cancelled", timeout=60_000)
    assert CANARY not in page.content()
    person.look("batch-cancelled")
    good, bad = delivered(gossip.objects["/page.out"])
    assert len(good) + len(bad) == 6000
    upload(person, archive(map(row, range(3)))[:3000])
    expect(page.locator("[data-part=progress] .status")).to_contain_text("failed", timeout=30_000)
    expect(page.get_by_role("region", name="Errors").get_by_text("truncated")).to_be_visible()
    person.look("batch-failed")


def test_the_other_pages(person):
    page = person.page
    expect(page.get_by_role("heading", name="Batches")).to_be_visible()
    person.look("batches")
    page.get_by_role("link", name="Cluster").click()
    expect(page.get_by_role("table", name="Nodes:")).to_be_visible()
    expect(page.get_by_role("rowheader", name=MODEL)).to_be_visible()
    person.look("cluster")
    page.get_by_role("link", name="Submit", exact=True).click()
    person.look("submit")
    page.set_viewport_size({"width": 360, "height": 740})
    for path in ("", "ui/submit", "ui/cluster"):
        page.goto(person.base + path)
        assert not person.overflows(), path
    page.goto(person.base)
    page.locator("tbody a").first.click()
    page.wait_for_url("**/ui/batches/*")
    assert not person.overflows()
    person.look("phone")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    person.look("sign-in")
    page.goto(person.base)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_by_keyboard_alone(person):
    page = person.page
    expect(page.get_by_role("heading", name="Batches")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"


def test_reading_needs_no_script(browser, base, guarded):
    one = Person(browser, base, java_script_enabled=False)
    one.sign_in("lsi-0-nobody")
    expect(one.page.get_by_role("alert")).to_contain_text("not valid")
    one.sign_in(guarded.token)
    one.page.locator("tbody a").first.click()
    expect(one.page.get_by_role("heading", level=1)).to_contain_text(re.compile("batch_"))
    expect(one.page.get_by_role("img", name="Throughput over time").or_(one.page.get_by_text("No row"))).to_be_visible()
    one.page.get_by_role("link", name="Cluster").click()
    expect(one.page.get_by_role("heading", name="Models")).to_be_visible()
    one.context.close()
    assert one.wrong == []
