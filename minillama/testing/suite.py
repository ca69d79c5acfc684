"""Every property as a test of pytest, for an implementation of anybody's:

    pytest --pyargs minillama.testing.suite --impl mypkg.adapter

plugin.py has the options, and gives these tests what they test.
"""

from __future__ import annotations

import pytest

from minillama.testing.base import Property
from minillama.testing.checks import PROPERTIES
from minillama.testing.plugin import IMPLEMENTATION, LEVEL
from minillama.testing.running import ConformanceError, run


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.id)
def test_holds(prop: Property, request: pytest.FixtureRequest) -> None:
    config, skipped, broken = request.config, None, None
    try:
        skipped = run(prop, config.stash[IMPLEMENTATION], config.stash[LEVEL], config.option.examples).skipped
    except ConformanceError as error:
        broken = str(error)
    if broken:
        pytest.fail(broken, pytrace=False)
    if skipped:
        pytest.skip(skipped)
