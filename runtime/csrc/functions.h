// The C functions of sonomime_kernels.h, for the one file that includes this and says how it computes.
#pragma once

#include "arguments.h"

namespace sonomime {

// Defined by that file: loops (host.cpp) or launches (launch.cu) over arguments that are sound.
template <class Value, bool kEight>
static int warp_occlude(const WarpSizes& sizes, const void* feature, const float* deformation,
                        const float* occlusion, void* output, CUstream_st* stream);
template <class Value>
static int sparse_motion(const SparseSizes& sizes, const void* source_small,
                         const Keypoints& keypoints, void* output, int slots, CUstream_st* stream);
template <class Value>
static int compose_motion(const ComposeSizes& sizes, const void* logits, const Keypoints& keypoints,
                          float* output, CUstream_st* stream);
static int compose_frame(const FrameSizes& sizes, const FrameLayers& layers, const float* low,
                         const std::uint8_t* picture, float* base, std::uint8_t* frame,
                         CUstream_st* stream);

inline float as_flag(int half_pixel) { return half_pixel != 0 ? 1.0f : 0.0f; }

}  // namespace sonomime

int sonomime_warp_occlude(const void* feature, const float* deformation, const float* occlusion,
                          void* output, int channels, int height, int width, int map_height,
                          int map_width, int occlusion_height, int occlusion_width, int half_pixel,
                          int dtype, int layout, CUstream_st* stream) {
    using namespace sonomime;
    const WarpSizes sizes = {channels,         height,          width,
                             map_height,       map_width,       occlusion_height,
                             occlusion_width,  as_flag(half_pixel)};
    if (!all_given(feature, deformation, occlusion, output)) return kInvalidValue;
    if (!sound(sizes, feature, output, dtype, layout)) return kInvalidValue;
    const auto make = layout == SONOMIME_HWC8      ? warp_occlude<Half, true>
                      : dtype == SONOMIME_FLOAT16 ? warp_occlude<Half, false>
                                                  : warp_occlude<float, false>;
    return make(sizes, feature, deformation, occlusion, output, stream);
}

int sonomime_sparse_motion(const void* source_small, const float* source_value,
                           const float* source_jacobian, const float* driving_value,
                           const float* driving_jacobian, void* output, int channels, int height,
                           int width, int keypoints, float variance, int half_pixel, int dtype,
                           CUstream_st* stream) {
    using namespace sonomime;
    const SparseSizes sizes = {channels, height, width, variance, as_flag(half_pixel)};
    const Keypoints points = {source_value, source_jacobian, driving_value, driving_jacobian};
    if (!all_given(source_small, source_value, source_jacobian, driving_value, driving_jacobian,
                   output))
        return kInvalidValue;
    if (!sound(sizes, keypoints, dtype)) return kInvalidValue;
    const auto make = dtype == SONOMIME_FLOAT16 ? sparse_motion<Half> : sparse_motion<float>;
    return make(sizes, source_small, points, output, keypoints + 1, stream);
}

int sonomime_compose_motion(const void* mask_logits, const float* source_value,
                            const float* source_jacobian, const float* driving_value,
                            const float* driving_jacobian, float* output, int height, int width,
                            int keypoints, int half_pixel, int dtype, CUstream_st* stream) {
    using namespace sonomime;
    if (keypoints < 1 || keypoints == INT_MAX) return kInvalidValue;
    const ComposeSizes sizes = {height, width, keypoints + 1, as_flag(half_pixel)};
    const Keypoints points = {source_value, source_jacobian, driving_value, driving_jacobian};
    if (!all_given(mask_logits, source_value, source_jacobian, driving_value, driving_jacobian,
                   output))
        return kInvalidValue;
    if (!sound(sizes, output, dtype)) return kInvalidValue;
    const auto make = dtype == SONOMIME_FLOAT16 ? compose_motion<Half> : compose_motion<float>;
    return make(sizes, mask_logits, points, output, stream);
}

int sonomime_compose_frame(const float* deformation, const float* stiff, const float* gain,
                           const float* offset, const float* gate, const float* low,
                           const unsigned char* picture, float* base, unsigned char* frame,
                           int channels, int map_height, int map_width, int gain_channels,
                           int offset_channels, int gate_channels, int size, int box_x, int box_y,
                           int box_width, int box_height, int height, int width, int above,
                           int left, int picture_height, int picture_width, CUstream_st* stream) {
    using namespace sonomime;
    const FrameSizes sizes = {channels,        map_height,    map_width, gain_channels,
                              offset_channels, gate_channels, size,      box_x,
                              box_y,           box_width,     box_height, height,
                              width,           above,         left,      picture_height,
                              picture_width};
    const FrameLayers layers = {deformation, stiff, gain, offset, gate};
    if (!all_given(deformation, stiff, gain, offset, gate, low, base)) return kInvalidValue;
    if (!all_given(picture, frame) || !sound(sizes)) return kInvalidValue;
    return compose_frame(sizes, layers, low, picture, base, frame, stream);
}
