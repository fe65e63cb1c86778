// Where pixels are, and bilinear reading. Coordinates are float32, xy, [-1, 1] (export/bodies.py).
#pragma once

#include "number.h"

namespace sonomime {

// The point of the centre of pixel `index` of `count`.
SONOMIME_HD float centre(int index, int count, float half_pixel) {
    return (2.0f * static_cast<float>(index) + half_pixel) /
               (static_cast<float>(count) + half_pixel - 1.0f) -
           1.0f;
}

// The pixels of one axis that a reading mixes, and their shares.
template <int kTaps>
struct Line {
    int index[kTaps];
    float share[kTaps];
};

// Where pixel `index` of an axis of `count`, resized, reads. Source:
// torch.nn.functional.interpolate, bilinear, align_corners=False; the border is repeated.
SONOMIME_HD Line<2> resized(int index, int count, int resized_count) {
    const float ratio = static_cast<float>(count) / static_cast<float>(resized_count);
    const float at = ratio * (static_cast<float>(index) + 0.5f) - 0.5f;
    const float held = at < 0.0f ? 0.0f : at;
    int first = static_cast<int>(held);
    first = first < count ? first : count - 1;
    const int second = first + 1 < count ? first + 1 : first;
    const float share = held - static_cast<float>(first);
    return {{first, second}, {1.0f - share, share}};
}

// One number of (height, width, step) at `values`.
template <class Value, int kTaps>
SONOMIME_HD float mixed_at(const Value* values, int width, int step, const Line<kTaps>& row,
                           const Line<kTaps>& column) {
    float sum = 0.0f;
    for (int i = 0; i < kTaps; ++i) {
        float across = 0.0f;
        for (int j = 0; j < kTaps; ++j) {
            const int offset = (row.index[i] * width + column.index[j]) * step;
            across += column.share[j] * static_cast<float>(values[offset]);
        }
        sum += row.share[i] * across;
    }
    return sum;
}

// Four neighbours of a point of a (height, width) plane: offsets into it, -1 outside, and weights.
struct Taps {
    int offset[4];
    float weight[4];
};

// The pixel of an axis of `count` at a point: -1 and 1 are the edges (align_corners 0) or the
// centres of the outermost pixels (1).
SONOMIME_HD float pixel_at(float point, int count, float align_corners) {
    return ((point + 1.0f) * (static_cast<float>(count) - align_corners) + (align_corners - 1.0f)) /
           2.0f;
}

// Bilinear, zero padding. A coordinate that is not finite makes weights that are NaN, and so makes
// the result NaN rather than a number that looks sound.
SONOMIME_HD Taps taps_at(float x, float y, int height, int width, float align_corners) {
    const float column = pixel_at(x, width, align_corners);
    const float row = pixel_at(y, height, align_corners);
    const float left = floorf(column), top = floorf(row);
    const float right_share = column - left, left_share = 1.0f - right_share;
    const float bottom_share = row - top, top_share = 1.0f - bottom_share;
    // Compared as floats: what is far outside, or NaN, fits no integer.
    const float last_column = static_cast<float>(width - 1);
    const float last_row = static_cast<float>(height - 1);
    const bool in_left = left >= 0.0f && left <= last_column;
    const bool in_right = left >= -1.0f && left < last_column;
    const bool in_top = top >= 0.0f && top <= last_row;
    const bool in_bottom = top >= -1.0f && top < last_row;
    const int first_column = in_left || in_right ? static_cast<int>(left) : 0;
    const int first_row = in_top || in_bottom ? static_cast<int>(top) : 0;
    const int corner = first_row * width + first_column;
    return {{in_top && in_left ? corner : -1, in_top && in_right ? corner + 1 : -1,
             in_bottom && in_left ? corner + width : -1,
             in_bottom && in_right ? corner + width + 1 : -1},
            {left_share * top_share, right_share * top_share, left_share * bottom_share,
             right_share * bottom_share}};
}

template <class Value>
SONOMIME_HD float read(const Value* plane, const Taps& taps) {
    float sum = 0.0f;
    for (int i = 0; i < 4; ++i) {
        const float value = taps.offset[i] < 0 ? 0.0f : to_float(plane[taps.offset[i]]);
        sum += taps.weight[i] * value;
    }
    return sum;
}

}  // namespace sonomime
