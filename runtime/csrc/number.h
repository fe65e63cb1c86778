// Numbers that mean the same to nvcc and to a plain C++ compiler.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

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
    const std::uint32_t sign = (value.bits & 0x8000u) << 16;
    const std::uint32_t magnitude = value.bits & 0x7fffu;
    float result;
    if (magnitude < 0x0400u) {  // zero and subnormals: multiples of 2^-24
        result = static_cast<float>(magnitude) * 5.9604644775390625e-8f;
        return sign ? -result : result;
    }
    const std::uint32_t exponent = magnitude >= 0x7c00u ? 0x70000000u : 0x38000000u;
    const std::uint32_t bits = sign | ((magnitude << 13) + exponent);
    std::memcpy(&result, &bits, sizeof result);
    return result;
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
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    std::uint32_t result;
    if (magnitude > 0x7f800000u) {
        result = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {
        result = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // subnormal in 16 bits: float's own addition rounds it
        float small;
        std::memcpy(&small, &magnitude, sizeof small);
        small += 0.5f;
        std::memcpy(&result, &small, sizeof result);
        result -= 0x3f000000u;
    } else {
        const std::uint32_t odd = (magnitude >> 13) & 1u;
        result = (magnitude - 0x38000000u + 0x0fffu + odd) >> 13;
    }
    return Half{static_cast<std::uint16_t>(sign | result)};
#endif
}

}  // namespace sonomime
