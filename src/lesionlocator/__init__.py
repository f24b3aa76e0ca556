"""Outline any tumour in a 3D scan from one click or box, and follow it through every later scan."""
