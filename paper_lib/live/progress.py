"""The bars that running work shows."""

from tqdm import tqdm

from ..config import Sweep


class SweepProgress:
    """A bar over token-steps whose remaining time is an upper bound that gets better while the sweep runs.

    At first every case is expected to use all its steps; those that it leaves when it stops early come off the total.
    """

    def __init__(self, sweep: Sweep):
        self.name = sweep.name
        self.n_cases = self.n_exact = 0
        self._bar = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def start(self, cases: list) -> None:
        """Expect ``cases`` (see cases.SweepCase)."""
        self.cases = {case.key: case for case in cases}
        total = sum(case.n_tokens * case.n_steps_left for case in cases)
        self._bar = tqdm(desc=self.name, total=total, unit=" token-steps", unit_scale=True, dynamic_ncols=True)

    def step(self, token_steps: int) -> None:
        """Count token-steps that were just taken."""
        self._bar.update(token_steps)

    def finish(self, record: dict) -> None:
        """Count a case that is stored."""
        self.n_cases, self.n_exact = self.n_cases + 1, self.n_exact + record["exact"]
        case = self.cases[record["key"]]
        self._bar.total -= case.n_tokens * (case.config.optimiser.max_steps - record["n_steps"])
        self._bar.set_postfix_str(f"{self.n_cases} of {len(self.cases)} cases, {self.n_exact} exact")


class CramProgress:
    """A bar over the evaluations of one text, begun again for each number of vectors."""

    def __init__(self, max_evaluations: int):
        self.max_evaluations, self.n_mem, self._bar = max_evaluations, None, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def step(self, now: dict) -> None:
        """Count an evaluation and show how many tokens are right."""
        if now["gradient"].shape[1] != self.n_mem:
            self.__exit__()
            self.n_mem = now["gradient"].shape[1]
            n_vectors = f"{self.n_mem} vector" + "s" * (self.n_mem > 1)
            self._bar = tqdm(desc=n_vectors, total=self.max_evaluations, unit=" evaluations", dynamic_ncols=True)
        self._bar.update()
        self._bar.set_postfix_str(f"{now['share_correct'].mean():.0%} of tokens right", refresh=False)
