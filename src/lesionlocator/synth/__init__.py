"""Synthetic follow-up: a single scan becomes a patient over several visits, and every change is known exactly."""
