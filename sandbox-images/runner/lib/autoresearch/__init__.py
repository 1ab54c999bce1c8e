"""What a program in a sandbox may ask of its run.

    import autoresearch as ar
    model = build(**ar.params)              # variants differ by ar.params alone
    ar.log(step=step, train_loss=loss)      # any number of named scalars
    ar.save("model.pt", path)               # an artifact
    ar.dataset("digits")                    # the path of a data set
    ar.time_left()                          # seconds until the run's time limit
    ar.smoke                                # True in a smoke run: do one or two steps

Random numbers. Each run has four streams, `init`, `order`, `dropout` and `split`, each with a seed of its own. The
first import of `random`, `numpy` and `torch` seeds that library's global generator from `init`: weights are drawn
from it, and so is dropout unless the program calls `ar.use("dropout")` once its model is built (then everything
that draws from a global generator from there on comes from the dropout stream, whatever the model drew before).
Data order and splits come from generators of their own, so that two variants whose models draw different numbers
of weights still see the same batches:

    split = ar.generator("split").permutation(n)                                     # numpy
    DataLoader(data, shuffle=True, generator=ar.torch_generator("order"))            # torch

A generator starts at the beginning of its stream each time it is asked for: ask once and keep it.

Nothing here imports numpy or torch before the program asks for them.
"""

from ._metrics import log
from ._run import dataset, params, save, smoke, time_left
from ._streams import generator, seed, torch_generator, use

__all__ = [
    "dataset", "generator", "log", "params", "save", "seed", "smoke", "time_left", "torch_generator", "use",
]
