"""Training a promptable network: from regions with known outlines to weights that can be used."""
