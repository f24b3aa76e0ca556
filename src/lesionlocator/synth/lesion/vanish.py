"""A lesion that vanishes, its place filled with tissue; the other way is `Appear`, read backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lesionlocator.synth.fill import tissue_over, with_halo
from lesionlocator.synth.lesion.choice import lesion_of, radius_mm, suitable
from lesionlocator.synth.lesion.resize import Shrink, possible
from lesionlocator.synth.region import Region
from lesionlocator.synth.visit import Changed, Visit

_CLONE_MM = (20.0, 60.0)
"""How far around tissue is looked for that can take the lesion's place."""
_FILLED_WHOLE_ML = 8.0
"""Larger lesions always shrink first: tissue of their size is not to be had nearby."""


@dataclass(frozen=True)
class Vanish:
    """The lesion shrinks to a share of its volume, pulling tissue in, and what is left is replaced by tissue.

    `shrunk_to` 1 replaces it as it is. So that nothing can learn what a filled place looks like, at least half of all
    vanished lesions of a data set should be made the other way: an `Appear` on an untouched scan, which becomes the
    follow-up (`Changed.reversed`).
    """

    lesion_id: str
    shrunk_to: float = 1.0
    seed: int = 0

    name: ClassVar[str] = "vanish"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "lesion"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Vanish | None:
        """Most of the small lesions are replaced as they are; others shrink to between 6 and 20 % first."""
        for name in rng.permutation(list(suitable(visit, lesion_ids))):
            mask = visit.lesions[str(name)]
            whole = mask.volume_ml <= _FILLED_WHOLE_ML and (rng.random() < 0.7 or mask.voxels < 16)
            least = max(0.06, 3.0 / mask.voxels)
            seed = int(rng.integers(2**31))
            if whole:
                return cls(str(name), 1.0, seed)
            smaller = possible(
                Shrink(str(name), round(float(rng.uniform(least, max(least, 0.2))), 4), seed=seed), visit
            )
            return cls(str(name), 1.0 if smaller is None else smaller.factor, seed)
        return None

    def apply(self, visit: Visit) -> Changed:
        """The visit without the lesion."""
        if self.shrunk_to < 1:
            smaller = Shrink(self.lesion_id, self.shrunk_to, seed=self.seed).apply(visit)
            return smaller.then(self._filled(smaller.visit))
        return self._filled(visit)

    def _filled(self, visit: Visit) -> Changed:
        mask = lesion_of(visit, self.lesion_id)
        margin_mm = float(np.clip(4 * radius_mm(mask), *_CLONE_MM))
        region = Region.around(visit, mask.geometry, margin_mm)
        others = region.others(self.lesion_id)
        where = with_halo(region.where(self.lesion_id), visit.volume, region.geometry) & ~others
        array = tissue_over(region, where, others | where, np.random.default_rng(self.seed))
        left = {name: outline for name, outline in visit.lesions.items() if name != self.lesion_id}
        fates = {name: (name,) if name in left else () for name in visit.lesions}
        return Changed(visit.edited(volume=region.put_back(array), lesions=left), fates)
