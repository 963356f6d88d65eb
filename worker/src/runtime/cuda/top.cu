// The largest logits of each row, and sums over it: see top.rs. One block of THREADS threads for each row.
//
// Radix selection: the bits of a float, made to sort as integers, in three parts of 11, 11 and 10 bits. Each part narrows down
// the key of the K-th largest; then larger ones are collected, and of those equal to it the first.

#define THREADS 1024
#define BINS 2048
#define K_MAX 64
#define INFINITE __int_as_float(0x7f800000)

__device__ __forceinline__ unsigned key_of(float x) {
    unsigned bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float value_of(unsigned key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The sum, or the largest, of what all threads have.
template <typename Join>
__device__ float joined(float x, float* scratch, Join join) {
    for (int lane = 16; lane > 0; lane /= 2) x = join(x, __shfl_xor_sync(0xffffffffu, x, lane));
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    float all = scratch[0];
    for (int warp = 1; warp < THREADS / 32; warp++) all = join(all, scratch[warp]);
    __syncthreads();
    return all;
}

__device__ void clear(unsigned* bins) {
    for (unsigned bin = threadIdx.x; bin < BINS; bin += THREADS) bins[bin] = 0;
    __syncthreads();
}

// Fills in the bits of the key of the K-th largest from `shift` on: those of the bin in which it is. `wanted` becomes its place
// there.
__device__ void narrow(const unsigned* bins, int shift, unsigned mask, unsigned& prefix, unsigned& wanted) {
    if (threadIdx.x < 32) {
        // Each lane has some bins side by side, the first lane the largest.
        const unsigned each = (mask + 1) / 32, top = mask - threadIdx.x * each;
        const unsigned want = wanted;
        unsigned own = 0;
        for (unsigned i = 0; i < each; i++) own += bins[top - i];
        unsigned reached = own;
        for (int other = 1; other < 32; other *= 2) {
            const unsigned before = __shfl_up_sync(0xffffffffu, reached, other);
            if (threadIdx.x >= other) reached += before;
        }
        if (reached >= want && reached - own < want) {
            unsigned bin = top, left = want - (reached - own);
            while (bins[bin] < left) left -= bins[bin--];
            prefix |= bin << shift;
            wanted = left;
        }
    }
    __syncthreads();
}

// logits: [rows, vocab]; temperatures: [rows]; ids, values: [rows, k]; sums: [rows, 2], of which the first is NaN for a row that is
// not finite.
extern "C" __global__ void top(const float* logits, const float* temperatures, unsigned vocab, unsigned k, unsigned* ids,
                               float* values, float* sums) {
    __shared__ unsigned bins[BINS];
    __shared__ float scratch[THREADS / 32];
    __shared__ unsigned prefix, wanted, found;
    __shared__ unsigned kept_keys[K_MAX], kept_ids[K_MAX];
    __shared__ unsigned counts[THREADS / 32];
    const unsigned row = blockIdx.x, thread = threadIdx.x;
    const float* x = logits + (size_t)row * vocab;

    if (thread == 0) prefix = 0, wanted = k, found = 0;
    clear(bins);
    float largest = -INFINITE, wrong = 0.0f;
#pragma unroll 4
    for (unsigned i = thread; i < vocab; i += THREADS) {
        const float value = x[i];
        largest = fmaxf(largest, value);
        wrong += isnan(value) ? 1.0f : 0.0f;
        atomicAdd(&bins[key_of(value) >> 21], 1u);
    }
    largest = joined(largest, scratch, [](float a, float b) { return fmaxf(a, b); });
    wrong = joined(wrong, scratch, [](float a, float b) { return a + b; });
    narrow(bins, 21, 0x7ff, prefix, wanted);

    clear(bins);
    const float inverse = 1.0f / temperatures[row];
    float sum = 0.0f, total = 0.0f;
#pragma unroll 4
    for (unsigned i = thread; i < vocab; i += THREADS) {
        const float value = x[i];
        const unsigned key = key_of(value);
        sum += expf(value - largest);
        total += expf((value - largest) * inverse);
        if (key >> 21 == prefix >> 21) atomicAdd(&bins[key >> 10 & 0x7ff], 1u);
    }
    sum = joined(sum, scratch, [](float a, float b) { return a + b; });
    total = joined(total, scratch, [](float a, float b) { return a + b; });
    if (thread == 0) {
        sums[2 * row] = wrong > 0.0f || !isfinite(largest) ? __int_as_float(0x7fffffff) : largest + logf(sum);
        sums[2 * row + 1] = total;
    }
    narrow(bins, 10, 0x7ff, prefix, wanted);

    clear(bins);
#pragma unroll 4
    for (unsigned i = thread; i < vocab; i += THREADS) {
        const unsigned key = key_of(x[i]);
        if (key >> 10 == prefix >> 10) atomicAdd(&bins[key & 0x3ff], 1u);
    }
    __syncthreads();
    narrow(bins, 0, 0x3ff, prefix, wanted);

    // Larger ones in any order; equal ones in the order of tokens, as many as are still wanted.
    const unsigned threshold = prefix, equal = wanted;
    for (unsigned i = thread; i < vocab; i += THREADS) {
        unsigned key = key_of(x[i]);
        if (key > threshold) {
            unsigned place = atomicAdd(&found, 1u);
            if (place < K_MAX) kept_keys[place] = key, kept_ids[place] = i;
        }
    }
    __syncthreads();
    const unsigned above = k - equal;
    for (unsigned begin = 0, taken = 0; begin < vocab && taken < equal; begin += THREADS) {
        unsigned i = begin + thread;
        bool same = i < vocab && key_of(x[i]) == threshold;
        unsigned ballot = __ballot_sync(0xffffffffu, same);
        if (thread % 32 == 0) counts[thread / 32] = __popc(ballot);
        __syncthreads();
        unsigned before = taken;
        for (unsigned warp = 0; warp < THREADS / 32; warp++) {
            before += warp < thread / 32 ? counts[warp] : 0;
            taken += counts[warp];
        }
        before += __popc(ballot & ((1u << (thread % 32)) - 1u));
        if (same && before < equal) kept_keys[above + before] = threshold, kept_ids[above + before] = i;
        __syncthreads();
    }

    // Their order: each counts those that come before it.
    if (thread < k) {
        unsigned key = kept_keys[thread], id = kept_ids[thread], rank = 0;
        for (unsigned other = 0; other < k; other++)
            rank += kept_keys[other] > key || (kept_keys[other] == key && kept_ids[other] < id);
        ids[(size_t)row * k + rank] = id;
        values[(size_t)row * k + rank] = value_of(key);
    }
}
