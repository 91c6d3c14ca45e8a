"""OpenVINO: its own kernels and oneDNN, weights packed and bias and ReLU fused when the model is compiled."""

from __future__ import annotations

import numpy as np
import openvino
from openvino import opset13 as ops

from benchmarks.layers.frameworks import Arguments, arguments, channels_first, channels_last, first_weight
from benchmarks.layers.network import Array, Dtype, Network, Way

PRECISION = {"f32": "f32", "bf16": "bf16"}

_core = openvino.Core()


def way(last: bool, network: Network, threads: int, bound: bool) -> Way:
    """Input and result channels last or channels first: inside, OpenVINO takes the layout that it likes.

    Bound: one request, its tensors shared. As a user: NumPy arrays in, NumPy arrays out.
    """
    return model_way(_model(network, last), last, network.x, network.dtype, threads, bound)


def model_way(model: openvino.Model, last: bool, x: Array, dtype: Dtype, threads: int, bound: bool) -> Way:
    """A model of one input and one result, channels last or channels first; the way's are channels last."""
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISION[dtype],
    }
    compiled = _core.compile_model(model, "CPU", settings)
    x = x if last else channels_first(x)

    def result(y: Array) -> Array:
        return np.array(y if last else channels_last(y))

    if not bound:
        return Way(lambda: compiled(x)[0], lambda: result(compiled(x)[0]))
    request = compiled.create_infer_request()
    tensor = openvino.Tensor(openvino.Type.f32, openvino.Shape(x.shape))  # the request keeps its memory alive
    tensor.data[...] = x
    request.set_input_tensor(tensor)

    def run() -> object:
        return request.infer(share_inputs=True, share_outputs=True)

    def output() -> Array:
        run()
        return result(request.get_output_tensor().data)

    return Way(run, output)


def read(model: bytes) -> openvino.Model:
    """An ONNX model."""
    return _core.read_model(model)


def _model(network: Network, last: bool) -> openvino.Model:
    args, rank = arguments(network.geometry), network.geometry.rank
    batch, *spatial, channels = network.x.shape
    if last:
        x = ops.parameter([batch, *spatial, channels], np.float32)
        value = ops.transpose(x, np.array([0, rank + 1, *range(1, rank + 1)]))
    else:
        x = value = ops.parameter([batch, channels, *spatial], np.float32)
    for weight, bias in zip(network.weights, network.biases, strict=True):
        value = _convolution(args, value, first_weight(weight, args.transposed, args.groups))
        value = ops.relu(ops.add(value, ops.constant(bias.reshape(1, -1, *[1] * rank))))
    if last:
        value = ops.transpose(value, np.array([0, *range(2, rank + 2), 1]))
    return openvino.Model([value], [x])


def _convolution(args: Arguments, x: openvino.Node, weight: Array) -> openvino.Node:
    if args.groups > 1:
        weight = weight.reshape(args.groups, weight.shape[0] // args.groups, *weight.shape[1:])
    make = {
        (False, False): ops.convolution,
        (False, True): ops.group_convolution,
        (True, False): ops.convolution_backprop_data,
        (True, True): ops.group_convolution_backprop_data,
    }[args.transposed, args.groups > 1]
    more = {"output_padding": args.output_padding} if args.transposed else {}
    return make(
        x,
        ops.constant(weight),
        strides=args.strides,
        pads_begin=args.begin,
        pads_end=args.end,
        dilations=args.dilations,
        **more,
    )
