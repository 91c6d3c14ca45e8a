// A stand-in for Apple's convolution2d: each thread computes its elements of the destination from the definition.
//
// It encodes the documentation (Metal Shading Language, 7.2.2, and the comments of Apple's header of this name) and what
// users of the M5 report. Nothing was measured by us, so that a kernel is right here says that it means the right
// convolution, not that a device computes it. Reports of wrong results are encoded as NaN: see `is_known_to_fail`.
//
// Where elements of a destination lie is not documented and differs between chips: here too it is no order to rely on.
#pragma once
#include <metal_tensor>
#include <metal_types>
#include "runtime.h"

namespace mpp {
namespace tensor_ops {
enum class convolution2d_activation_layout { nhwc };
enum class convolution2d_weights_layout { hwio };

struct convolution2d_descriptor {
  enum class mode { multiply, multiply_accumulate };

  int destination[4], source[4], kernel_size[2];  // innermost first: channels, width, height, batch
  int strides[2], dilations[2], groups;
  bool relaxed_precision;
  mode what;

  constexpr convolution2d_descriptor(int4 destination_dimensions, int4 source_dimensions, int2 kernel_dimensions,
                                     convolution2d_activation_layout = convolution2d_activation_layout::nhwc,
                                     convolution2d_weights_layout = convolution2d_weights_layout::hwio,
                                     int2 all_strides = int2(1, 1), int2 all_dilations = int2(1, 1),
                                     int all_groups = 1, bool relaxed = false, mode what_to_do = mode::multiply)
      : destination{}, source{}, kernel_size{kernel_dimensions[0], kernel_dimensions[1]},
        strides{all_strides[0], all_strides[1]}, dilations{all_dilations[0], all_dilations[1]}, groups(all_groups),
        relaxed_precision(relaxed), what(what_to_do) {
    for (int i = 0; i < 4; i++) {
      destination[i] = destination_dimensions[i];
      source[i] = source_dimensions[i];
    }
  }
};

// A threadgroup's tensor in the registers of its threads. Capacity is the same for all, so that some elements are none.
template <class T, convolution2d_descriptor Of, int Threads> struct destination_tensor {
  static constexpr int size = Of.destination[0] * Of.destination[1] * Of.destination[2] * Of.destination[3];
  static constexpr ushort capacity = (size + Threads - 1) / Threads + 1;
  T elements[capacity];

  ushort get_capacity() const { return capacity; }
  bool is_valid_element(ushort i) const { return number(i) < size; }
  T& operator[](ushort i) { return elements[i]; }
  const T& operator[](ushort i) const { return elements[i]; }
  metal::array<int, 4> get_multidimensional_index(ushort i) const {
    metal::array<int, 4> at = {};
    int rest = number(i);
    for (int axis = 0; axis < 4; axis++) {
      at[axis] = rest % Of.destination[axis];
      rest /= Of.destination[axis];
    }
    return at;
  }

 private:
  int number(ushort i) const { return simulator_thread_index() + i * Threads; }
};

template <convolution2d_descriptor Of, class Scope> class convolution2d {
  static_assert(Of.groups == 1, "only group size 1 supported currently");
  metal::array<int, 2> offsets = {};

 public:
  // Where the middle of the kernel lies for the first element of the destination: of an even number of positions that
  // the kernel spans, the one behind the middle.
  void set_offsets(int2 to) { offsets = {{to[0], to[1]}}; }

  template <class Activation, class Weights, class T>
  destination_tensor<T, Of, Scope::threads> get_destination_cooperative_tensor() const {
    destination_tensor<T, Of, Scope::threads> result;
    for (T& element : result.elements) element = (T)NAN;
    return result;
  }

  template <class Activation, class Weights, class Destination>
  void run(Activation& activation, Weights& weights, Destination& destination) const {
    for (ushort i = 0; i < destination.get_capacity(); i++) {
      if (!destination.is_valid_element(i)) continue;
      float sum = is_known_to_fail(activation) ? NAN : convolve(activation, weights, destination, i);
      if (Of.what == convolution2d_descriptor::mode::multiply_accumulate) sum += (float)destination[i];
      destination[i] = sum;
    }
  }

 private:
  // Relaxed rows of few pixels give wrong numbers; so do activations that are larger than the descriptor says.
  template <class Activation> static bool is_known_to_fail(const Activation& activation) {
    bool is_short = Of.relaxed_precision && Of.destination[2] == 1 && Of.destination[1] * 32 < 16 * Scope::threads;
    bool is_wide = false;
    for (int axis = 0; axis < 3; axis++) is_wide |= activation.extents[axis] > Of.source[axis];
    return is_short || is_wide;
  }

  // Outside of its extents the activation is zero; output channels outside of the weights' are not computed.
  template <class Activation, class Weights, class Destination>
  float convolve(const Activation& activation, const Weights& weights, const Destination& destination, ushort i) const {
    const metal::array<int, 4> at = destination.get_multidimensional_index(i);
    float sum = 0.0f;
    if (at[0] >= weights.extents[0]) return sum;
    for (int y = 0; y < Of.kernel_size[1]; y++) {
      const int row = source_position(1, at[2], y);
      if (row < 0 || row >= activation.extents[2]) continue;
      for (int x = 0; x < Of.kernel_size[0]; x++) {
        const int column = source_position(0, at[1], x);
        if (column < 0 || column >= activation.extents[1]) continue;
        const auto* values = activation.data + (size_t)row * activation.strides[2] + (size_t)column * activation.strides[1];
        const auto* factors = weights.data + (size_t)y * weights.strides[3] + (size_t)x * weights.strides[2] + at[0];
        for (int c = 0; c < activation.extents[0]; c++)
          sum += (float)values[c] * (float)factors[(size_t)c * weights.strides[1]];
      }
    }
    return sum;
  }

  int source_position(int axis, int output, int tap) const {
    const int middle = ((Of.kernel_size[axis] - 1) * Of.dilations[axis] + 1) / 2;
    return offsets[axis] + output * Of.strides[axis] + tap * Of.dilations[axis] - middle;
  }
};
}  // namespace tensor_ops
}  // namespace mpp
