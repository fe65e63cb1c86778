#include "operator.h"

#include <cstdio>
#include <new>

namespace sonomime::plugin {

using namespace nvinfer1;

bool Operator::takes(DataType type, TensorFormat format) const noexcept {
    if (type == DataType::kFLOAT) return format == TensorFormat::kLINEAR;
    return kind_.takes_half && type == DataType::kHALF &&
           (format == TensorFormat::kLINEAR || format == TensorFormat::kHWC8);
}

IPluginV3* Operator::clone() noexcept { return new (std::nothrow) Operator(kind_, attributes_); }

IPluginCapability* Operator::getCapabilityInterface(PluginCapabilityType type) noexcept {
    switch (type) {
        case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
        case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
        case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

bool Operator::accepts(const InputDims& dims) const noexcept {
    const char* wrong = nullptr;
    for (int32_t i = 0; i < kind_.inputs; ++i)
        for (int32_t d = 0; d < dims[i].nbDims; ++d)
            if (dims[i].d[d] < 1 || dims[i].d[d] > INT32_MAX)
                wrong = "an input is empty, or longer than 2^31";
    if (wrong == nullptr) wrong = kind_.complaint(dims);
    if (wrong == nullptr) return true;
    std::fprintf(stderr,
                 "sonomime plugin: %s: %s. Build the engine from a bundle that `sonomime export` "
                 "wrote.\n",
                 kind_.name, wrong);
    return false;
}

int32_t Operator::configurePlugin(DynamicPluginTensorDesc const* in, int32_t count,
                                  DynamicPluginTensorDesc const*, int32_t outputs) noexcept {
    if (count != kind_.inputs || outputs != 1) return 1;
    InputDims dims{};
    for (int32_t i = 0; i < count; ++i) {
        dims[i] = in[i].desc.dims;
        for (int32_t d = 0; d < dims[i].nbDims; ++d)
            if (dims[i].d[d] < 0) return 0;  // known at run time only: onShapeChange checks it
    }
    return accepts(dims) ? 0 : 1;
}

int32_t Operator::getOutputDataTypes(DataType* types, int32_t outputs, DataType const* in,
                                     int32_t count) const noexcept {
    if (count != kind_.inputs || outputs != 1) return 1;
    bool known = takes(in[0], TensorFormat::kLINEAR);
    for (int32_t i = 1; i < count; ++i) known = known && in[i] == DataType::kFLOAT;
    if (!known) {
        std::fprintf(stderr,
                     "sonomime plugin: %s: the first input has to be float32%s, all others float32\n",
                     kind_.name, kind_.takes_half ? " or float16" : "");
        return 1;
    }
    types[0] = in[0];
    return 0;
}

int32_t Operator::getOutputShapes(DimsExprs const* in, int32_t count, DimsExprs const*, int32_t,
                                  DimsExprs* out, int32_t outputs,
                                  IExprBuilder& builder) noexcept {
    if (count != kind_.inputs || outputs != 1 || in[0].nbDims != 4) return 1;
    return kind_.make_shape(in, out[0], builder) ? 0 : 1;
}

// The network is strongly typed, so getOutputDataTypes has fixed the types, and TensorRT chooses
// among formats alone.
bool Operator::supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const* tensors,
                                         int32_t count, int32_t outputs) noexcept {
    if (count != kind_.inputs || outputs != 1 || position < 0 || position > count) return false;
    const PluginTensorDesc &first = tensors[0].desc, &asked = tensors[position].desc;
    if (position == 0) return takes(asked.type, asked.format);
    if (position == count) return asked.type == first.type && asked.format == first.format;
    return asked.type == DataType::kFLOAT && asked.format == TensorFormat::kLINEAR;
}

int32_t Operator::onShapeChange(PluginTensorDesc const* in, int32_t count, PluginTensorDesc const*,
                                int32_t outputs) noexcept {
    if (count != kind_.inputs || outputs != 1) return 1;
    InputDims dims{};
    for (int32_t i = 0; i < count; ++i) dims[i] = in[i].dims;
    return accepts(dims) ? 0 : 1;
}

int32_t Operator::enqueue(PluginTensorDesc const* in, PluginTensorDesc const*,
                          void const* const* inputs, void* const* outputs, void*,
                          cudaStream_t stream) noexcept {
    InputDims dims{};
    for (int32_t i = 0; i < kind_.inputs; ++i) dims[i] = in[i].dims;
    const int32_t status =
        kind_.launch(attributes_, dims, in[0], inputs, outputs[0], stream);
    if (status != 0)
        std::fprintf(stderr,
                     "sonomime plugin: %s: CUDA error %d; unless it is 1, earlier work may be the "
                     "cause\n",
                     kind_.name, static_cast<int>(status));
    return status;
}

PluginFieldCollection const* Operator::getFieldsToSerialize() noexcept {
    fields_[0] = PluginField("half_pixel", &attributes_.half_pixel, PluginFieldType::kFLOAT32, 1);
    fields_[1] = PluginField("variance", &attributes_.variance, PluginFieldType::kFLOAT32, 1);
    collection_ = {kind_.has_variance ? 2 : 1, fields_.data()};
    return &collection_;
}

}  // namespace sonomime::plugin
