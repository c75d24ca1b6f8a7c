"""How a batch came along is kept in few moments, and told truly over pauses, restarts and its end."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lsi_ray.ledger import pace
from lsi_ray.ledger.records import NewBatch
from lsi_ray.ledger.service_records import Moment, Submitted
from lsi_ray.ledger.states import BatchStatus


@pytest.fixture
def running(work):
    """A batch of 3,000 rows, and a way to answer some of it: 12 tokens a row."""
    work.ledger.submit(Submitted(NewBatch("b", "m", caller="ann"), "digest", None, 120.0))
    work.ledger.start_batch("b", 3000, 3000, 1)
    work.answered = 0

    def answer(rows):
        session = work.ledger.open_session("m")
        work.commit(session, "b", range(work.answered, work.answered + rows))
        work.answered += rows

    work.answer = answer
    return work


def test_what_was_done_when(running):
    running.ledger.note_pace()
    assert running.ledger.pace("b") == ()
    for rows in (10, 20):
        running.answer(rows)
        running.clock.now += 10
        running.ledger.note_pace()
    assert running.ledger.pace("b") == (Moment(1010.0, 10, 120), Moment(1020.0, 30, 360))


def test_a_pause_is_told_by_its_two_ends_and_survives_a_restart(running):
    running.answer(10)
    for _ in range(50):
        running.clock.now += 10
        running.ledger.note_pace()
    running.reopen()
    running.clock.now += 1000
    running.answer(5)
    running.ledger.note_pace()
    assert running.ledger.pace("b") == (Moment(1010.0, 10, 120), Moment(1500.0, 10, 120), Moment(2500.0, 15, 180))


def test_moments_stay_few_and_evenly_spread(running):
    for _ in range(2500):
        running.answer(1)
        running.clock.now += 10
        running.ledger.note_pace()
    moments = running.ledger.pace("b")
    gaps = [after.at - before.at for before, after in pairwise(moments)]
    assert pace.MOST / 2 < len(moments) <= pace.MOST
    assert max(gaps) <= 2 * min(gaps)
    assert moments[-1].at >= running.clock.now - 2 * max(gaps)


def test_it_stays_when_the_batch_is_erased(running):
    running.answer(3000)
    running.ledger.note_pace()  # it has ended: it is the page's to add the last moment
    assert running.ledger.pace("b") == ()
    running.ledger.deliver("b", BatchStatus.COMPLETED)
    running.ledger.erase("b")
    running.ledger.note_pace()
    assert running.ledger.pace("b") == ()


def test_what_was_noted_stays_when_the_batch_is_erased(running):
    running.answer(10)
    running.ledger.note_pace()
    running.answer(2990)
    running.ledger.deliver("b", BatchStatus.COMPLETED)
    running.ledger.erase("b")
    assert running.ledger.pace("b") == (Moment(1000.0, 10, 120),)
