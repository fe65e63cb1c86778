// The kernels' arithmetic in plain loops, for tests on machines without a GPU:
//   g++ -std=c++17 -O2 -shared -fPIC -o libsonomime_host.so host.cpp
#include <vector>

#include "arguments.h"

using namespace sonomime;

namespace {

template <class Value>
void warp_all_linear(const WarpSizes& sizes, const void* feature, const float* deformation,
                     const float* occlusion, void* output) {
    const int groups = (sizes.channels + kLinearGroup - 1) / kLinearGroup;
    for (int pixel = 0; pixel < sizes.height * sizes.width; ++pixel) {
        const Place place = place_of(sizes, deformation, occlusion, pixel);
        for (int group = 0; group < groups; ++group)
            warp_linear(sizes, static_cast<const Value*>(feature), static_cast<Value*>(output),
                        place, pixel, group);
    }
}

void warp_all_eight(const WarpSizes& sizes, const void* feature, const float* deformation,
                    const float* occlusion, void* output) {
    const int groups = (sizes.channels + kEightGroup - 1) / kEightGroup;
    for (int pixel = 0; pixel < sizes.height * sizes.width; ++pixel) {
        const Place place = place_of(sizes, deformation, occlusion, pixel);
        for (int group = 0; group < groups; ++group)
            warp_eight(sizes, static_cast<const Eight*>(feature), static_cast<Eight*>(output),
                       place, pixel, group);
    }
}

template <class Value>
void sparse_all(const SparseSizes& sizes, const void* source_small, const Keypoints& keypoints,
                void* output, int slots) {
    for (int slot = 0; slot < slots; ++slot) {
        const SlotMotion motion = slot_motion(keypoints, slot);
        for (int pixel = 0; pixel < sizes.height * sizes.width; ++pixel)
            sparse_slot(sizes, static_cast<const Value*>(source_small), motion,
                        static_cast<Value*>(output), pixel, slot);
    }
}

template <class Value>
void compose_all(const ComposeSizes& sizes, const void* logits, const Keypoints& keypoints,
                 float* output) {
    std::vector<SlotMotion> motions;
    for (int slot = 0; slot < sizes.slots; ++slot) motions.push_back(slot_motion(keypoints, slot));
    const Value* values = static_cast<const Value*>(logits);
    for (int pixel = 0; pixel < sizes.height * sizes.width; ++pixel) {
        const Point point = sizes.slots <= 16   ? composed<16>(sizes, values, motions.data(), pixel)
                            : sizes.slots <= 32 ? composed<32>(sizes, values, motions.data(), pixel)
                                                : composed<0>(sizes, values, motions.data(), pixel);
        output[2 * pixel] = point.x;
        output[2 * pixel + 1] = point.y;
    }
}

}  // namespace

int sonomime_warp_occlude(const void* feature, const float* deformation, const float* occlusion,
                          void* output, int channels, int height, int width, int map_height,
                          int map_width, int occlusion_height, int occlusion_width, int half_pixel,
                          int dtype, int layout, struct CUstream_st*) {
    const WarpSizes sizes = {channels,         height,          width,
                             map_height,       map_width,       occlusion_height,
                             occlusion_width,  as_flag(half_pixel)};
    if (!all_given(feature, deformation, occlusion, output)) return kInvalidValue;
    if (!sound(sizes, feature, output, dtype, layout)) return kInvalidValue;
    const auto warp = layout == SONOMIME_HWC8      ? warp_all_eight
                      : dtype == SONOMIME_FLOAT16 ? warp_all_linear<Half>
                                                  : warp_all_linear<float>;
    warp(sizes, feature, deformation, occlusion, output);
    return 0;
}

int sonomime_sparse_motion(const void* source_small, const float* source_value,
                           const float* source_jacobian, const float* driving_value,
                           const float* driving_jacobian, void* output, int channels, int height,
                           int width, int keypoints, float variance, int half_pixel, int dtype,
                           struct CUstream_st*) {
    const SparseSizes sizes = {channels, height, width, variance, as_flag(half_pixel)};
    const Keypoints points = {source_value, source_jacobian, driving_value, driving_jacobian};
    if (!all_given(source_small, source_value, source_jacobian, driving_value, driving_jacobian,
                   output))
        return kInvalidValue;
    if (!sound(sizes, keypoints, dtype)) return kInvalidValue;
    const auto make = dtype == SONOMIME_FLOAT16 ? sparse_all<Half> : sparse_all<float>;
    make(sizes, source_small, points, output, keypoints + 1);
    return 0;
}

int sonomime_compose_motion(const void* mask_logits, const float* source_value,
                            const float* source_jacobian, const float* driving_value,
                            const float* driving_jacobian, float* output, int height, int width,
                            int keypoints, int half_pixel, int dtype, struct CUstream_st*) {
    if (keypoints < 1 || keypoints == INT_MAX) return kInvalidValue;
    const ComposeSizes sizes = {height, width, keypoints + 1, as_flag(half_pixel)};
    const Keypoints points = {source_value, source_jacobian, driving_value, driving_jacobian};
    if (!all_given(mask_logits, source_value, source_jacobian, driving_value, driving_jacobian,
                   output))
        return kInvalidValue;
    if (!sound(sizes, output, dtype)) return kInvalidValue;
    const auto compose = dtype == SONOMIME_FLOAT16 ? compose_all<Half> : compose_all<float>;
    compose(sizes, mask_logits, points, output);
    return 0;
}
