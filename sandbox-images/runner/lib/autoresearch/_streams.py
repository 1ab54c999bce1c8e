"""Seeds: four streams a run, and the hook that seeds a library the moment the program first imports it.

The runner imports neither `random` nor numpy nor torch itself: PyTorch costs seconds and hundreds of MiB, which a
program that does not use it should not pay. So a finder at the head of `sys.meta_path` waits for those three names.
"""

import hashlib
import sys

from ._run import RUN

STREAMS = ("init", "order", "dropout", "split")
LIBRARIES = ("random", "numpy", "torch")
# 63 bits: fits a signed 64-bit integer of any JSON reader, and every generator's seed.
SEED_BITS = 63
# numpy's legacy global generator takes 32 bits.
NUMPY_SEED_MASK = (1 << 32) - 1


def derive(base, name):
    """The seed of a stream: the first 63 bits of SHA-256 over `BASE/NAME`. Streams of one seed, and one stream of
    neighbouring seeds, are unrelated."""
    digest = hashlib.sha256(f"{base}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)


def stream_seed(name):
    """The seed of a stream by name; a name other than the four is derived like them."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"a stream has a name, one of {', '.join(STREAMS)}, not {name!r}")
    given = (RUN.get("streams") or {}).get(name)
    return derive(RUN.get("seed") or 0, name) if given is None else int(given)


def seed(stream=None):
    """With a stream's name: its seed. Without: puts every library that is imported back to the beginning of the
    stream `init`, as at the program's start, and returns that seed. For a user's own program; a campaign's needs
    neither."""
    if stream is not None:
        return stream_seed(stream)
    use("init")
    return stream_seed("init")


def use(stream):
    """From here on the global generators of `random`, numpy and torch draw from the beginning of this stream: call
    `ar.use("dropout")` once the model is built, and dropout no longer depends on how many weights were drawn."""
    _current[0] = stream_seed(stream)
    for name in LIBRARIES:
        module = sys.modules.get(name)
        if module is not None:
            _seed_library(name, module)


def generator(stream="order"):
    """A new numpy Generator at the beginning of a stream."""
    import numpy

    return numpy.random.default_rng(stream_seed(stream))


def torch_generator(stream="order", device="cpu"):
    """A new torch Generator at the beginning of a stream, for a DataLoader, `randperm` and the like."""
    import torch

    made = torch.Generator(device=device)
    made.manual_seed(stream_seed(stream))
    return made


# What a library is seeded with when it is imported from now on.
_current = [stream_seed("init")]


def _seed_library(name, module):
    if name == "random":
        module.seed(_current[0])
    elif name == "numpy":
        module.random.seed(_current[0] & NUMPY_SEED_MASK)
    elif name == "torch":
        module.manual_seed(_current[0])
        threads = _threads()
        if threads:
            module.set_num_threads(threads)


def _threads():
    """The CPUs of the run, rounded up; 0 where they are not told. PyTorch would else take one thread for each CPU
    of the host, and the quota makes them wait for each other."""
    cpus = RUN.get("cpus") or 0
    return max(1, -int(-cpus // 1)) if cpus > 0 else 0


class SeedOnImport:
    """A finder that finds nothing by itself: it lets the others find, and seeds after the module has run. A module
    that is thrown out and run again has a generator seeded by the machine, so it is seeded again."""

    def find_spec(self, name, path=None, target=None):
        if name not in LIBRARIES:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec = find(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _SeedingLoader(spec.loader)
                return spec
        return None


class _SeedingLoader:
    """Stands in for a module's loader for the one call, then puts the real one back where tools look for it."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _seed_library(module.__name__, module)


def install():
    """Puts the hook in place; a library that something else imported already is seeded now."""
    sys.meta_path.insert(0, SeedOnImport())
    use("init")
