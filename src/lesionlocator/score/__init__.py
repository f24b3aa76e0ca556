"""How good an answer is: scores of masks, of finding lesions again, of events and of confidence."""

from lesionlocator.score.confidence import ConfidenceScore, score_confidence
from lesionlocator.score.events import EventScore, count_identity_switches, score_events
from lesionlocator.score.masks import MaskScore, false_volumes, score_masks
from lesionlocator.score.retrieval import RetrievalScore, score_retrieval

__all__ = [
    "ConfidenceScore",
    "EventScore",
    "MaskScore",
    "RetrievalScore",
    "count_identity_switches",
    "false_volumes",
    "score_confidence",
    "score_events",
    "score_masks",
    "score_retrieval",
]
