"""How the threads of one pass share its work and wait for each other, and memory that is known by its address."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from minillama.kernels import llvm


@intrinsic
def at(typing: Any, address: Any, like: Any) -> Any:
    """The numbers at an address, as an array of the kind of `like`. Its length is not known: nothing checks it."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type
        array = context.make_array(kind)(context, b)
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        count = llvm.I64(1 << 40)
        context.populate_array(
            array,
            data=b.inttoptr(args[0], array.data.type),
            shape=cgutils.pack_array(b, [count]),
            strides=cgutils.pack_array(b, [llvm.I64(size)]),
            itemsize=llvm.I64(size),
            meminfo=None,
        )
        return array._getvalue()

    return types.Array(like.dtype, 1, "C")(types.int64, like), build


@intrinsic
def fetch_add(typing: Any, a: Any, i: Any, n: Any) -> Any:
    """What a[i] was before n was added to it, with no other thread in between."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        pointer = llvm.pointer(context, b, signature.args[0], args[0], args[1], llvm.I64)
        return b.atomic_rmw("add", pointer, args[2], "seq_cst")

    return types.int64(a, types.int64, types.int64), build


@intrinsic
def _look(typing: Any, a: Any, i: Any) -> Any:
    """a[i], as another thread may have left it this moment."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        pointer = llvm.pointer(context, b, signature.args[0], args[0], args[1], llvm.I64)
        return b.load_atomic(pointer, "seq_cst", 8)

    return types.int64(a, types.int64), build


def _yield_address() -> int:
    """Of the system's function by which a thread lets others run."""
    if sys.platform == "win32":
        library, name = ctypes.WinDLL("kernel32"), "SwitchToThread"
    else:
        library, name = ctypes.CDLL(None), "sched_yield"
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


# By a name of our own, which compiled code that is kept on disk finds again
binding.add_symbol("minillama_yield", _yield_address())


@intrinsic
def let_others_run(typing: Any) -> Any:
    """Give this thread's core to another one that waits for it."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(llvm.I32, []), "minillama_yield"), [])
        return context.get_dummy_value()

    return types.void(), build


@njit
def wait_for(a: Any, i: int, n: int) -> None:
    """Wait until a[i] is at least n. Threads of one pass run at the same time, so that is soon; unless the machine has
    other work, and one of them has no core at the moment."""
    looks = 0
    while _look(a, i) < n:
        looks += 1
        if looks > 2000:
            let_others_run()
