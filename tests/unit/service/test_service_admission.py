from __future__ import annotations

import pytest
from service_house import ANN, House

from lsi_ray.errors import ConfigError
from lsi_ray.service.admission import Claim, admit, ahead, eta
from lsi_ray.service.backend import ServiceError
from lsi_ray.service.deploy import load_deployment
from lsi_ray.service.speed import Meter

NOW = 1_000_000.0


def steady(tokens_per_s, seconds=300):
    meter = Meter()
    for second in range(seconds):
        meter.add(1, tokens_per_s, NOW - seconds + second)
    return meter


def claim(name="me", tokens=1000.0, hours=24.0, priority=0):
    return Claim(name, tokens, NOW + hours * 3600, priority)


def test_a_steady_speed_is_measured():
    meter = steady(100)
    assert meter.recent(NOW).tokens_per_s == pytest.approx(100, rel=0.1)
    assert meter.tokens_per_s(0.5) == pytest.approx(100)
    assert meter.tokens_per_row() == 100
    assert meter.recent(NOW + 100) is None
    assert Meter().tokens_per_s(0.5) is None


def test_urgent_work_is_ahead_and_equal_work_takes_turns():
    urgent, equal, later = claim("u", 500, hours=1), claim("e", 5000), claim("l", 9000, hours=200)
    assert ahead(claim(), [urgent, equal, later, claim()], NOW) == 500 + 1000


def test_the_range_holds_the_steady_case():
    found = eta(claim(tokens=36_000), [], steady(100), 0.0, NOW)
    assert found.p50 == pytest.approx(NOW + 360)
    assert found.p50 < found.p90 < NOW + 450
    assert not found.at_risk
    assert eta(claim(tokens=36_000, hours=0.1), [], steady(100), 0.0, NOW).at_risk
    assert eta(claim(), [], Meter(), 0.0, NOW) is None


def test_work_that_does_not_fit_is_refused_with_a_window_that_does():
    admit(claim(tokens=100_000, hours=1), [], steady(100), safety=1.25, now=NOW)
    with pytest.raises(ServiceError) as caught:
        admit(claim(tokens=1_000_000, hours=1), [], steady(100), safety=1.25, now=NOW)
    assert caught.value.code == "no_capacity"
    assert "6h would do" in caught.value.message
    admit(claim(tokens=1e12, hours=1), [], Meter(), safety=1.25, now=NOW)


def test_a_full_house_refuses_at_the_desk(folder):
    house = House(folder)
    meter = house.at_hand.meter("lsi/simulated")
    for second in range(60):
        meter.add(1, 10, house.clock.now - 60 + second)
    big = house.submit(200)
    house.tick()
    house.at_hand.stale()
    with pytest.raises(ServiceError) as caught:
        house.submit(200, window_s=60.0)
    assert caught.value.code == "no_capacity"
    assert house.desk.get(ANN, big).eta.p90 > house.clock.now
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
