"""From a trained network to a model folder: half-precision weights, the graph of the light engine, and a card."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lesionlocator.engine import GRAPH, MEMORY_GRAPH, MEMORY_WEIGHTS, WEIGHTS
from lesionlocator.network.promptable import Promptable
from lesionlocator.network.remembering import Network, Remembering, network_of
from lesionlocator.segment.zoom import PATCH
from lesionlocator.weights import CARD_FILE, ModelCard, read_card

_OPSET = 18
_SMALL = 64


def write_model(network: Promptable, card: ModelCard, folder: Path) -> ModelCard:
    """Writes a model folder, and gives its card with the checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    return _written_down(replace(card, files=_write_network(network, folder, (GRAPH, WEIGHTS))), folder)


def add_memory(network: Remembering, folder: Path, **settings: float) -> ModelCard:
    """Adds the network for later scans to a model folder, and gives the new card, which has it used."""
    card = read_card(folder)
    files = {**card.files, **_write_network(network, folder, (MEMORY_GRAPH, MEMORY_WEIGHTS))}
    return _written_down(replace(card, settings={**card.settings, "memory": True, **settings}, files=files), folder)


def _write_network(network: Network, folder: Path, names: tuple[str, str]) -> dict[str, str]:
    """A graph and its weights, with their checksums.

    The graph holds no weights: it reads them out of the safetensors file, which the torch engine loads as well.
    """
    from safetensors.torch import save_file

    graph, weights = names
    halves = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(halves, folder / weights, metadata={"plan": json.dumps(network.plan.to_json())})
    rounded = network_of(network.plan.to_json())
    rounded.load_state_dict({name: value.float() for name, value in halves.items()})
    (folder / graph).write_bytes(_graph(rounded.eval(), folder / weights))
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def _written_down(card: ModelCard, folder: Path) -> ModelCard:
    (folder / CARD_FILE).write_text(json.dumps(card.to_json(), indent=1) + "\n", encoding="utf-8")
    return card


def _graph(network: Network, weights: Path) -> bytes:
    import onnx

    model = _exported(network)
    offsets = _offsets(weights)
    casts: list[Any] = []
    for tensor in model.graph.initializer:
        if tensor.name not in offsets or math.prod(tensor.dims) < _SMALL:
            continue
        start, stop = offsets[tensor.name]
        name = tensor.name
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.name, tensor.data_type = f"{name}.half", onnx.TensorProto.FLOAT16
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", start), ("length", stop - start)):
            tensor.external_data.add(key=key, value=str(value))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    _forget_where(model)
    return model.SerializeToString()


def _forget_where(model: Any) -> None:
    """Takes out what the exporter notes of the maker's own computer: paths and lines of source code."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _exported(network: Network) -> Any:
    example = torch.zeros(2, network.plan.channels, PATCH, PATCH, PATCH)
    batch = torch.export.Dim("patches", min=1, max=64)
    with warnings.catch_warnings():
        # The exporter warns about its own parts.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["shown"],
            output_names=["logits", "confidence"],
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch exported nothing")
    return program.model_proto


def _offsets(file: Path) -> dict[str, tuple[int, int]]:
    """Where in a safetensors file each tensor's bytes are: a length, a JSON header, then the bytes."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return {
        name: (8 + length + entry["data_offsets"][0], 8 + length + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }
