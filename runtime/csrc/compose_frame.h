// ComposeFrame: a frame at any size, of the layers and the source picture (runtime/compose.py).
#pragma once

#include "geometry.h"

namespace sonomime {

constexpr int kFiner = 3;  // how many times what a frame reads is enlarged

struct FrameSizes {
    int channels, map_height, map_width;
    int gain_channels, offset_channels, gate_channels;
    int size, box_x, box_y, box_width, box_height;
    int height, width, above, left, picture_height, picture_width;
};

struct FrameLayers {
    const float *deformation, *stiff, *gain, *offset, *gate;
};

// An axis of `count` resized to `size`, of which `length` from `start` on are resized once more.
SONOMIME_HD Line<4> resized_twice(int index, int count, int size, int start, int length,
                                  int resized_count) {
    const Line<2> at = resized(index, length, resized_count);
    Line<4> line;
    for (int i = 0; i < 2; ++i) {
        const Line<2> once = resized(start + at.index[i], count, size);
        for (int j = 0; j < 2; ++j) {
            line.index[2 * i + j] = once.index[j];
            line.share[2 * i + j] = at.share[i] * once.share[j];
        }
    }
    return line;
}

// Beyond the ends of an axis it is mirrored, or its last pixel is repeated.
SONOMIME_HD int held_within(int at, int count, bool mirrored) {
    if (!mirrored) return at < 0 ? 0 : at < count ? at : count - 1;
    const int past = at % (2 * count);
    const int within = past < 0 ? past + 2 * count : past;
    return within < count ? within : 2 * count - 1 - within;
}

// Between the pixels of `count` where the place is. One that is not finite makes shares that are NaN.
SONOMIME_HD Line<2> line_at(float place, int count, bool mirrored) {
    const float before = floorf(place), share = place - before;
    // What is far outside, or NaN, fits no integer.
    const int first = static_cast<int>(fminf(fmaxf(before, -1e9f), 1e9f));
    return {{held_within(first, count, mirrored), held_within(first + 1, count, mirrored)},
            {1.0f - share, share}};
}

// How far from its own place, in points, a map says to read: xy.
template <int kTaps>
SONOMIME_HD void displacement_at(const FrameSizes& sizes, const float* map, const Line<kTaps>& row,
                                 const Line<kTaps>& column, float displacement[2]) {
    displacement[0] = mixed_at(map, sizes.map_width, 2, row, column);
    displacement[1] = mixed_at(map + 1, sizes.map_width, 2, row, column);
    for (int i = 0; i < kTaps; ++i) {
        displacement[0] -= column.share[i] * centre(column.index[i], sizes.map_width, 1.0f);
        displacement[1] -= row.share[i] * centre(row.index[i], sizes.map_height, 1.0f);
    }
}

// One number of a layer (1 or the frame's channels, map_height, map_width).
template <int kTaps>
SONOMIME_HD float layer_at(const FrameSizes& sizes, const float* layer, int channels, int channel,
                           const Line<kTaps>& row, const Line<kTaps>& column) {
    const int plane = channels > 1 ? channel * sizes.map_height * sizes.map_width : 0;
    return mixed_at(layer + plane, sizes.map_width, 1, row, column);
}

// The low-pass moved, or what the texture lacks of it: a pixel of half the model's size, all channels.
SONOMIME_HD void base_pixel(const FrameSizes& sizes, const FrameLayers& layers, const float* low,
                            float* base, int pixel) {
    const int half = sizes.size / 2, finer = kFiner * half;
    const int x = pixel % half, y = pixel / half;
    const Line<2> row = resized(y, sizes.map_height, half);
    const Line<2> column = resized(x, sizes.map_width, half);
    const float own_x = static_cast<float>(kFiner * x + kFiner / 2);
    const float own_y = static_cast<float>(kFiner * y + kFiner / 2);
    // Points span 2 over the model's square.
    const float pixels = 0.5f * static_cast<float>(finer);
    float moved[2], stiffly[2];
    displacement_at(sizes, layers.deformation, row, column, moved);
    displacement_at(sizes, layers.stiff, row, column, stiffly);
    const Line<2> moved_row = line_at(own_y + pixels * moved[1], finer, false);
    const Line<2> moved_column = line_at(own_x + pixels * moved[0], finer, false);
    const Line<2> stiff_row = line_at(own_y + pixels * stiffly[1], finer, true);
    const Line<2> stiff_column = line_at(own_x + pixels * stiffly[0], finer, true);
    for (int channel = 0; channel < sizes.channels; ++channel) {
        const float gain =
            layer_at(sizes, layers.gain, sizes.gain_channels, channel, row, column);
        const float offset =
            layer_at(sizes, layers.offset, sizes.offset_channels, channel, row, column);
        const float gate =
            layer_at(sizes, layers.gate, sizes.gate_channels, channel, row, column);
        const float *values = low + channel;
        base[pixel * sizes.channels + channel] =
            gain * mixed_at(values, finer, sizes.channels, moved_row, moved_column) +
            255.0f * offset -
            gate * mixed_at(values, finer, sizes.channels, stiff_row, stiff_column);
    }
}

// To the nearest level, ties to even; what is NaN becomes black.
SONOMIME_HD std::uint8_t to_level(float value) {
    const float held = value > 0.0f ? (value < 255.0f ? value : 255.0f) : 0.0f;
    return static_cast<std::uint8_t>(rintf(held));
}

// A pixel of the frame, all channels: the texture, which moves stiffly, over the base.
SONOMIME_HD void frame_pixel(const FrameSizes& sizes, const FrameLayers& layers,
                             const std::uint8_t* picture, const float* base, std::uint8_t* frame,
                             int pixel) {
    const int x = pixel % sizes.width, y = pixel / sizes.width, half = sizes.size / 2;
    const Line<4> row = resized_twice(y, sizes.map_height, sizes.size, sizes.box_y,
                                      sizes.box_height, sizes.height);
    const Line<4> column = resized_twice(x, sizes.map_width, sizes.size, sizes.box_x,
                                         sizes.box_width, sizes.width);
    const Line<4> base_row =
        resized_twice(y, half, sizes.size, sizes.box_y, sizes.box_height, sizes.height);
    const Line<4> base_column =
        resized_twice(x, half, sizes.size, sizes.box_x, sizes.box_width, sizes.width);
    // So many of the enlarged picture's pixels for a point.
    const float finer = 0.5f * static_cast<float>(kFiner * sizes.size);
    const float pixels_x =
        finer * static_cast<float>(sizes.width) / static_cast<float>(sizes.box_width);
    const float pixels_y =
        finer * static_cast<float>(sizes.height) / static_cast<float>(sizes.box_height);
    float stiffly[2];
    displacement_at(sizes, layers.stiff, row, column, stiffly);
    const float own_x = static_cast<float>(kFiner * (x + sizes.left) + kFiner / 2);
    const float own_y = static_cast<float>(kFiner * (y + sizes.above) + kFiner / 2);
    const Line<2> from_row = line_at(own_y + pixels_y * stiffly[1], sizes.picture_height, true);
    const Line<2> from_column = line_at(own_x + pixels_x * stiffly[0], sizes.picture_width, true);
    for (int channel = 0; channel < sizes.channels; ++channel) {
        const float texture = mixed_at(picture + channel, sizes.picture_width, sizes.channels,
                                       from_row, from_column);
        const float gate =
            layer_at(sizes, layers.gate, sizes.gate_channels, channel, row, column);
        const float slow =
            mixed_at(base + channel, half, sizes.channels, base_row, base_column);
        frame[pixel * sizes.channels + channel] = to_level(gate * texture + slow);
    }
}

}  // namespace sonomime
