"""The order of rows and the cuts between shards."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from archive_rows import archive, chat

from lsi_ray.archive.cuts import shard_stops, smallest_shard
from lsi_ray.archive.order import Keys, Shape, grouped, joints, running_order, units
from lsi_ray.archive.plan import PLAN_DTYPE, load_plan
from lsi_ray.archive.validate import validate

ALONE = Shape()


def keys_of(*columns: list[int]) -> Keys:
    return np.array(columns, np.int64).astype(np.uint64)


def ints(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def order(keys: Keys, prefill: list[int], decode: list[int], shape: Shape = ALONE) -> list[int]:
    found: list[int] = running_order(keys, ints(prefill), ints(decode), shape).tolist()
    return found


def cut(joint: list[int], shape: Shape = ALONE, rendered: list[int] | None = None) -> list[tuple[int, int]]:
    stops = shard_stops(ints(joint), np.array(rendered or [0] * len(joint), np.uint32), shape)
    return list(pairwise((0, *stops)))


def groups(sizes: list[int]) -> list[int]:
    """Joints of groups back to back, which share one key."""
    return [0 if at == 0 else 1 for size in sizes for at in range(size)]


@pytest.mark.parametrize("seed", range(40))
def test_any_plan_is_all_rows_once_in_shards_within_bounds(seed: int) -> None:
    rng = random.Random(seed)
    rows = rng.choice([1, 2, 7, 63, 64, 65, 500])
    print(f"seed {seed}")
    shape = Shape(rng.choice([1, 4, 64]), rng.choice([10, 2**25]), rng.choice([1, 8]), rng.choice([1, 64]))
    keys = keys_of(*([rng.randrange(width) for _ in range(rows)] for width in (1 + rows // 50, 1 + rows // 5, rows)))
    tokens = [[rng.choice([0, 1, rng.randrange(10_000)]) for _ in range(rows)] for _ in range(2)]
    rendered = [rng.randrange(5) for _ in range(rows)]
    found = order(keys, *tokens, shape)
    assert sorted(found) == list(range(rows))
    shards = cut(joints(keys[:, found]).tolist(), shape, [rendered[row] for row in found])
    assert (shards[0][0], shards[-1][1]) == (0, rows)
    for start, stop in shards:
        assert 0 < stop - start <= 2 * shape.shard_rows
        assert stop - start == 1 or sum(rendered[row] for row in found[start:stop]) <= 2 * shape.shard_bytes


def test_rows_that_are_alike_and_share_nothing_keep_their_order() -> None:
    rng = random.Random(5)
    rows = list(range(1000))
    assert order(keys_of(rows), [rng.randint(192, 320) for _ in rows], [32] * 1000) == rows


def test_long_answers_begin_in_time_and_the_last_ones_are_short() -> None:
    rng = random.Random(7)
    decode = [min(768, max(4, round(32 * rng.lognormvariate(0, 1)))) for _ in range(3000)]
    found = order(keys_of(list(range(3000))), [64] * 3000, decode)
    steps, done = sum(decode) / 64, 0.0
    for row in found:
        late = decode[row] - (steps - done / 64)
        assert late < 0.02 * steps, f"row {row} of {decode[row]} tokens ends {late:.0f} steps behind the others"
        done += decode[row]


def test_no_batch_is_longer_than_its_longest_answer_makes_it() -> None:
    decode = [10] * 200
    decode[150] = 500
    assert order(keys_of(list(range(200))), [10] * 200, decode)[0] == 150


def test_prefill_and_decode_are_mixed_all_along() -> None:
    """The input has first all of the one kind, then all of the other."""
    prefill, decode = [8000] * 2000 + [50] * 2000, [50] * 2000 + [500] * 2000
    found = order(keys_of(list(range(4000))), prefill, decode)
    for start in range(0, 3200, 200):  # later come only short answers: the long ones have begun
        long = sum(row < 2000 for row in found[start : start + 200])
        assert 60 < long < 140, f"{long} of the rows from {start}"


def test_a_group_moves_as_a_whole_when_it_fits_a_shard() -> None:
    sizes = [5] * 40
    group = [number for number, size in enumerate(sizes) for _ in range(size)]
    decode = [10] * 200
    decode[177] = 400
    found = order(keys_of(group, list(range(200))), [10] * 200, decode)
    assert found[:5] == [175, 176, 177, 178, 179]


def test_of_a_wide_group_only_the_row_that_must_moves() -> None:
    decode = [10] * 300
    decode[250] = 400
    assert order(keys_of([0] * 300, list(range(300))), [10] * 300, decode)[:3] == [250, 0, 1]


def test_units_part_what_is_all_the_same_at_the_limit() -> None:
    assert Counter(units(ints([0] + [2] * 99), 2, 40).tolist()) == {0: 40, 1: 40, 2: 20}


@pytest.mark.parametrize("size", [3, 20, 40, 60, 64, 90, 128])
def test_a_group_of_up_to_two_shards_is_not_parted(size: int) -> None:
    shards = cut(groups([size] * 40))
    end = 40 * size if size <= 2 * smallest_shard(64) else 40 * size - 4 * 64  # then shards become smaller
    inside = [stop for _, stop in shards if stop <= end and stop % size]
    assert not inside


def test_a_group_is_kept_whole_behind_small_ones() -> None:
    assert cut(groups([20, 60] * 20))[:2] == [(0, 20 + 60), (80, 160)]


def test_a_large_group_is_parted_at_the_ordinary_size() -> None:
    assert [stop - start for start, stop in cut(groups([2000]))[:5]] == [64] * 5


def test_shards_become_smaller_towards_the_end_and_no_smaller_than_a_quarter() -> None:
    for replicas in (1, 8):
        sizes = [stop - start for start, stop in cut(groups([1] * 5000), Shape(replicas=replicas))]
        assert sizes[0] == 64
        assert sizes == sorted(sizes, reverse=True) or sizes[:-1] == sorted(sizes[:-1], reverse=True)
        assert min(sizes) >= smallest_shard(64) == 16
        assert sum(sizes[-2 * replicas :]) <= 5000 / 8


def test_media_bound_a_shard_by_their_pixels() -> None:
    shape = Shape(shard_bytes=100)
    assert cut(groups([1] * 40), shape, [60] * 40)[:3] == [(0, 1), (1, 2), (2, 3)]
    assert cut(groups([1] * 400), shape, [10] * 400)[:2] == [(0, 10), (10, 20)]
    assert cut(groups([1] * 3), shape, [1000] * 3) == [(0, 1), (1, 2), (2, 3)]


def test_the_questions_about_one_image_stay_in_one_shard() -> None:
    """20 of 2 MB each, in shards of about 32."""
    shards = cut(groups([20] * 50), ALONE, [2_000_000] * 1000)
    assert {start % 20 for start, _ in shards} == {0}


def test_questions_about_one_long_document_stand_together() -> None:
    """They begin all alike, so that only what comes behind the first 256 characters tells them apart."""
    documents = ["Answer about this text. " * 40 + f"document {n} " * 100 for n in range(5)]
    rows = [chat(str(n), documents[n % 5] + f"question {n}") for n in range(40)]
    plan = validate(*archive(rows)).plan["row"].tolist()
    assert plan == [first + 5 * n for first in range(5) for n in range(8)]


def test_a_plan_of_before_rows_shared_answers_is_read(tmp_path: Path) -> None:
    old = np.zeros(3, PLAN_DTYPE.descr[:-1])
    old["row"] = [2, 0, 1]
    np.save(tmp_path / "plan.npy", old)
    plan = load_plan(tmp_path / "plan.npy")
    assert plan.dtype == PLAN_DTYPE
    assert (plan["row"].tolist(), plan["same_as"].tolist()) == ([2, 0, 1], [0, 1, 2])


def test_groups_stand_in_the_order_of_their_first_rows() -> None:
    assert grouped(keys_of([3, 1, 3, 2, 1])).tolist() == [0, 2, 1, 4, 3]
