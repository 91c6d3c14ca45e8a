/* The most multiply-adds that a core can do: SUMS independent chains of vectors of LANES floats. */

typedef float vector __attribute__((vector_size(LANES * sizeof(float))));

/* 2 * LANES * SUMS * times floating-point operations. What is returned keeps the compiler from leaving them out. */
__attribute__((noinline)) float cj_peak(long times, float factor, float term)
{
    vector sums[SUMS], factors = factor - (vector){}, terms = term - (vector){};
#pragma GCC unroll 64
    for (int s = 0; s < SUMS; s++) sums[s] = (float)s - (vector){};
    for (long t = 0; t < times; t++) {
#pragma GCC unroll 64
        for (int s = 0; s < SUMS; s++) sums[s] = sums[s] * factors + terms;
    }
#pragma GCC unroll 64
    for (int s = 1; s < SUMS; s++) sums[0] += sums[s];
    return sums[0][0];
}
