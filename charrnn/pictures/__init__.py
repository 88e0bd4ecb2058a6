"""Texts as heat maps: what the colours mean, and how they are written. No model is needed here."""
