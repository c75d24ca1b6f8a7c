"""A sign-in is worth what its token is, for some hours, and its cookie is not in the ledger."""

from __future__ import annotations

import pytest

from lsi_ray.ledger import sign_ins
from lsi_ray.ledger.service_ledger import Accounts

HOURS = 3600.0


@pytest.fixture
def accounts(work):
    accounts = Accounts(work.folder / "ledger.sqlite", clock=work.clock)
    yield accounts
    accounts.close()


def test_a_sign_in_stands_for_its_token_until_it_expires(work, accounts):
    token, text = accounts.create("ann", scopes=("read",))
    signed = accounts.sign_in(text, 12 * HOURS)
    assert signed.token == token == accounts.signed_in(signed.text)
    assert text not in signed.text
    assert signed.text not in repr(signed)
    work.clock.now += 12 * HOURS - 1
    assert accounts.signed_in(signed.text) == token
    work.clock.now += 1
    assert accounts.signed_in(signed.text) is None
    assert accounts.check(signed.text) is None


@pytest.mark.parametrize("text", ["", "lsi-0-nobody", "lsi", "\udcff", "lsi-' OR 1=1 --"])
def test_who_has_no_token_does_not_sign_in(accounts, text):
    accounts.create("ann")
    assert accounts.sign_in(text, HOURS) is None
    assert accounts.signed_in(text) is None


def test_it_ends_with_its_token(work, accounts):
    token, text = accounts.create("ann")
    soon, short = accounts.create("bob", expires_at=work.clock.now + 60)
    ann, bob = accounts.sign_in(text, HOURS), accounts.sign_in(short, HOURS)
    assert bob.expires_at == soon.expires_at
    accounts.revoke(token.token_id)
    assert accounts.signed_in(ann.text) is None
    assert accounts.signed_in(bob.text) == soon
    assert accounts.sign_in(text, HOURS) is None


def test_signing_out_ends_one(accounts):
    _, text = accounts.create("ann")
    here, there = accounts.sign_in(text, HOURS), accounts.sign_in(text, HOURS)
    accounts.sign_out(here.text)
    accounts.sign_out(here.text)
    assert accounts.signed_in(here.text) is None
    assert accounts.signed_in(there.text) is not None


def test_there_are_only_so_many_of_one_token(accounts):
    _, text = accounts.create("ann")
    _, other = accounts.create("bob")
    first, bobs = accounts.sign_in(text, HOURS), accounts.sign_in(other, HOURS)
    later = [accounts.sign_in(text, HOURS) for _ in range(sign_ins.MOST)]
    assert accounts.signed_in(first.text) is None
    assert accounts.signed_in(bobs.text) is not None
    assert all(accounts.signed_in(one.text) for one in later)


def test_the_ledger_does_not_hold_the_cookie(work, accounts):
    _, text = accounts.create("ann")
    signed = accounts.sign_in(text, HOURS)
    held = b"".join(path.read_bytes() for path in work.folder.iterdir())
    assert signed.text.encode() not in held
    assert text.encode() not in held
