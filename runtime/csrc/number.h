// Numbers that mean the same to nvcc and to a plain C++ compiler.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define SONOMIME_HD __host__ __device__ __forceinline__
#else
#define SONOMIME_HD inline
#endif

namespace sonomime {

// IEEE binary16 in memory; all arithmetic is float32.
struct Half {
    std::uint16_t bits;
};

// Eight channels of one pixel: one load, one store.
struct alignas(16) Eight {
    Half lane[8];
};

SONOMIME_HD float to_float(float value) { return value; }

SONOMIME_HD float to_float(Half value) {
#ifdef __CUDA_ARCH__
    return __half2float(__ushort_as_half(value.bits));
#else
    const int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
    float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                               : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
    if (exponent == 31) size = fraction == 0 ? INFINITY : NAN;
    return (value.bits & 0x8000) != 0 ? -size : size;
#endif
}

template <class Value>
SONOMIME_HD Value from_float(float value);

template <>
SONOMIME_HD float from_float<float>(float value) {
    return value;
}

// To the nearest, ties to even; beyond 65504 to infinity.
template <>
SONOMIME_HD Half from_float<Half>(float value) {
#ifdef __CUDA_ARCH__
    return Half{__half_as_ushort(__float2half_rn(value))};
#else
    const float size = std::fabs(value);
    int bits = size >= 65520.0f ? 0x7c00 : 0x7e00;  // infinity, or NaN
    if (size < 65520.0f) {
        int exponent = -13;
        if (size >= 6.103515625e-5f) std::frexp(size, &exponent);  // else subnormal in 16 bits
        const float steps = std::nearbyint(std::ldexp(size, 11 - exponent));
        bits = static_cast<int>(steps) + 1024 * (exponent + 13);
    }
    return Half{static_cast<std::uint16_t>(std::signbit(value) ? bits | 0x8000 : bits)};
#endif
}

}  // namespace sonomime
