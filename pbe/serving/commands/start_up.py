"""A fast start of a command that paints once: most of its time would go into importing diffusers and transformers.

With torch, their import creates about 700,000 objects that live as long as the process. The garbage collector would
traverse them many times, and once more at exit, which took nearly a third of the start, to free almost nothing.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Pause the garbage collector within the block, and exempt from it for good what the block leaves.

    Does nothing in a process that has imported torch already, such as a test's: the exemption is for the whole process.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def hidden_module(name: str) -> Iterator[None]:
    """Make `import name` fail within the block, so that libraries to which it is optional do without it.

    Does nothing when the module is imported already. The libraries remember for the life of the process that they lack
    the module.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
