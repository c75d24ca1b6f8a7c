from __future__ import annotations

import pytest
from service_house import ANN, House

from lsi_ray.errors import ConfigError
from lsi_ray.ledger.service_records import BatchSize
from lsi_ray.service.admission import Claim, admit, ahead, eta, expected_tokens
from lsi_ray.service.backend import Patch, ServiceError
from lsi_ray.service.deploy import load_deployment
from lsi_ray.service.models_state import Speeds
from lsi_ray.service.speed import Meter

NOW = 1_000_000.0


def steady(tokens_per_s, seconds=300, *, full=True, completion=0.2, meter=None, now=NOW):
    meter = meter or Meter()
    for second in range(seconds):
        done = int(completion * tokens_per_s)
        meter.add(1, tokens_per_s, now - seconds + second, completion=done, full=full)
    return meter


def claim(name="me", tokens=1000.0, hours=24.0, priority=0):
    return Claim.of(name, tokens, NOW + hours * 3600, priority, NOW)


def test_a_steady_speed_is_measured():
    meter = steady(100)
    assert meter.recent(NOW).tokens_per_s == pytest.approx(100, rel=0.1)
    assert meter.likely() == meter.slow() == meter.capacity() == pytest.approx(100)
    assert (meter.tokens_per_row(), meter.completion_per_row()) == (100, 20)
    assert meter.recent(NOW + 100) is None
    assert Meter().likely() is None


def test_bursts_are_no_speed():
    """A shard of 64 rows every 20 s: three bins in four are empty, and count."""
    meter = Meter()
    for at in range(0, 600, 20):
        meter.add(64, 64_000, NOW + at, full=True)
    assert meter.likely() == pytest.approx(3200, rel=0.1)
    assert meter.slow() > 2000


def test_a_pause_is_nobodys_speed():
    meter = steady(100)
    meter.pause()
    steady(100, meter=meter, now=NOW + 3600)
    assert meter.likely() == pytest.approx(100, rel=0.05)


def test_a_few_rows_say_nothing_of_what_the_engines_can_do():
    """A sample comes first, as users are told; the big batch after it must not be refused for it."""
    meter = steady(10, full=False)
    assert (meter.likely(), meter.capacity()) == (10, None)
    admit(claim(tokens=1e9, hours=1), [], meter, safety=1.25, now=NOW)
    assert steady(5000, meter=meter, now=NOW + 300).likely() == pytest.approx(5000)


def test_speeds_are_known_after_a_restart(house):
    house.at_hand.meter("lsi/simulated")
    steady(100, meter=house.at_hand.meter("lsi/simulated"))
    house.at_hand.keep_speeds()
    before = house.at_hand.meter("lsi/simulated").measured()
    house.reopen()
    again = house.at_hand.meter("lsi/simulated")
    assert again.measured() == before
    steady(900, 120, meter=again)
    assert again.capacity() == pytest.approx(900)
    other = {"lsi/simulated": house.deployment.models["lsi/simulated"]}
    config = other["lsi/simulated"].config.model_copy(update={"shard_rows": 7})
    other["lsi/simulated"] = type(other["lsi/simulated"])(config, other["lsi/simulated"].settings)
    assert Speeds(house.work.path, other).meter("lsi/simulated").likely() is None
    (house.work.path / "speeds.json").write_text("of another time")
    assert Speeds(house.work.path, other).meter("lsi/simulated").likely() is None


def test_completions_are_bounded_by_max_tokens_and_by_what_the_model_gives():
    meter = steady(100)  # 80 prompt and 20 completion tokens a row
    assert expected_tokens(BatchSize(rows=10, prompt_bytes=400, max_tokens=10_000), meter) == 100 + 200
    assert expected_tokens(BatchSize(rows=10, prompt_bytes=400, max_tokens=50), meter) == 100 + 50
    assert expected_tokens(BatchSize(rows=10, prompt_bytes=400, max_tokens=50, media=10), meter) == 800 + 50
    assert expected_tokens(BatchSize(rows=10, prompt_bytes=400, max_tokens=0), Meter()) == 100
    assert expected_tokens(BatchSize(rows=10, prompt_bytes=400, max_tokens=10**6), Meter()) == 100 + 2560


def test_urgent_work_is_ahead_and_equal_work_takes_turns():
    urgent, equal, later = claim("u", 500, hours=1), claim("e", 5000), claim("l", 9000, hours=200)
    assert ahead(claim(), [urgent, equal, later, claim()]) == 500 + 1000


def test_the_range_holds_the_steady_case():
    found = eta(claim(tokens=36_000), [], steady(100), 0.0, NOW)
    assert found.p50 == pytest.approx(NOW + 360)
    assert found.p50 < found.p90 < NOW + 450
    assert not found.at_risk
    assert eta(claim(tokens=36_000, hours=0.1), [], steady(100), 0.0, NOW).at_risk
    assert eta(claim(), [], Meter(), 0.0, NOW) is None


def refused(one, others=(), **how):
    with pytest.raises(ServiceError) as caught:
        admit(one, others, steady(100), safety=1.25, now=NOW, **how)
    assert caught.value.code == "no_capacity"
    return caught.value.message


def test_work_that_does_not_fit_is_refused_with_a_window_that_does():
    admit(claim(tokens=100_000, hours=1), [], steady(100), safety=1.25, now=NOW)
    assert "of 6h would do" in refused(claim(tokens=1_000_000, hours=1))
    assert "of 24h would do" in refused(claim(tokens=1_000_000, hours=1), since=NOW - 4 * 3600)
    assert "no window of a week" in refused(claim(tokens=1e9, hours=1))
    admit(claim(tokens=1e12, hours=1), [], Meter(), safety=1.25, now=NOW)


def test_what_was_accepted_is_not_made_late_by_what_comes_after():
    accepted = claim("first", tokens=6_000_000, hours=24)  # 20.8 of its 24 hours, with the safety
    admit(accepted, [], steady(100), safety=1.25, now=NOW)
    assert "of 48h would do" in refused(claim(tokens=1_200_000, hours=24), [accepted])
    admit(claim(tokens=1_200_000, hours=48), [accepted], steady(100), safety=1.25, now=NOW)
    hopeless = claim("hopeless", tokens=60_000_000, hours=24)  # runs at its own risk, and keeps nobody else out
    admit(claim(tokens=100_000, hours=23), [hopeless], steady(100), safety=1.25, now=NOW)


def busy(house, tokens_per_s=10):
    """A model whose engines were full lately, at this speed."""
    steady(tokens_per_s, 120, meter=house.at_hand.meter("lsi/simulated"), now=house.clock.now)


def test_a_batch_that_cannot_be_done_fails_when_it_was_validated(house):
    """200 rows: about 9,000 tokens, 19 minutes at 10 tokens/s with the safety."""
    busy(house)
    late = house.submit(200, window_s=900.0)
    house.tick()
    view = house.desk.get(ANN, late)
    assert (view.status, [finding.code for finding in view.findings]) == ("failed", ["no_capacity"])
    assert "completion_window of 1h would do" in view.findings[0].message
    in_time = house.submit(200, window_s=1800.0)
    house.tick()
    assert house.status(in_time) == "in_progress"
    assert house.desk.get(ANN, in_time).eta.p90 > house.clock.now
    another, small = house.submit(200, window_s=1800.0), house.submit(20, window_s=1800.0)
    house.tick()
    assert (house.status(another), house.status(small)) == ("failed", "in_progress")


def test_a_batch_that_cannot_be_done_runs_at_risk_if_so_configured(folder):
    house = House(folder, admission={"refuse": False})
    busy(house)
    batch_id = house.submit(200, window_s=900.0)
    house.tick()
    view = house.desk.get(ANN, batch_id)
    assert (str(view.status), view.eta.at_risk) == ("in_progress", True)
    assert "1h would do" in view.warnings[0]
    assert house.desk.patch(ANN, batch_id, Patch(window="10m", window_s=600.0)).window == "10m"
    house.ledger.close()


def test_a_full_house_refuses_at_the_desk(house):
    """What is before it alone takes longer."""
    busy(house)
    house.submit(200, window_s=1300.0)
    house.tick()
    house.clock.now += 150
    busy(house, 5)
    house.submit(1, window_s=86_400.0, priority=-5)
    with pytest.raises(ServiceError) as caught:
        house.submit(1, window_s=1140.0, priority=-5)
    assert caught.value.code == "no_capacity"


def test_a_shorter_window_is_weighed_as_a_new_batch_is(house):
    busy(house)
    batch_id = house.submit(200)
    house.tick()
    house.clock.now += 600
    with pytest.raises(ServiceError) as caught:
        house.desk.patch(ANN, batch_id, Patch(window="20m", window_s=1200.0))
    assert caught.value.code == "no_capacity"
    assert "1h would do" in caught.value.message
    assert house.desk.get(ANN, batch_id).window == "24h"
    assert house.desk.patch(ANN, batch_id, Patch(window="1h", window_s=3600.0)).window == "1h"
    assert house.desk.patch(ANN, batch_id, Patch(window="7d", window_s=7 * 86_400.0)).window == "7d"


def test_rows_and_bytes_of_a_caller_are_limited(folder):
    house = House(folder, admission={"max_rows_per_caller": 10, "max_file_bytes_per_caller": 3000})
    first, second = house.submit(6), house.submit(6)
    house.tick()
    assert house.status(first) == "in_progress"
    assert house.desk.get(ANN, second).findings[0].code == "too_many_rows"
    house.answer(first)
    house.tick()
    with pytest.raises(ServiceError) as caught:
        house.submit(20)
    assert caught.value.code == "too_many_bytes"
    assert len(list((house.work.path / "files").iterdir())) == 3  # two inputs and an output
    house.ledger.close()


def test_deployments_are_checked_when_loaded(tmp_path):
    assert list(load_deployment(None).models) == ["lsi/tiny-vl"]
    (tmp_path / "m.yaml").write_text("model: m\nengine: {type: simulated}\n")
    good = tmp_path / "deploy.yaml"
    good.write_text("models: [{config: m.yaml, replicas: {min: 2, max: 3}}]\n")
    assert load_deployment(good).config("m").replicas.max == 3
    for text, said in {
        "models: []": "models",
        "models: [{config: m.yaml}, {config: m.yaml}]": "two configs",
        "models: [{config: gone.yaml}]": "gone.yaml",
        "models: [{config: m.yaml}]\nadmision: {}": "admision",
        "models: [": "not YAML",
    }.items():
        bad = tmp_path / "bad.yaml"
        bad.write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_deployment(bad)


def test_the_shipped_deployments_load():
    from pathlib import Path

    import yaml

    folder = Path(__file__).parents[3] / "configs"
    assert "lsi/tiny-vl" in load_deployment(folder / "deploy.yaml").models
    served = yaml.safe_load((folder / "serve.yaml").read_text())["applications"][0]
    assert (folder.parent / served["args"]["deploy"]).exists()
