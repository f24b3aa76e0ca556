"""The reading room's server: cases opened, outlined, followed, checked and kept, over HTTP."""
