"""Curves that are drawn while vectors are being optimised."""

import matplotlib.pyplot as plt
from IPython.display import display

from ..capacity import nats_to_bits

EVALUATIONS_BETWEEN_DRAWINGS = 20
COLOURS = [plt.get_cmap("viridis")(place) for place in (0.85, 0.65, 0.45, 0.25, 0.05)]


def count_vectors(n_mem: int) -> str:
    """Return a number of vectors in words: "1 vector", "2 vectors"."""
    return f"{n_mem} vector{'s' * (n_mem != 1)}"


class LiveCurves:
    """The share of tokens right and the cross-entropy that is left, by evaluation, with one line per number of vectors.

    Give it to ``cram`` as ``on_step``; ``close`` it when done. ``max_evaluations`` is the most that the axis is wide.
    Of several texts in a batch the means are drawn.
    """

    def __init__(self, max_evaluations: int):
        self.figure, (self.top, self.bottom) = plt.subplots(2, 1, figsize=(5, 3), sharex=True)
        self.top.set(ylabel="tokens right (share)", ylim=(0, 1.05))
        self.bottom.set(xlabel="evaluations of the model", ylabel="cross-entropy (bits)", xlim=(0, max_evaluations))
        self.shown = display(self.figure, display_id=True)
        self.curves = {}

    def __call__(self, now: dict) -> None:
        """Take in what one evaluation measured (see ``measure.measure_with_gradient``)."""
        n_mem = now["gradient"].shape[1]
        if n_mem not in self.curves:
            colour = COLOURS[min(len(self.curves), len(COLOURS) - 1)]
            lines = [ax.plot([], [], color=colour, label=count_vectors(n_mem))[0] for ax in (self.top, self.bottom)]
            self.curves[n_mem] = lines, [], []
            self.top.legend(loc="lower right")
        _, shares, bits = self.curves[n_mem]
        shares.append(float(now["share_correct"].mean()))
        bits.append(nats_to_bits(float(now["ce_nats"].mean())))
        if len(bits) % EVALUATIONS_BETWEEN_DRAWINGS == 0:
            self.draw()

    def draw(self) -> None:
        """Draw what has been taken in so far."""
        for lines, shares, bits in self.curves.values():
            for line, values in zip(lines, (shares, bits), strict=True):
                line.set_data(range(len(values)), values)
        self.bottom.relim()
        self.bottom.autoscale_view(scalex=False)
        if self.shown:
            self.shown.update(self.figure)

    def close(self) -> None:
        """Draw the last evaluations over an axis as long as they are, and close the figure."""
        self.bottom.set_xlim(0, 1.05 * max((len(bits) for _, _, bits in self.curves.values()), default=1))
        self.draw()
        plt.close(self.figure)
