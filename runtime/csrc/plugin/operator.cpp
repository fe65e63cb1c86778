#include "operator.h"

namespace sonomime::plugin {

using namespace nvinfer1;

bool Operator::takes(DataType type, TensorFormat format) const noexcept {
    return type == DataType::kFLOAT && format == TensorFormat::kLINEAR;
}

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
    for (int32_t i = 0; i < inputs() && wrong == nullptr; ++i)
        for (int32_t d = 0; d < dims[i].nbDims; ++d)
            if (dims[i].d[d] < 1 || dims[i].d[d] > INT32_MAX)
                wrong = "an input is empty, or longer than 2^31";
    if (wrong == nullptr) wrong = complaint(dims);
    if (wrong == nullptr) return true;
    std::fprintf(stderr,
                 "sonomime plugin: %s: %s. Build the engine from a bundle that `sonomime export` "
                 "wrote.\n",
                 getPluginName(), wrong);
    return false;
}

int32_t Operator::configurePlugin(DynamicPluginTensorDesc const* in, int32_t count,
                                  DynamicPluginTensorDesc const*, int32_t outputs) noexcept {
    if (count != inputs() || outputs != 1) return 1;
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
    if (count != inputs() || outputs != 1) return 1;
    bool known = takes(in[0], TensorFormat::kLINEAR);
    for (int32_t i = 1; i < count; ++i) known = known && in[i] == DataType::kFLOAT;
    if (!known) {
        const bool half = takes(DataType::kHALF, TensorFormat::kLINEAR);
        std::fprintf(stderr,
                     "sonomime plugin: %s: the first input has to be float32%s, all others float32\n",
                     getPluginName(), half ? " or float16" : "");
        return 1;
    }
    types[0] = in[0];
    return 0;
}

int32_t Operator::getOutputShapes(DimsExprs const* in, int32_t count, DimsExprs const*, int32_t,
                                  DimsExprs* out, int32_t outputs,
                                  IExprBuilder& builder) noexcept {
    if (count != inputs() || outputs != 1 || in[0].nbDims != 4) return 1;
    return make_shape(in, out[0], builder) ? 0 : 1;
}

// The network is strongly typed, so getOutputDataTypes has fixed the types, and TensorRT chooses
// among formats alone.
bool Operator::supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const* tensors,
                                         int32_t count, int32_t outputs) noexcept {
    if (count != inputs() || outputs != 1 || position < 0 || position > count) return false;
    const PluginTensorDesc &first = tensors[0].desc, &asked = tensors[position].desc;
    if (position == 0) return takes(asked.type, asked.format);
    if (position == count) return asked.type == first.type && asked.format == first.format;
    return asked.type == DataType::kFLOAT && asked.format == TensorFormat::kLINEAR;
}

int32_t Operator::onShapeChange(PluginTensorDesc const* in, int32_t count, PluginTensorDesc const*,
                                int32_t outputs) noexcept {
    if (count != inputs() || outputs != 1) return 1;
    InputDims dims{};
    for (int32_t i = 0; i < count; ++i) dims[i] = in[i].dims;
    return accepts(dims) ? 0 : 1;
}

int32_t Operator::enqueue(PluginTensorDesc const* in, PluginTensorDesc const*,
                          void const* const* inputs, void* const* outputs, void*,
                          cudaStream_t stream) noexcept {
    InputDims dims{};
    for (int32_t i = 0; i < this->inputs(); ++i) dims[i] = in[i].dims;
    const int32_t status = launch(dims, in[0], inputs, outputs[0], stream);
    if (status != 0)
        std::fprintf(stderr,
                     "sonomime plugin: %s: CUDA error %d; unless it is 1, earlier work may be the "
                     "cause\n",
                     getPluginName(), static_cast<int>(status));
    return status;
}

PluginFieldCollection const* Operator::getFieldsToSerialize() noexcept {
    fields_[0] = PluginField("half_pixel", &attributes.half_pixel, PluginFieldType::kFLOAT32, 1);
    fields_[1] = PluginField("variance", &attributes.variance, PluginFieldType::kFLOAT32, 1);
    collection_ = {has_variance() ? 2 : 1, fields_.data()};
    return &collection_;
}

}  // namespace sonomime::plugin
