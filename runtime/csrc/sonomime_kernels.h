/* The kernels of sonomime's three operators, and of frames at any size, behind plain C functions.
 *
 * An operator's ONNX function body (export/bodies.py) says what it computes, and runtime/compose.py
 * what sonomime_compose_frame computes; a kernel may only be faster. Pointers are to device memory.
 *
 * All arrays are dense, batch 1. `value` arrays are keypoints (keypoints, 2), xy in [-1, 1];
 * `jacobian` arrays are (keypoints, 2, 2), row-major; both float32, as all coordinates and maps
 * are. `half_pixel` is 1 (the centre of pixel i of n is (2 i + 1) / n - 1) or 0 (2 i / (n - 1) - 1,
 * FOMM's). `align_corners` is 0 (for sampling -1 and 1 are the edges of what is read) or 1 (they are
 * the centres of its outermost pixels). 1 to 1023 keypoints, at most 2^31 - 1025 elements (channels
 * rounded up to a multiple of 8), sides of what is warped of at most 2^24. An output must not
 * overlap an input.
 *
 * Every function enqueues its work on `stream`, allocates nothing, waits for nothing and may be
 * captured in a CUDA graph, after a first call outside of one: CUDA loads a kernel at its first
 * launch. It returns a cudaError_t: 0 is success, 1 (cudaErrorInvalidValue) is an argument that
 * makes no sense, and nothing was enqueued.
 */
#ifndef SONOMIME_KERNELS_H
#define SONOMIME_KERNELS_H

#define SONOMIME_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* cudaStream_t, without CUDA's headers. */
struct CUstream_st;

/* Values of `dtype`. */
enum { SONOMIME_FLOAT32 = 0, SONOMIME_FLOAT16 = 1 };

/* Values of `layout`: (C, H, W), or (H, W, C rounded up to a multiple of 8), float16 only, 16-byte
 * aligned. The padding channels of an output are written as zeros, those of an input are ignored. */
enum { SONOMIME_LINEAR = 0, SONOMIME_HWC8 = 1 };

/* feature (channels, height, width) of `dtype` and `layout`, read where deformation
 * (map_height, map_width, 2) says, times occlusion (occlusion_height, occlusion_width); both maps
 * are resized to the feature's size. output: as feature. */
SONOMIME_API int sonomime_warp_occlude(
    const void *feature, const float *deformation, const float *occlusion, void *output,
    int channels, int height, int width, int map_height, int map_width, int occlusion_height,
    int occlusion_width, int half_pixel, int align_corners, int dtype, int layout,
    struct CUstream_st *stream);

/* source_small (channels, height, width) -> output ((keypoints + 1) (channels + 1), height, width):
 * for each slot, slot 0 the identity, the heatmap of driving minus source, then source_small warped
 * by the slot's motion. `variance` is above 0 and finite. */
SONOMIME_API int sonomime_sparse_motion(
    const float *source_small, const float *source_value, const float *source_jacobian,
    const float *driving_value, const float *driving_jacobian, float *output, int channels,
    int height, int width, int keypoints, float variance, int half_pixel, int align_corners,
    struct CUstream_st *stream);

/* mask_logits (keypoints + 1, height, width) -> output (height, width, 2), 8-byte aligned: the
 * motions of the slots, weighted by the softmax of the logits over the slots. */
SONOMIME_API int sonomime_compose_motion(
    const float *mask_logits, const float *source_value, const float *source_jacobian,
    const float *driving_value, const float *driving_jacobian, float *output, int height, int width,
    int keypoints, int half_pixel, struct CUstream_st *stream);

/* A frame (height, width, channels) of levels, composed over a source picture of 1 or 3 channels.
 * Layers: deformation and stiff (map_height, map_width, 2); gain, offset and gate (channels,
 * map_height, map_width), each of 1 channel or of the frame's. They cover the model's square of
 * `size`; the frame is the box in it. Of the source, 3 times enlarged: low (3 (size / 2),
 * 3 (size / 2), channels), the square's low-pass in levels; picture (picture_height, picture_width,
 * channels) at the frame's size, with `above` rows and `left` columns, not enlarged, before the
 * frame's own. base (size / 2, size / 2, channels) is scratch memory for the slow rest. Coordinates
 * have half-pixel geometry. What is not a number becomes black. */
SONOMIME_API int sonomime_compose_frame(
    const float *deformation, const float *stiff, const float *gain, const float *offset,
    const float *gate, const float *low, const unsigned char *picture, float *base,
    unsigned char *frame, int channels, int map_height, int map_width, int gain_channels,
    int offset_channels, int gate_channels, int size, int box_x, int box_y, int box_width,
    int box_height, int height, int width, int above, int left, int picture_height,
    int picture_width, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif

#endif
