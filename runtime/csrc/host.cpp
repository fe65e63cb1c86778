// The kernels' arithmetic in plain loops, for tests on machines without a GPU:
//   g++ -std=c++17 -O2 -shared -fPIC -o libsonomime_host.so host.cpp
#include <vector>

#include "functions.h"

namespace sonomime {

template <class Value, bool kEight>
static int warp_occlude(const WarpSizes& sizes, const void* feature, const float* deformation,
                        const float* occlusion, void* output, CUstream_st*) {
    constexpr int size_of_group = kEight ? kEightGroup : kLinearGroup;
    for (int pixel = 0; pixel < sizes.height * sizes.width; ++pixel) {
        const Place place = place_of(sizes, deformation, occlusion, pixel);
        for (int group = 0; group * size_of_group < sizes.channels; ++group)
            warp_group<Value, kEight>(sizes, feature, output, place, pixel, group);
    }
    return 0;
}

static int sparse_motion(const SparseSizes& sizes, const float* source_small,
                         const Keypoints& keypoints, float* output, CUstream_st*) {
    for (int slot = 0; slot < sizes.slots; ++slot)
        for (int pixel = 0; pixel < sizes.height * sizes.width; ++pixel)
            sparse_slot(sizes, source_small, slot_motion(keypoints, slot), output, pixel, slot);
    return 0;
}

static int compose_motion(const ComposeSizes& sizes, const float* logits, const Keypoints& keypoints,
                          float* output, CUstream_st*) {
    std::vector<SlotMotion> motions;
    for (int slot = 0; slot < sizes.slots; ++slot) motions.push_back(slot_motion(keypoints, slot));
    const auto compose = sizes.slots <= 16 ? composed<16> : sizes.slots <= 32 ? composed<32> : composed<0>;
    for (int pixel = 0; pixel < sizes.height * sizes.width; ++pixel) {
        const Point point = compose(sizes, logits, motions.data(), pixel);
        output[2 * pixel] = point.x;
        output[2 * pixel + 1] = point.y;
    }
    return 0;
}

static int compose_frame(const FrameSizes& sizes, const FrameLayers& layers, const float* low,
                         const std::uint8_t* picture, float* base, std::uint8_t* frame,
                         CUstream_st*) {
    const int half = sizes.size / 2;
    for (int pixel = 0; pixel < half * half; ++pixel) base_pixel(sizes, layers, low, base, pixel);
    for (int pixel = 0; pixel < sizes.height * sizes.width; ++pixel)
        frame_pixel(sizes, layers, picture, base, frame, pixel);
    return 0;
}

}  // namespace sonomime
