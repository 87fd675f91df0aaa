"""Everything that needs torch: models, texts, cramming, sweeps."""

import os

# Threads that spin while they wait for each other slow a run three to fifteen times on a machine that does anything
# else; threads that sleep at once slow it by a tenth on one that does not. So they spin for about 50 microseconds
# (benchmarks/busy.py). OpenMP reads this once, when torch is first imported; what the user has set stays.
if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
