"""Executing the notebooks, and checking that everything is still reproducible."""
