"""A process that stands still is killed; one that is slow, or somebody else, is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from lsi_ray.stream.hung import end_if_hung, replica_name

MARK = "lsi-test-of-hung"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", MARK])
    yield process
    process.kill()
    process.wait()


def test_a_stopped_one_is_killed_and_a_living_one_is_not(child: subprocess.Popen[bytes]) -> None:
    assert not end_if_hung(child.pid, MARK, deaf=False)
    assert child.poll() is None
    _stop(child)
    assert end_if_hung(child.pid, MARK, deaf=False)
    assert not psutil.pid_exists(child.pid)


def test_one_that_lives_and_has_been_silent_for_too_long_is_killed(child: subprocess.Popen[bytes]) -> None:
    assert end_if_hung(child.pid, MARK, deaf=True)
    assert not psutil.pid_exists(child.pid)


def test_another_process_under_its_pid_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    _stop(child)
    assert end_if_hung(child.pid, "another title", deaf=True)
    assert child.poll() is None


def test_names_tell_processes_apart() -> None:
    """Pods may share a host name and count their pids from 1 alike."""
    assert replica_name() != replica_name()


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
