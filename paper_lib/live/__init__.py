"""Everything that needs torch: models, texts, cramming, sweeps."""

import os

# Threads that spin while they wait for each other make a step 15 times slower on a machine that does anything else.
# OpenMP reads this once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
