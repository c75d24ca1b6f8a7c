from __future__ import annotations


def salts(work):
    """By batch, of everything that can be leased now."""
    leases = work.ledger.lease(work.ledger.open_session("m"), 10_000, 10_000).leases
    return {lease.batch_id: lease.cache_salt for lease in leases}


def test_callers_differ_and_batches_of_one_caller_share(work):
    work.started("a1", 64, caller="ann")
    work.started("a2", 64, caller="ann")
    work.started("b", 64, caller="bob")
    found = salts(work)
    assert found["a1"] == found["a2"] != found["b"]
    assert all(len(salt) == 64 and int(salt, 16) for salt in found.values())
    assert "ann" not in found["a1"]


def test_a_salt_outlives_a_restart_and_is_another_in_another_work_dir(work, tmp_path):
    from lsi_ray.ledger.cache_salts import CacheSalts

    work.started("a", 64, caller="ann")
    before = salts(work)
    work.reopen()
    assert salts(work) == before
    key = work.folder / "cache.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert CacheSalts(tmp_path / "key").of("ann") != before["a"] == CacheSalts(key).of("ann")


def test_without_a_caller_there_is_no_salt_and_no_key(work):
    work.started("a", 64)
    assert salts(work) == {"a": ""}
    assert not (work.folder / "cache.key").exists()


def test_a_repeated_request_gets_the_same_salts(work):
    work.started("a", 64, caller="ann")
    session = work.ledger.open_session("m")
    first = work.ledger.lease(session, 64, 64, request=1)
    assert first.leases[0].cache_salt
    assert work.ledger.lease(session, 64, 64, request=1) == first
