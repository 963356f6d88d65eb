"""Parses graphs for TensorRT with TensorRT-RTX's own parser, and compiles them ahead of time. Needs no GPU.

usage: compile_with_tensorrt_rtx.py OUT CAPABILITY[,CAPABILITY...] MODEL.onnx...

Each graph has to be one subgraph, whole, and has to compile for each of the compute capabilities (SM80, SM89, SM120) that this
version of TensorRT-RTX offers. Writes to OUT, for each graph, a line of JSON: its layers, and seconds and bytes of each engine.
"""

import json
import pathlib
import sys
import time

import onnx
import tensorrt_rtx as trt

# What a session is opened for. TensorRT-RTX wants the length of the cache to be fixed, as an override of a free dimension makes it.
UNITS = 32
FIXED = {"positions": 64, "columns_1": UNITS, "columns_2": 2 * UNITS, "columns_3": 3 * UNITS}
# Smallest size of a head for which there are kernels of attention.
KERNEL_HEADS_MIN = 64
# The least, the usual and the largest size of each other symbolic dimension, by profile. A step of answers has a token for each row.
PROFILES = {
    "answers": {"rows": (1, 4, 8), "tokens": (1, 1, 1), "wanted": (1, 4, 8)},
    "prompts": {"rows": (1, 1, 1), "tokens": (2, 16, 32), "wanted": (1, 1, 8)},
}


def fix(path):
    """A copy of the graph beside it, over the same weights, with fixed dimensions."""
    model = onnx.load(path, load_external_data=False)
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in FIXED:
                dim.dim_value = FIXED[dim.dim_param]
    # Heads of the tiny models of tests are smaller than those that TensorRT-RTX has kernels for; it takes them apart if allowed.
    widths = {value.name: value.type.tensor_type.shape.dim[-1].dim_value for value in model.graph.input if value.name.startswith("past_key")}
    if min(widths.values()) < KERNEL_HEADS_MIN:
        for node in model.graph.node:
            if node.op_type == "Attention":
                node.attribute.append(onnx.helper.make_attribute("TRT_decomposable", 1))
    fixed = pathlib.Path(path).with_name("fixed.onnx")
    fixed.write_bytes(model.SerializeToString())
    return str(fixed)


class Log(trt.ILogger):
    """Keeps the errors."""

    def __init__(self):
        trt.ILogger.__init__(self)
        self.errors = []

    def log(self, severity, message):
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(message)


def parse(path, log):
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(path):
        errors = {f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in map(parser.get_error, range(parser.num_errors))}
        sys.exit(f"{path}: not parsed: {sorted(errors)[:4]}")
    return builder, network, parser


def whole(path, log):
    """Whether TensorRT-RTX takes the graph as one subgraph."""
    # Each of them lives as long as what was made of it.
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    with open(path, "rb") as file:
        return parser.supports_model_v2(file.read(), path)


def engine(builder, network, capability, path, log):
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(capability, 0)
    for name, sizes in PROFILES.items():
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            value = network.get_input(index)
            dims, names = list(value.shape), [value.get_dimension_name(axis) for axis in range(len(value.shape))]
            unknown = [dim_name for dim, dim_name in zip(dims, names) if dim == -1 and dim_name not in sizes]
            if unknown:
                sys.exit(f"{path}: {value.name} has dimensions that profile {name} does not know: {unknown}")
            if -1 in dims:
                least, usual, most = ([sizes[dim_name][which] if dim == -1 else dim for dim, dim_name in zip(dims, names)] for which in range(3))
                profile.set_shape(value.name, least, usual, most)
        config.add_optimization_profile(profile)
    begun = time.time()
    built = builder.build_serialized_network(network, config)
    if not built:
        sys.exit(f"{path}: not compiled for {capability}: {log.errors[:3]}")
    return {"seconds": round(time.time() - begun, 2), "bytes": built.nbytes}


def main():
    out, wanted, *paths = sys.argv[1:]
    offered = {name: getattr(trt.ComputeCapability, name) for name in wanted.split(",") if hasattr(trt.ComputeCapability, name)}
    if not offered:
        sys.exit(f"TensorRT-RTX {trt.__version__} offers none of {wanted}")
    with open(out, "w", encoding="utf-8") as lines:
        for path in map(fix, paths):
            log = Log()
            if not whole(path, log):
                sys.exit(f"{path}: TensorRT-RTX does not take all of it: {log.errors[:3]}")
            builder, network, _parser = parse(path, log)
            engines = {name: engine(builder, network, capability, path, log) for name, capability in offered.items()}
            print(json.dumps({"graph": path, "layers": network.num_layers, "engines": engines}), file=lines, flush=True)


if __name__ == "__main__":
    main()
