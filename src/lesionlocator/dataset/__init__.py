"""A data set of synthetic follow-ups: where its scans come from, what was drawn for each, and the folder it becomes."""
