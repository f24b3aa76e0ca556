"""What the published networks cost here: time over the bare network pass and over a floor, and peak memory.

`python benchmarks/published.py` runs all of it (some minutes on two cores); `parity`, `full` or `gpu` one part. Weights
are random: figures are about cost, never about quality. Every ratio is of two times taken in one run.

The floor: floating-point operations of the convolutions, over the rate that a matrix product reaches here.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import parity_cases as parity  # noqa: E402
from lesionlocator.geometry import Geometry  # noqa: E402
from lesionlocator.network.residual_unet import ResidualUNet  # noqa: E402
from lesionlocator.prompt import Box, Shape  # noqa: E402
from lesionlocator.published.ensemble import Effort, Ensemble  # noqa: E402
from lesionlocator.published.following import follow_all  # noqa: E402
from lesionlocator.published.outlining import outline_all  # noqa: E402
from lesionlocator.published.plans import read_plans  # noqa: E402
from lesionlocator.published.prompts import paint  # noqa: E402
from lesionlocator.published.scan import PlannedScan  # noqa: E402
from lesionlocator.volume import Mask, Volume  # noqa: E402

RELEASED_S = {"track_same": 194, "seg_boxmask_tta": 16}
CONVOLUTIONS = (torch.nn.Conv3d, torch.nn.ConvTranspose3d)


def timed(work):
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def matrix_rate():
    """Floating-point operations a second of the best of five float32 matrix products."""
    a = torch.rand((2048, 2048))
    a @ a
    return 2 * 2048**3 / min(timed(lambda: a @ a) for _ in range(5))


def operations(network, *inputs):
    """Floating-point operations of the convolutions in one pass."""
    counted = [0]

    def count(layer, _, output):
        size = output if isinstance(layer, torch.nn.Conv3d) else _[0]
        counted[0] += 2 * size[0, 0].numel() * size.shape[0] * layer.weight.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, CONVOLUTIONS)]
    with torch.inference_mode():
        network(*inputs)
    for hook in hooks:
        hook.remove()
    return counted[0]


def small_case():
    """The parity case beside the released program's times, stated for two idle cores."""
    rate = matrix_rate()
    print(f"matrix product: {rate / 1e9:.0f} GFLOP/s on {torch.get_num_threads()} threads")
    tracker, boxes = parity.ensemble("track"), parity.ensemble("box", True)
    unet, registration = tracker.network(0)
    patch, small = torch.rand((1, 2, 48, 64, 64)), [torch.rand((1, 1, 175, 175, 175)) for _ in range(2)]
    work_unet, work_registration = operations(unet, patch), operations(registration, *small)
    with torch.inference_mode():
        one_pass = min(timed(lambda: boxes.network(0)[0](patch)) for _ in range(3))
        one_map = timed(lambda: registration(*small))
    print(f"bare U-Net pass {one_pass:.3f} s ({work_unet / 1e9:.1f} GFLOP, floor {work_unet / rate:.3f} s)")
    print(f"bare registration {one_map:.1f} s ({work_registration / 1e9:.0f} GFLOP, ", end="")
    print(f"floor {work_registration / rate:.1f} s)")
    five = parity.labels("bl_lab")
    times = {}
    for count in (5, 20):
        masks = [shifted(mask, n // 5) for n, mask in enumerate(five * (count // 5))]
        pair = [PlannedScan(parity.scan(name), tracker.plans) for name in ("bl", "fu")]
        times[count] = timed(lambda pair=pair, masks=masks: follow_all(*pair, masks, tracker))
    floor, bare = (work_registration + 5 * work_unet) / rate, one_map + 5 * one_pass
    told("track_same", times[5], floor, bare)
    print(f"20 lesions: {times[20]:.1f} s, {times[20] / times[5]:.2f} times 5 lesions")
    scan = PlannedScan(parity.scan("bl"), boxes.plans)
    prompts = [paint((Shape(mask),), scan, "box") for mask in five]
    seconds = timed(lambda: outline_all(scan, prompts, boxes))
    told("seg_boxmask_tta", seconds, 40 * work_unet / rate, 40 * one_pass)


def told(case, seconds, floor, bare):
    print(
        f"{case}: {seconds:.1f} s (released program {RELEASED_S[case]} s), {seconds / floor:.1f} times the floor, "
        f"{seconds / bare:.2f} times the bare network passes"
    )


def shifted(mask, by):
    """The same lesion some voxels further, so that twenty are not five."""
    start = mask.geometry.crop((by, by, by), tuple(by + n for n in mask.array.shape))
    return Mask(mask.array, start)


def full_checkpoint(folder):
    """The published measures (patch 160 x 224 x 224, 102 M parameters) with random weights, for boxes."""
    plans = parity.plans()
    chosen = plans["configurations"]["3d_fullres"]
    chosen["patch_size"], chosen["spacing"] = [160, 224, 224], [1.0, 0.8, 0.8]
    network = chosen["architecture"]["arch_kwargs"]
    network |= {
        "n_stages": 6,
        "features_per_stage": [32, 64, 128, 256, 320, 320],
        "kernel_sizes": [[3, 3, 3]] * 6,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * 5,
        "n_blocks_per_stage": [1, 3, 4, 6, 6, 6],
        "n_conv_per_stage_decoder": [1] * 5,
    }
    part = Path(folder) / "LesionLocatorSeg" / "bbox_optimized"
    (part / "fold_0").mkdir(parents=True)
    (part / "plans.json").write_text(json.dumps(plans))
    (part / "dataset.json").write_text((parity.FOLDER / "dataset.json").read_text())
    torch.manual_seed(0)
    unet = ResidualUNet(read_plans(part).unet)
    torch.save({"network_weights": unet.state_dict()}, part / "fold_0" / "checkpoint_final.pth")
    print(f"{sum(p.numel() for p in unet.parameters()) / 1e6:.1f} M parameters")


def big_scan():
    """A CT of 600 slices of 512 x 512 pixels, int16."""
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]], affine[3, 3] = (1.25, 0.75, 0.75), 1
    slices = np.random.default_rng(0).integers(-1000, 400, (8, 512, 512), dtype=np.int16)
    return Volume(np.tile(slices, (75, 1, 1)), Geometry((600, 512, 512), affine), "CT")


def child(what, folder, precision, device):
    """One measurement in a process of its own, so that its peak memory is its own."""
    ensemble = Ensemble(Path(folder), "box", Effort((0,), False, precision, device))
    network = ensemble.network(0)[0]
    if what == "bare":
        patch = torch.rand((1, 2, *ensemble.plans.patch)).to(ensemble.device, ensemble.dtype)
        with torch.inference_mode():
            seconds = min(timed(lambda: network(patch)) for _ in range(3 if device == "cuda" else 1))
    else:
        volume = big_scan()
        box = Box.from_index(np.array([290.0, 240, 240]), np.array([310.0, 270, 270]), volume.geometry)
        seconds = timed(lambda: answer(volume, box, ensemble))
    gpu = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"seconds": seconds, "peak_gb": peak, "gpu_gb": gpu}))


def answer(volume, box, ensemble):
    scan = PlannedScan(volume, ensemble.plans)
    outline_all(scan, [paint((box,), scan, "box")], ensemble)


def full_size(device, precisions):
    """One box on 512 x 512 x 600, one fold, no mirroring: beside the bare pass of the same network."""
    with tempfile.TemporaryDirectory() as folder:
        full_checkpoint(folder)
        for precision in precisions:
            measured = {}
            for what in ("bare", "box"):
                command = [sys.executable, __file__, "child", what, folder, precision, device]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                measured[what] = json.loads(done.stdout.splitlines()[-1])
            bare, box = measured["bare"], measured["box"]
            ratio, more = box["seconds"] / bare["seconds"], box["peak_gb"] - bare["peak_gb"]
            print(f"full size, {device} {precision}: one box {box['seconds']:.2f} s, {ratio:.2f} times the bare pass")
            print(f"  bare pass {bare['seconds']:.2f} s; peak memory {box['peak_gb']:.2f} GB, {more:+.2f} GB over its")
            if device == "cuda":
                print(f"  on the GPU {box['gpu_gb']:.2f} GB, bare {bare['gpu_gb']:.2f} GB")
            sys.stdout.flush()


def on_gpu():
    if not torch.cuda.is_available():
        print("GPU: there is none here, so no figure was taken")
        return
    full_size("cuda", ("fp32", "bf16", "fp16"))


PARTS = {"parity": small_case, "full": lambda: full_size("cpu", ("fp32", "bf16")), "gpu": on_gpu}

if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:6])
    else:
        for part in sys.argv[1:] or list(PARTS):
            PARTS[part]()
