// Adds to each row of a projection what its adapter makes of the projection's input: see slm_convert::graph::rows.
//
// An adapter has the units begin..end of the bank, so `linears * (end - begin)` columns from `linears * begin` on: those of the
// projection's first linear layer, then those of the next. Rows without an adapter cost the start of a block.

#define WARPS 8

// A 16-bit float by its bits; NVRTC has no header for its type.
typedef unsigned short half_bits;

__device__ __forceinline__ float wide(half_bits bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ __forceinline__ half_bits narrow(float value) {
    half_bits bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ __forceinline__ float product(unsigned left, unsigned right) {
    return wide(left & 0xffff) * wide(right & 0xffff) + wide(left >> 16) * wide(right >> 16);
}

// hidden [tokens, hidden_width] = x [tokens, inputs] times the adapter's rows of a [columns, inputs]. Block (token, group of WARPS
// columns), one warp for each column.
extern "C" __global__ void bank_shrink(const half_bits* x, const half_bits* a, const int* units, float* hidden, unsigned tokens_per_row,
                                       unsigned inputs, unsigned linears, unsigned hidden_width) {
    const unsigned token = blockIdx.x, row = token / tokens_per_row;
    const int begin = units[2 * row], end = units[2 * row + 1];
    const unsigned column = blockIdx.y * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (column >= (end - begin) * linears) return;
    const half_bits* from = x + (size_t)token * inputs;
    const half_bits* with = a + ((size_t)begin * linears + column) * inputs;
    float sum = 0.0f;
    if (inputs % 8 == 0) {
        for (unsigned i = lane * 8; i < inputs; i += 32 * 8) {
            const uint4 left = *reinterpret_cast<const uint4*>(from + i), right = *reinterpret_cast<const uint4*>(with + i);
            sum += product(left.x, right.x) + product(left.y, right.y) + product(left.z, right.z) + product(left.w, right.w);
        }
    } else {
        for (unsigned i = lane; i < inputs; i += 32) sum += wide(from[i]) * wide(with[i]);
    }
    for (int other = 16; other > 0; other /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
    if (lane == 0) hidden[(size_t)token * hidden_width + column] = sum;
}

// y [tokens, outputs] += hidden times the adapter's rows of b [columns, outputs]. The outputs of the first linear layer end at
// `first`, those of the second at `second`. Block (token, group of columns), one thread for each column.
extern "C" __global__ void bank_expand(half_bits* y, const float* hidden, const half_bits* b, const int* units, unsigned tokens_per_row,
                                       unsigned outputs, unsigned linears, unsigned hidden_width, unsigned first, unsigned second) {
    const unsigned token = blockIdx.x, row = token / tokens_per_row;
    const int begin = units[2 * row], end = units[2 * row + 1];
    if (begin >= end) return;
    const unsigned output = blockIdx.y * blockDim.x + threadIdx.x;
    if (output >= outputs) return;
    const unsigned rank = end - begin, linear = (output >= first) + (output >= second);
    const float* from = hidden + (size_t)token * hidden_width + linear * rank;
    const half_bits* with = b + ((size_t)begin * linears + linear * rank) * outputs + output;
    float sum = 0.0f;
    for (unsigned i = 0; i < rank; i++) sum += from[i] * wide(with[(size_t)i * outputs]);
    half_bits* to = y + (size_t)token * outputs + output;
    *to = narrow(wide(*to) + sum);
}
