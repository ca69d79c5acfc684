"""Does my LLaMA do what a LLaMA must? Properties of each component, tried on drawn cases that are made small when they
fail, and the hypothesis strategies that draw them.

    from minillama.testing import check_attention
    check_attention(my_attention, level="bf16")

or for everything at once, pytest --pyargs minillama.testing.suite --impl mypkg.adapter. docs/testing.md says what the
functions are given.

    levels.py       how exact an implementation claims to be, and what it may be off by
    strategies.py   tiny configs, masks, ragged batches, rotary settings, spiky arrays
    base.py         what a property is; running.py tries one
    properties/     what must hold, a file a component; checks.py has a function for each
    suite.py        the same as pytest's tests, with plugin.py for its options
    adapters/       implementations that are tested so, ours among them
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minillama.testing.checks import check_attention as check_attention
    from minillama.testing.checks import check_kv_cache as check_kv_cache
    from minillama.testing.checks import check_mlp as check_mlp
    from minillama.testing.checks import check_model as check_model
    from minillama.testing.checks import check_rms_norm as check_rms_norm
    from minillama.testing.checks import check_rope as check_rope
    from minillama.testing.checks import check_sampler as check_sampler
    from minillama.testing.levels import LEVELS as LEVELS
    from minillama.testing.levels import Level as Level
    from minillama.testing.running import ConformanceError as ConformanceError
    from minillama.testing.running import ConformanceWarning as ConformanceWarning

_HOMES = {
    "check_attention": "checks",
    "check_kv_cache": "checks",
    "check_mlp": "checks",
    "check_model": "checks",
    "check_rms_norm": "checks",
    "check_rope": "checks",
    "check_sampler": "checks",
    "ConformanceError": "running",
    "ConformanceWarning": "running",
    "LEVELS": "levels",
    "Level": "levels",
}
__all__ = sorted(_HOMES)
NEEDS = "minillama.testing needs {}, which is not installed: run `pip install hypothesis pytest`"


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: pytest, which loads the plugin, need not wait for them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'minillama.testing' has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"minillama.testing.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name == "hypothesis":
            raise ModuleNotFoundError(NEEDS.format("hypothesis"), name="hypothesis") from None
        raise
