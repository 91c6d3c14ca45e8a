"""onnxruntime: MLAS. The optimiser makes Conv and Relu one node and blocks the channels; its pool may spin."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.layers.frameworks import arguments, channels_first, channels_last, first_weight
from benchmarks.layers.network import Array, Network, Refused, Way


def way(network: Network, threads: int, bound: bool) -> Way:
    """Bound: through an IO binding. As a user: NumPy arrays in and out.

    Raises:
        Refused: for anything but float32.
    """
    if network.dtype != "f32":
        raise Refused("no bf16 convolution on the CPU")
    return model_way(_model(network).SerializeToString(), network.x, threads, bound)


def model_way(model: bytes, x: Array, threads: int, bound: bool) -> Way:
    """A model in float32 of an input "x" and a result "y", channels first; the way's are channels last."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x = channels_first(x)

    def run() -> Array:
        return session.run(None, {"x": x})[0]

    if not bound:
        return Way(run, lambda: channels_last(run()))
    binding, own_x, result = session.io_binding(), _memory(x.shape), _memory(run().shape)
    own_x.update_inplace(x)
    binding.bind_ortvalue_input("x", own_x)
    binding.bind_ortvalue_output("y", result)

    def run_bound() -> None:
        session.run_with_iobinding(binding)

    def output() -> Array:
        run_bound()
        return channels_last(result.numpy())

    return Way(run_bound, output)


def _memory(shape: tuple[int, ...]) -> onnxruntime.OrtValue:
    """Memory of onnxruntime's own, which a binding keeps alive."""
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)


def _model(network: Network) -> onnx.ModelProto:
    args = arguments(network.geometry)
    settings = {
        "kernel_shape": network.geometry.kernel,
        "strides": args.strides,
        "pads": args.begin + args.end,
        "dilations": args.dilations,
        "group": args.groups,
    }
    if args.transposed:
        settings["output_padding"] = args.output_padding
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    value = "x"
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        constants.append(numpy_helper.from_array(first_weight(weight, args.transposed, args.groups), f"w{layer}"))
        constants.append(numpy_helper.from_array(bias, f"b{layer}"))
        result = "y" if layer == len(network.weights) - 1 else f"y{layer}"
        convolution = "ConvTranspose" if args.transposed else "Conv"
        nodes.append(helper.make_node(convolution, [value, f"w{layer}", f"b{layer}"], [f"c{layer}"], **settings))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [result]))
        value = result
    batch, *spatial, channels = network.x.shape
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, channels, *spatial])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
