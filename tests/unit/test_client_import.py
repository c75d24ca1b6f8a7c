from __future__ import annotations

import subprocess
import sys

import pytest

import lsi_ray


def test_the_client_is_at_the_top_and_loaded_when_it_is_named():
    code = (
        "import sys, lsi_ray\n"
        "assert not {'httpx', 'ray', 'pydantic', 'msgspec'} & sys.modules.keys(), 'import lsi_ray loads too much'\n"
        "from lsi_ray import Client\n"
        "assert 'httpx' in sys.modules and 'ray' not in sys.modules\n"
        "Client('http://127.0.0.1:1', 'lsi-token').close()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_is_not_there_is_said_as_python_says_it():
    assert {"Client", "__version__"} <= set(dir(lsi_ray))
    with pytest.raises(AttributeError, match="has no attribute 'AsyncClient'"):
        _ = lsi_ray.AsyncClient
