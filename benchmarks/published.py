"""What the published networks cost here: time over the bare network pass and over a floor, and peak memory.

`python benchmarks/published.py` runs all of it (a quarter of an hour on two cores); `parity`, `qualities`, `full` or
`gpu` one part. Weights are random: figures are about cost, never about quality. Every ratio is of two times taken in
one run.

The floor: floating-point operations of the convolutions, over the rate that a matrix product reaches here.
"""

import json
import os
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
from lesionlocator.network.gradicon import CHECKPOINT_PLACES, RegistrationNetwork  # noqa: E402
from lesionlocator.network.residual_unet import ResidualUNet  # noqa: E402
from lesionlocator.prompt import Box, Shape  # noqa: E402
from lesionlocator.published.ensemble import PARTS, Effort, Ensemble  # noqa: E402
from lesionlocator.published.following import follow_all  # noqa: E402
from lesionlocator.published.outlining import outline_all  # noqa: E402
from lesionlocator.published.plans import read_plans  # noqa: E402
from lesionlocator.published.prompts import paint  # noqa: E402
from lesionlocator.published.scan import PlannedScan  # noqa: E402
from lesionlocator.volume import Mask, Volume  # noqa: E402

RELEASED_S = {"track_same": 194, "seg_boxmask_tta": 16}
TURNS = 3
LESIONS = 20
FOLDS = 5
QUALITIES = {"fast": (1, 1), "balanced": (FOLDS, 1), "max": (FOLDS, 8)}
"""Quality -> folds and mirrors."""
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
    """The published measures (patch 160 x 224 x 224, 102 M parameters) with random weights, for boxes and the tracker.

    Five folds, which are one: what they cost does not depend on their values.
    """
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
    torch.manual_seed(0)
    for part in (PARTS["box"], PARTS["track"]):
        into = Path(folder) / part
        (into / "fold_0").mkdir(parents=True)
        (into / "plans.json").write_text(json.dumps(plans))
        (into / "dataset.json").write_text((parity.FOLDER / "dataset.json").read_text())
        unet = ResidualUNet(read_plans(into).unet)
        weights = unet.state_dict()
        if part == PARTS["track"]:
            weights = {f"unet.{name}": tensor for name, tensor in weights.items()}
            for step, place in zip(RegistrationNetwork().steps, CHECKPOINT_PLACES, strict=True):
                # Nothing moves: with random displacements a lesion would be carried out of the scan.
                step.lastConv.weight.data.zero_()
                step.lastConv.bias.data.zero_()
                weights |= {f"reg_net.regis_net.{place}.net.{n}": tensor for n, tensor in step.state_dict().items()}
        content = {"network_weights": weights, "inference_allowed_mirroring_axes": (0, 1, 2)}
        torch.save(content, into / "fold_0" / "checkpoint_final.pth")
        same_folds(into)
    print(f"{sum(p.numel() for p in unet.parameters()) / 1e6:.1f} M parameters")


def same_folds(part):
    """Folds 1 to 4 that are fold 0 again."""
    for fold in range(1, FOLDS):
        (part / f"fold_{fold}").symlink_to(part / "fold_0", target_is_directory=True)


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
    patch = torch.rand((1, 2, *ensemble.plans.patch)).to(ensemble.device, ensemble.dtype)

    def bare():
        with torch.inference_mode():
            network(patch)

    if what == "bare":
        seconds = timed(bare)
    else:
        volume = big_scan()
        box = Box.from_index(np.array([290.0, 240, 240]), np.array([310.0, 270, 270]), volume.geometry)
        seconds = timed(lambda: answer(volume, box, ensemble))
    told = {"seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
    if device == "cuda":
        told["gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    if what == "both":
        # The first pass of each kind is not counted; then turn about, so that both meet the same load.
        timed(bare)
        turns = [(timed(bare), timed(lambda: answer(volume, box, ensemble))) for _ in range(TURNS)]
        told["bare"], told["box"] = ([turn[which] for turn in turns] for which in (0, 1))
    print(json.dumps(told))


def answer(volume, box, ensemble):
    scan = PlannedScan(volume, ensemble.plans)
    outline_all(scan, [paint((box,), scan, "box")], ensemble)


def full_size(device, precisions):
    """One box on 512 x 512 x 600, one fold, no mirroring: beside the bare pass of the same network."""
    with tempfile.TemporaryDirectory() as folder:
        full_checkpoint(folder)
        for precision in precisions:
            measured = {}
            for what in ("bare", "box", "both"):
                measured[what] = asked_child(what, folder, precision, device)
            bare, box, both = measured["bare"], measured["box"], measured["both"]
            ratios = [b / a for a, b in zip(both["bare"], both["box"], strict=True)]
            print(f"full size, {device} {precision}, {load()}")
            print(f"  turn about, seconds: bare pass {listed(both['bare'])}; one box {listed(both['box'])}")
            fastest = min(both["box"]) / min(both["bare"])
            print(f"  one box over the bare pass before it: {listed(ratios)}, median {np.median(ratios):.2f}; ", end="")
            print(f"fastest over fastest {fastest:.2f}")
            more = box["peak_gb"] - bare["peak_gb"]
            print(f"  peak memory, one box alone: {box['peak_gb']:.2f} GB, {more:+.2f} GB over the bare pass alone")
            if device == "cuda":
                print(f"  on the GPU {box['gpu_gb']:.2f} GB, bare {bare['gpu_gb']:.2f} GB")
            sys.stdout.flush()


def asked_child(what, folder, precision, device):
    command = [sys.executable, __file__, "child", what, str(folder), precision, device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def listed(numbers):
    return ", ".join(f"{number:.2f}" for number in numbers)


def load():
    """How busy the machine is: processes that want a core, over the last minute and five, beside the cores."""
    if not hasattr(os, "getloadavg"):
        return "load not known"
    one, five, _ = os.getloadavg()
    return f"load {one:.1f} over 1 min, {five:.1f} over 5 min, on {os.cpu_count()} cores"


def qualities():
    """What each quality costs: measured with the parity set's networks, estimated for the full size."""
    with tempfile.TemporaryDirectory() as folder:
        for part in (PARTS["box"], PARTS["track"]):
            (Path(folder) / part).mkdir(parents=True)
            for name in ("plans.json", "dataset.json", "fold_0"):
                (Path(folder) / part / name).symlink_to(parity.checkpoint() / part / name)
            same_folds(Path(folder) / part)
        print(f"parity networks, five folds, fp32, {load()}")
        for quality, (folds, mirrors) in QUALITIES.items():
            quality_cost(Path(folder), quality, Effort(tuple(range(folds)), mirrors > 1, "fp32", "cpu"))
    with tempfile.TemporaryDirectory() as folder:
        full_checkpoint(folder)
        done = asked_child("passes", folder, "fp32", "cpu")
        unet_s, registration_s = done["unet"], done["registration"]
        print(f"full size, estimated: network pass {unet_s:.1f} s, registration {registration_s:.1f} s, {load()}")
        for quality, (folds, mirrors) in QUALITIES.items():
            count = folds * mirrors
            print(
                f"  {quality}: {count * unet_s:.0f} s a lesion, {count * registration_s:.0f} s more a pair of scans "
                f"({count} times the bare passes)"
            )


def quality_cost(folder, quality, effort):
    """Five lesions outlined, and followed into one follow-up; tracking in all mirrors is left to the estimate."""
    boxes, masks = loaded(folder, "box", effort), parity.labels("bl_lab")
    scan = PlannedScan(parity.scan("bl"), boxes.plans)
    prompts = [paint((Shape(mask),), scan, "box") for mask in masks]
    # Twice, since torch prepares itself at the first passes; the second time with a scan not yet made ready.
    outline_all(scan, prompts[:1], boxes)
    fresh = PlannedScan(parity.scan("bl"), boxes.plans)
    seconds = timed(lambda: outline_all(fresh, prompts, boxes)) / len(masks)
    print(f"  {quality}: {seconds:.2f} s a lesion", end="")
    if effort.mirroring:
        print("; tracking not run, 8 times balanced")
        return
    tracker = loaded(folder, "track", effort)
    pair = [PlannedScan(parity.scan(name), tracker.plans) for name in ("bl", "fu")]
    print(
        f"; {timed(lambda: follow_all(*pair, masks, tracker)):.1f} s to follow five lesions into one scan", flush=True
    )


def loaded(folder, part, effort):
    """A model with the networks of its folds in memory."""
    ensemble = Ensemble(folder, part, effort)
    for fold in ensemble.folds:
        ensemble.network(fold)
    return ensemble


def passes_child(folder, precision, device):
    """The best of two bare passes of the U-Net and of the registration."""
    tracker = Ensemble(Path(folder), "track", Effort((0,), False, precision, device))
    unet, registration = tracker.network(0)
    patch = torch.rand((1, 2, *tracker.plans.patch)).to(tracker.device, tracker.dtype)
    pair = [torch.rand((1, 1, 175, 175, 175)).to(tracker.device) for _ in range(2)]
    with torch.inference_mode():
        unet_s = min(timed(lambda: unet(patch)) for _ in range(2))
        registration_s = min(timed(lambda: registration(*pair).on_grid((175,) * 3)) for _ in range(2))
    print(json.dumps({"unet": unet_s, "registration": registration_s}))


def twenty_child(folder, precision, device):
    """Twenty lesions outlined, and followed, by all folds in all mirrors, beside the bare passes of the same device."""
    effort = Effort((), True, precision, device)
    tracker, boxes = (loaded(Path(folder), part, effort) for part in ("track", "box"))
    volume = big_scan()
    corners = [np.array([150.0 + 15 * n, 120 + 12 * n, 380 - 12 * n]) for n in range(LESIONS)]
    asked = [Box.from_index(corner, corner + np.array([16.0, 20, 20]), volume.geometry) for corner in corners]
    scan = PlannedScan(volume, boxes.plans)
    count = len(boxes.folds) * len(boxes.flips())
    outlined = timed(lambda: outline_all(scan, [paint((box,), scan, "box") for box in asked], boxes))
    masks = [Mask.from_array(np.ones((16, 20, 20), bool), part_of(volume.geometry, corner)) for corner in corners]
    pair = [PlannedScan(volume, tracker.plans) for _ in range(2)]
    followed = timed(lambda: follow_all(*pair, masks, tracker))
    told = {"passes": count, "outlined": outlined, "followed": followed}
    if device == "cuda":
        told["gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    print(json.dumps(told))


def part_of(geometry, corner):
    start = tuple(int(v) for v in corner)
    return geometry.crop(start, tuple(a + n for a, n in zip(start, (16, 20, 20), strict=True)))


def twenty(folder, precision, device):
    """Twenty lesions, all folds and mirrors, over the bare passes that they need."""
    bare = asked_child("passes", folder, precision, device)
    done = asked_child("twenty", folder, precision, device)
    passes, unet_s = done["passes"], bare["unet"] * done["passes"] * LESIONS
    maps_s = bare["registration"] * passes
    print(f"{LESIONS} lesions, {passes} passes each (all folds and mirrors), {device} {precision}:")
    print(f"  outlined {done['outlined']:.1f} s, {done['outlined'] / unet_s:.2f} times the bare passes")
    print(f"  followed {done['followed']:.1f} s, {done['followed'] / (unet_s + maps_s):.2f} times the bare passes")
    if "gpu_gb" in done:
        print(f"  on the GPU {done['gpu_gb']:.2f} GB")
    sys.stdout.flush()


def on_gpu():
    if not torch.cuda.is_available():
        print("GPU: there is none here, so no figure was taken")
        return
    full_size("cuda", ("fp32", "bf16", "fp16"))
    with tempfile.TemporaryDirectory() as folder:
        full_checkpoint(folder)
        for precision in ("fp32", "bf16", "fp16"):
            twenty(folder, precision, "cuda")


WORK = {
    "parity": small_case,
    "qualities": qualities,
    "full": lambda: full_size("cpu", ("fp32", "bf16")),
    "gpu": on_gpu,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        CHILDREN = {"passes": passes_child, "twenty": twenty_child}
        what, *rest = sys.argv[2:6]
        CHILDREN[what](*rest) if what in CHILDREN else child(what, *rest)
    else:
        for part in sys.argv[1:] or list(WORK):
            WORK[part]()
