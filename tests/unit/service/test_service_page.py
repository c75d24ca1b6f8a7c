"""What the page reads beside the API: a sample of rows, pictures of media, how batches and the cluster are."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tarfile
import threading

import av
import numpy as np
import pytest
from PIL import Image
from service_house import ANN, BOB, MODEL

from lsi_ray.ledger.service_ledger import Accounts
from lsi_ray.ledger.service_records import Moment
from lsi_ray.service import row_sample
from lsi_ray.service.backend import ServiceError
from lsi_ray.service.describe import ModelState
from lsi_ray.service.models_state import Replicas
from lsi_ray.service.page_desk import PageDesk
from lsi_ray.service.page_views import NodeView
from lsi_ray.service.thumbnails import Thumbnails


def picture(kind="PNG", size=(900, 600), **how):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, kind, **how)
    return buffer.getvalue()


def row(number, content, url="/v1/chat/completions", **body):
    asked = {"model": MODEL, **body}
    if content is not None:
        asked["messages"] = [{"role": "system", "content": "be short"}, {"role": "user", "content": content}]
    return {"custom_id": f"r{number}", "method": "POST", "url": url, "body": asked}


def packed(rows, files=None):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in {"jobs.jsonl": "\n".join(map(json.dumps, rows)).encode(), **(files or {})}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def make(thumbnails, kind, data):
    return asyncio.run(thumbnails.make("ann", lambda: (kind, data)))


def sample(house, batch_id, most=12):
    batch, config = house.ledger.batch(batch_id), house.deployment.config(MODEL)
    return row_sample.sample(batch, house.work.batch(batch_id), house.ledger.segments(batch_id), config, most)


def read_media(house, batch_id, position, number):
    return row_sample.read_media(house.work.batch(batch_id), house.deployment.config(MODEL), position, number)


def test_a_sample_has_question_and_answer_of_rows_all_over_the_batch(house):
    batch_id = house.submit(rows=500)
    house.tick()
    assert sample(house, batch_id) == ()
    house.answer(batch_id, range(0, 400))
    rows = sample(house, batch_id)
    assert len(rows) == 12
    assert [one.row for one in rows] == sorted(one.row for one in rows)
    assert rows[-1].row > 250
    for one in rows:
        assert (one.custom_id, one.question, one.failed) == (f"r{one.row}", f"secret question {one.row}", False)
        assert one.position is not None
    assert len(sample(house, batch_id, 3)) == 3


def test_rows_that_validation_refused_show_why(house):
    bad = row(1, "hello") | {"method": "GET"}
    batch_id = house.submit(input_file_id=house.upload(packed([row(0, "hello"), bad])))
    house.tick()
    house.answer(batch_id)
    good, refused = sample(house, batch_id)
    assert (good.row, good.failed, good.question) == (0, False, "hello")
    assert (refused.row, refused.failed, refused.question, refused.position) == (1, True, "", None)
    assert refused.answer.startswith("invalid_method: Line 2")


def test_all_rows_refused(house):
    batch_id = house.submit(input_file_id=house.upload(packed([row(0, "hello") | {"method": "GET"}] * 2)))
    house.workers.held.add("delivery")
    house.tick()
    assert [one.failed for one in sample(house, batch_id)] == [True, True]


@pytest.mark.parametrize(
    ("content", "question"),
    [
        ("x" * 5000, "x" * 2000 + " ..."),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\ntwo"),
    ],
)
def test_questions_are_what_the_user_said_last(house, content, question):
    batch_id = house.submit(input_file_id=house.upload(packed([row(0, content)])))
    house.tick()
    house.answer(batch_id)
    assert sample(house, batch_id)[0].question == question


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"choices": [{"message": {"content": "a cat"}}]}, "a cat"),
        (
            {
                "choices": [
                    {"message": {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}
                ]
            },
            "f({})",
        ),
        ({"choices": [{"text": "and so on"}]}, "and so on"),
        ({"data": [{"embedding": [0.5] * 768}]}, "1 embedding of 768 numbers"),
        ({"data": [{"embedding": "AAAA"}]}, "1 embedding"),
        ({"choices": []}, ""),
        ({"choices": [{"message": {"content": None}}]}, ""),
    ],
)
def test_answers_of_every_endpoint_are_read(body, answer):
    assert row_sample._answer({"response": {"body": body}}) == answer


def test_pictures_of_media_are_made_anew(house):
    comment = b"GPS of the user's home"
    image = picture("JPEG", comment=comment)
    url = "data:image/png;base64," + base64.b64encode(picture(size=(30, 90))).decode()
    parts = [{"type": "image_url", "image_url": {"url": one}} for one in ("file:files/a.jpg", url)]
    batch_id = house.submit(input_file_id=house.upload(packed([row(0, parts)], {"files/a.jpg": image})))
    house.tick()
    house.answer(batch_id)
    [one] = sample(house, batch_id)
    assert one.media == ("image", "image")
    made = Thumbnails()
    for number, size in ((0, (320, 213)), (1, (30, 90))):
        found = read_media(house, batch_id, one.position, number)
        small = make(made, *found)
        assert comment not in small
        with Image.open(io.BytesIO(small)) as opened:
            assert (opened.format, opened.size) == ("JPEG", size)
    assert read_media(house, batch_id, one.position, 2) is None
    assert read_media(house, batch_id, 1, 0) is None


@pytest.mark.parametrize(
    "data", [b"", b"<svg onload='alert(1)'/>", b"\x89PNG\r\n\x1a\n" + b"\0" * 100, picture()[:200]]
)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_what_is_no_picture_has_none(data, kind, thumbnails):
    with pytest.raises(ServiceError) as caught:
        make(thumbnails, kind, data)
    assert caught.value.code == "not_found"


@pytest.fixture(scope="module")
def thumbnails():
    return Thumbnails()


def test_one_caller_does_not_have_all_places_and_none_of_others_threads(thumbnails):
    let_go = threading.Event()

    def slowly():
        let_go.wait(10)
        return "image", picture()

    async def crowd():
        asked = [asyncio.create_task(thumbnails.make("ann", slowly)) for _ in range(9)]
        await asyncio.sleep(0)
        other = asyncio.create_task(thumbnails.make("bob", slowly))
        # Of the loop's own threads, which are few, none waits.
        await asyncio.wait_for(asyncio.gather(*(asyncio.to_thread(int) for _ in range(50))), 5)
        refused = [task.exception() for task in asked if task.done()]
        let_go.set()
        done = await asyncio.gather(*asked, other, return_exceptions=True)
        return refused, [one for one in done if isinstance(one, bytes)]

    refused, done = asyncio.run(crowd())
    assert [error.code for error in refused] == ["rate_limited"]
    assert len(done) == 9
    assert not thumbnails._asking


def test_a_picture_of_a_video_is_a_frame_of_it(thumbnails):
    with Image.open(io.BytesIO(make(thumbnails, "video", clip()))) as opened:
        assert (opened.format, opened.size) == ("JPEG", (320, 240))
        red, green, _ = opened.convert("RGB").getpixel((160, 120))
    assert green > 150 > red  # one second in, it is green


def clip():
    """One second of red, one of green."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for number in range(10):
            pixels = np.zeros((480, 640, 3), np.uint8)
            pixels[..., 0 if number < 5 else 1] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.fixture
def page(house, tmp_path):
    accounts = Accounts(house.work.ledger, clock=house.clock)
    desk = PageDesk(
        house.ledger,
        accounts,
        house.deployment,
        desk=house.desk,
        replicas=Replicas(tmp_path),
        model_state=lambda model: ModelState(house.at_hand.meter(model), 0.0, None),
        clock=house.clock,
        nodes=lambda: ((NodeView(16, 8, 1e12, "H100"),), 2.0),
    )
    desk.accounts = accounts
    yield desk
    accounts.close()


def test_how_a_batch_came_along_is_its_owners(house, page):
    batch_id = house.submit(rows=10)
    house.tick()
    begun = house.clock.now
    house.answer(batch_id, range(4))
    house.clock.now += 10
    page.look()
    [moment] = page.pace(ANN, batch_id)
    assert (moment.at, moment.rows) == (begun + 10, 4)
    assert isinstance(moment, Moment)
    with pytest.raises(ServiceError) as caught:
        page.pace(BOB, batch_id)
    assert caught.value.code == "not_found"


def test_the_cluster_at_a_glance(house, page):
    assert page.cluster().nodes == ()
    house.submit(rows=10)
    house.submit(rows=20, caller=BOB)
    house.tick()
    page.look()
    view = page.cluster()
    [model] = view.models
    assert (view.nodes[0].accelerator, view.gpus_free) == ("H100", 2.0)
    assert (model.id, model.running, model.rows_waiting, model.rows_out, model.ready) == (MODEL, 2, 30, 0, 0)
    assert "ann" not in str(view)


def test_sign_ins_last_as_the_deployment_says(house, page):
    _, text = page.accounts.create("ann")
    signed = page.sign_in(text)
    assert signed.expires_at == house.clock.now + 12 * 3600
    assert page.signed_in(signed.text).caller == "ann"
    page.sign_out(signed.text)
    assert page.signed_in(signed.text) is None
