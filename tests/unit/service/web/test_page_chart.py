"""The chart tells what was done between the moments that are known, and nothing else."""

from __future__ import annotations

import re

import pytest

from lsi_ray.ledger.service_records import Moment
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.backend import BatchView, Counts, Usage
from lsi_ray.service.web.chart import HEIGHT, WIDTH, chart

BEGUN = 1000.0


def view(rows=0, tokens=0, **times):
    return BatchView(
        *("b", "lsi", "ann", "/v1/chat/completions", BatchStatus.IN_PROGRESS, 900.0, "24h", 9e9),
        times={"in_progress": BEGUN, **times},
        counts=Counts(1000, rows, 0),
        usage=Usage(tokens, 0, 0),
    )


def steps(made):
    return [(step.begin, step.end, step.tokens) for step in made.table]


def test_rows_that_have_not_begun_have_no_speed():
    waiting = BatchView("b", "lsi", "ann", "e", BatchStatus.VALIDATING, 900.0, "24h", 9e9, times={"validating": 900.0})
    assert chart(waiting, (), 2000.0) is None
    assert chart(view(), (), BEGUN) is None


def test_between_two_moments_is_their_mean_also_over_a_restart():
    moments = (Moment(1010.0, 10, 1000), Moment(1110.0, 20, 2000))
    made = chart(view(30, 4000), moments, 1120.0)
    assert steps(made) == [(0.0, 10.0, 100.0), (10.0, 110.0, 10.0), (110.0, 120.0, 200.0)]
    assert (made.mean, made.highest, made.seconds) == (pytest.approx(4000 / 120), 200.0, 120.0)
    assert made.table[0].rows == 1.0


def test_it_ends_with_the_last_row_however_late_one_looks():
    done = view(10, 1000, finalizing=1010.0, completed=1300.0)
    assert chart(done, (), 9_000.0).seconds == 10.0
    assert chart(view(10, 1000, cancelling=1005.0), (Moment(1006.0, 1, 1),), 9_000.0).seconds == 5.0
    # A batch whose file was damaged runs again after it was being packed.
    assert chart(view(10, 1000, finalizing=990.0), (), 1020.0).seconds == 20.0


def test_rows_that_come_back_are_no_speed():
    made = chart(view(5, 500), (Moment(1010.0, 10, 1000), Moment(1020.0, 4, 400)), 1030.0)
    assert [tokens for *_, tokens in steps(made)] == [100.0, 0.0, 10.0]


def test_moments_of_the_same_second_are_one():
    moments = tuple(Moment(1000 + at / 10, at, at * 100) for at in range(1, 40))
    made = chart(view(40, 4000), moments, 1004.0)
    assert len(steps(made)) == 4
    assert [tokens for *_, tokens in steps(made)] == pytest.approx([1000.0] * 4)


def test_200_moments_are_a_path_within_the_picture_and_a_short_table():
    moments = tuple(Moment(1000.0 + 10 * at, at, at * at) for at in range(1, 200))
    made = chart(view(200, 40_000), moments, 3000.0)
    assert len(made.table) <= 20
    assert made.table[0].begin == 0.0
    assert made.table[-1].end == made.seconds
    drawn = sum(step.tokens * (step.end - step.begin) for step in made.table)
    assert drawn == pytest.approx(40_000)
    numbers = [float(found) for found in re.findall(r"[\d.]+", made.area)]
    assert min(numbers) >= 0
    assert max(numbers) <= max(WIDTH, HEIGHT)
    assert re.fullmatch(r"[MLHVZ\d. ]+", made.area)


@pytest.mark.parametrize(
    ("tokens", "top"), [(0, "1"), (9, "1"), (100, "10"), (101, "20"), (420, "50"), (1e9, "100,000,000")]
)
def test_the_scale_is_round(tokens, top):
    assert chart(view(1, int(tokens)), (), 1010.0).up[-1].text == top
