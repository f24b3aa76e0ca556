"""How good it is: predictions against truth, file by file."""

from lesionlocator.evaluate.files import MISSING, ScoredLesion, mean_scores, score_files

__all__ = ["MISSING", "ScoredLesion", "mean_scores", "score_files"]
