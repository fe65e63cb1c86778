#include "operators.h"

namespace sonomime::plugin {

using namespace nvinfer1;

namespace {

constexpr int kMostKeypoints = 1023;

// What both operators on keypoints ask of their last four inputs.
const char* complaint_of_keypoints(const InputDims& dims) noexcept {
    if (dims[0].nbDims != 4 || dims[0].d[0] != 1) return "the first input is not (1, C, H, W)";
    const int64_t count = dims[1].d[1];
    if (dims[1].nbDims != 3 || count > kMostKeypoints) return "keypoints are not (1, K < 1024, 2)";
    for (const int value : {1, 3})
        if (dims[value].nbDims != 3 || dims[value].d[0] != 1 || dims[value].d[1] != count ||
            dims[value].d[2] != 2)
            return "keypoints of source and driving are not both (1, K, 2)";
    for (const int jacobian : {2, 4})
        if (dims[jacobian].nbDims != 4 || dims[jacobian].d[0] != 1 ||
            dims[jacobian].d[1] != count || dims[jacobian].d[2] != 2 || dims[jacobian].d[3] != 2)
            return "jacobians of source and driving are not both (1, K, 2, 2)";
    return nullptr;
}

}  // namespace

const char* WarpOcclude::complaint(const InputDims& dims) const noexcept {
    if (dims[0].nbDims != 4 || dims[0].d[0] != 1) return "the feature is not (1, C, H, W)";
    if (dims[1].nbDims != 4 || dims[1].d[0] != 1 || dims[1].d[3] != 2)
        return "the deformation is not (1, h, w, 2)";
    if (dims[2].nbDims != 4 || dims[2].d[0] != 1 || dims[2].d[1] != 1)
        return "the occlusion is not (1, 1, h, w)";
    return nullptr;
}

int32_t WarpOcclude::getOutputShapes(DimsExprs const* in, int32_t count, DimsExprs const*, int32_t,
                                     DimsExprs* out, int32_t outputs, IExprBuilder&) noexcept {
    if (count != inputs() || outputs != 1 || in[0].nbDims != 4) return 1;
    out[0] = in[0];
    return 0;
}

int32_t WarpOcclude::launch(const InputDims& dims, int dtype, int layout, const void* const* inputs,
                            void* output, cudaStream_t stream) const noexcept {
    return sonomime_warp_occlude(inputs[0], floats(inputs[1]), floats(inputs[2]), output,
                                 size_of(dims[0], 1), size_of(dims[0], 2), size_of(dims[0], 3),
                                 size_of(dims[1], 1), size_of(dims[1], 2), size_of(dims[2], 2),
                                 size_of(dims[2], 3), half_pixel(), dtype, layout, stream);
}

const char* SparseMotion::complaint(const InputDims& dims) const noexcept {
    return complaint_of_keypoints(dims);
}

int32_t SparseMotion::getOutputShapes(DimsExprs const* in, int32_t count, DimsExprs const*, int32_t,
                                      DimsExprs* out, int32_t outputs,
                                      IExprBuilder& builder) noexcept {
    if (count != inputs() || outputs != 1 || in[0].nbDims != 4 || in[1].nbDims != 3) return 1;
    const IDimensionExpr& one = *builder.constant(1);
    const IDimensionExpr* slots = builder.operation(DimensionOperation::kSUM, *in[1].d[1], one);
    const IDimensionExpr* each = builder.operation(DimensionOperation::kSUM, *in[0].d[1], one);
    if (slots == nullptr || each == nullptr) return 1;
    out[0] = in[0];
    out[0].d[1] = builder.operation(DimensionOperation::kPROD, *slots, *each);
    return out[0].d[1] == nullptr ? 1 : 0;
}

int32_t SparseMotion::launch(const InputDims& dims, int dtype, int, const void* const* inputs,
                             void* output, cudaStream_t stream) const noexcept {
    return sonomime_sparse_motion(inputs[0], floats(inputs[1]), floats(inputs[2]),
                                  floats(inputs[3]), floats(inputs[4]), output, size_of(dims[0], 1),
                                  size_of(dims[0], 2), size_of(dims[0], 3), size_of(dims[1], 1),
                                  attributes.variance, half_pixel(), dtype, stream);
}

const char* ComposeMotion::complaint(const InputDims& dims) const noexcept {
    const char* wrong = complaint_of_keypoints(dims);
    if (wrong == nullptr && dims[0].d[1] != dims[1].d[1] + 1)
        return "there is not one mask per keypoint and one more";
    return wrong;
}

int32_t ComposeMotion::getOutputShapes(DimsExprs const* in, int32_t count, DimsExprs const*,
                                       int32_t, DimsExprs* out, int32_t outputs,
                                       IExprBuilder& builder) noexcept {
    if (count != inputs() || outputs != 1 || in[0].nbDims != 4) return 1;
    out[0].nbDims = 4;
    out[0].d[0] = in[0].d[0];
    out[0].d[1] = in[0].d[2];
    out[0].d[2] = in[0].d[3];
    out[0].d[3] = builder.constant(2);
    return out[0].d[3] == nullptr ? 1 : 0;
}

int32_t ComposeMotion::launch(const InputDims& dims, int dtype, int, const void* const* inputs,
                              void* output, cudaStream_t stream) const noexcept {
    return sonomime_compose_motion(inputs[0], floats(inputs[1]), floats(inputs[2]),
                                   floats(inputs[3]), floats(inputs[4]),
                                   static_cast<float*>(output), size_of(dims[0], 2),
                                   size_of(dims[0], 3), size_of(dims[1], 1), half_pixel(), dtype,
                                   stream);
}

}  // namespace sonomime::plugin
