"""What the tests of the fault campaign share: how many trials, and how they are counted."""

import os

TIMES = float(os.environ.get("SALIENCY_FAULTS", "1"))  # how many times as many trials as in the default suite


def trials(count):
    """The number of trials, at least one."""
    return max(1, round(count * TIMES))


class Count:
    """Counts what was tried and what failed, and says both in one line."""

    def __init__(self, what):
        self.what, self.tried, self.failed = what, 0, []

    def add(self, failure=None):
        self.tried += 1
        if failure:
            self.failed.append(failure)

    def report(self, capsys, least=1):
        """Print the line, and fail if anything did, or if too little was tried."""
        with capsys.disabled():
            print(f"\n{self.what}: tried {self.tried}, failed {len(self.failed)}")
        assert self.tried >= least and not self.failed, self.failed[:5]
