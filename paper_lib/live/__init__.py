"""Everything that needs torch: models, texts, cramming, sweeps."""
