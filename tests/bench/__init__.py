"""Side-by-side benchmark of pull + prepare: ``scripts/bench``."""
