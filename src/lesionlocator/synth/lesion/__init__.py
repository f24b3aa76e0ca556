"""Changes of a lesion: it grows, shrinks, vanishes, appears, splits, merges, or looks different inside."""

from lesionlocator.synth.lesion.appear import Appear, Graft
from lesionlocator.synth.lesion.divide import Merge, Split
from lesionlocator.synth.lesion.inside import Necrosis, RimChange, UptakeChange
from lesionlocator.synth.lesion.resize import Grow, Shrink
from lesionlocator.synth.lesion.vanish import Vanish

__all__ = ["Appear", "Graft", "Grow", "Merge", "Necrosis", "RimChange", "Shrink", "Split", "UptakeChange", "Vanish"]
