// Plays TensorRT to the plugin, on the CPU: linked with the plugin's sources and with host.cpp in the
// place of the CUDA kernels. Exits with 0 if every check holds, else says which one does not.
#include <NvInferRuntime.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "../runtime/csrc/sonomime_kernels.h"

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) noexcept;
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept;

using namespace nvinfer1;

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            std::printf("line %d does not hold: %s\n", __LINE__, #condition); \
            std::exit(1);                                                   \
        }                                                                   \
    } while (false)

namespace {

struct Dimension final : IDimensionExpr, apiv::VDimensionExpr {
    explicit Dimension(int64_t value) : value(value) { IDimensionExpr::mImpl = this; }
    bool isConstant() const override { return true; }
    int64_t getConstantValue() const override { return value; }
    bool isSizeTensor() const override { return false; }
    int64_t value;
};

struct Builder final : IExprBuilder, apiv::VExprBuilder {
    Builder() { IExprBuilder::mImpl = this; }
    IDimensionExpr const* constant(int64_t value) override { return &made.emplace_back(value); }
    IDimensionExpr const* operation(DimensionOperation what, IDimensionExpr const& a,
                                    IDimensionExpr const& b) override {
        const int64_t x = a.getConstantValue(), y = b.getConstantValue();
        CHECK(what == DimensionOperation::kSUM || what == DimensionOperation::kPROD);
        return constant(what == DimensionOperation::kSUM ? x + y : x * y);
    }
    IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&,
                                            IDimensionExpr const&) override {
        return nullptr;
    }
    std::deque<Dimension> made;
};

using Shape = std::vector<int64_t>;

constexpr DataType kFull = DataType::kFLOAT, kHalf = DataType::kHALF;
constexpr TensorFormat kLinear = TensorFormat::kLINEAR, kEight = TensorFormat::kHWC8;

Dims dims_of(const Shape& shape) {
    Dims dims{};
    dims.nbDims = static_cast<int32_t>(shape.size());
    for (std::size_t i = 0; i < shape.size(); ++i) dims.d[i] = shape[i];
    return dims;
}

DynamicPluginTensorDesc described(const Shape& shape, DataType type, TensorFormat format) {
    DynamicPluginTensorDesc tensor{};
    tensor.desc = {dims_of(shape), type, format, -1.0f};
    tensor.min = tensor.max = tensor.opt = tensor.desc.dims;
    return tensor;
}

std::vector<float> noise(const Shape& shape) {
    static unsigned state = 1;
    std::size_t count = 1;
    for (const int64_t size : shape) count *= static_cast<std::size_t>(size);
    std::vector<float> values(count);
    for (float& value : values) {
        state = state * 1664525u + 1013904223u;
        value = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
    }
    return values;
}

// One operator with inputs of given shapes; everything that TensorRT asks of it, in its order.
struct Trial {
    IPluginCreatorV3One* creator;
    std::vector<Shape> shapes;
    Shape result;
    std::vector<DynamicPluginTensorDesc> tensors;
    std::vector<std::vector<float>> values;
    IPluginV3* plugin = nullptr;
    IPluginV3OneBuild* build = nullptr;
    IPluginV3OneRuntime* runtime = nullptr;

    Trial(IPluginCreatorV3One* creator, std::vector<PluginField> fields, std::vector<Shape> given,
          Shape wanted)
        : creator(creator), shapes(std::move(given)), result(std::move(wanted)) {
        const PluginFieldCollection collection{static_cast<int32_t>(fields.size()), fields.data()};
        IPluginV3* first = creator->createPlugin("node", &collection, TensorRTPhase::kBUILD);
        CHECK(first != nullptr);
        // Through an engine: serialised, created again, attached to a context.
        auto* serial = static_cast<IPluginV3OneRuntime*>(
            first->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
        IPluginV3* second =
            creator->createPlugin("node", serial->getFieldsToSerialize(), TensorRTPhase::kRUNTIME);
        CHECK(second != nullptr);
        delete first;
        runtime = static_cast<IPluginV3OneRuntime*>(
            second->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
        plugin = runtime->attachToContext(nullptr);
        CHECK(plugin != nullptr);
        delete second;
        auto* core = static_cast<IPluginV3OneCore*>(
            plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
        CHECK(std::string(core->getPluginName()) == creator->getPluginName());
        CHECK(std::string(core->getPluginNamespace()) == "sonomime");
        CHECK(std::string(core->getPluginVersion()) == "1");
        build = static_cast<IPluginV3OneBuild*>(
            plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
        runtime = static_cast<IPluginV3OneRuntime*>(
            plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
        CHECK(build->getNbOutputs() == 1);
        for (const Shape& shape : shapes) values.push_back(noise(shape));
        check_shape();
    }
    ~Trial() { delete plugin; }
    Trial(const Trial&) = delete;

    int32_t count() const { return static_cast<int32_t>(shapes.size()); }

    void check_shape() {
        Builder builder;
        std::vector<DimsExprs> in(shapes.size());
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            in[i].nbDims = static_cast<int32_t>(shapes[i].size());
            for (std::size_t d = 0; d < shapes[i].size(); ++d)
                in[i].d[d] = builder.constant(shapes[i][d]);
        }
        DimsExprs out{};
        CHECK(build->getOutputShapes(in.data(), count(), nullptr, 0, &out, 1, builder) == 0);
        CHECK(out.nbDims == static_cast<int32_t>(result.size()));
        for (std::size_t d = 0; d < result.size(); ++d)
            CHECK(out.d[d]->getConstantValue() == result[d]);
    }

    // Is this combination of the first input's, the others' and the output's kinds supported?
    bool supports(DataType first, TensorFormat format, DataType others, DataType out,
                  TensorFormat out_format) {
        tensors.clear();
        for (const Shape& shape : shapes)
            tensors.push_back(described(shape, others, TensorFormat::kLINEAR));
        tensors[0] = described(shapes[0], first, format);
        tensors.push_back(described(result, out, out_format));
        bool all = true;
        for (int32_t i = 0; i <= count(); ++i)
            all = all && build->supportsFormatCombination(i, tensors.data(), count(), 1);
        return all;
    }

    bool supports_float() { return supports(kFull, kLinear, kFull, kFull, kLinear); }

    std::vector<PluginTensorDesc> inputs() const {
        std::vector<PluginTensorDesc> in;
        for (std::size_t i = 0; i < shapes.size(); ++i) in.push_back(tensors[i].desc);
        return in;
    }

    // The output for float32 inputs is `wanted`, to the last bit.
    void check_output(const std::vector<float>& wanted) {
        std::vector<float> output = noise(result);
        CHECK(supports_float());
        CHECK(build->configurePlugin(tensors.data(), count(), &tensors.back(), 1) == 0);
        CHECK(build->getWorkspaceSize(tensors.data(), count(), &tensors.back(), 1) == 0);
        std::vector<const void*> pointers;
        for (const auto& value : values) pointers.push_back(value.data());
        CHECK(runtime->onShapeChange(inputs().data(), count(), &tensors.back().desc, 1) == 0);
        void* outputs[] = {output.data()};
        CHECK(runtime->enqueue(inputs().data(), &tensors.back().desc, pointers.data(), outputs,
                               nullptr, nullptr) == 0);
        CHECK(output == wanted);
    }

    bool refuses(std::size_t input, const Shape& shape) {
        CHECK(supports_float());
        tensors[input] = described(shape, kFull, kLinear);
        return build->configurePlugin(tensors.data(), count(), &tensors.back(), 1) != 0 &&
               runtime->onShapeChange(inputs().data(), count(), &tensors.back().desc, 1) != 0;
    }

    void check_types(bool takes_half) {
        std::vector<DataType> in(shapes.size(), kFull);
        DataType out = DataType::kINT8;
        CHECK(build->getOutputDataTypes(&out, 1, in.data(), count()) == 0 && out == kFull);
        in[0] = kHalf;
        CHECK((build->getOutputDataTypes(&out, 1, in.data(), count()) == 0) == takes_half);
        CHECK(!takes_half || out == kHalf);
        in[1] = kHalf;  // coordinates stay float32
        CHECK(build->getOutputDataTypes(&out, 1, in.data(), count()) != 0);
        CHECK(supports(kHalf, kLinear, kFull, kHalf, kLinear) == takes_half);
        CHECK(supports(kHalf, kEight, kFull, kHalf, kEight) == takes_half);
        CHECK(!supports(kHalf, kEight, kFull, kHalf, kLinear));
        CHECK(!supports(kHalf, kLinear, kFull, kFull, kLinear));
        CHECK(!supports(kHalf, kLinear, kHalf, kHalf, kLinear));
        CHECK(!supports(DataType::kINT8, kLinear, kFull, DataType::kINT8, kLinear));
        CHECK(!supports(kFull, kEight, kFull, kFull, kEight));
    }
};

IPluginCreatorV3One* find(const char* name) {
    int32_t count = 0;
    IPluginCreatorInterface* const* creators = getCreators(count);
    CHECK(count == 3);
    for (int32_t i = 0; i < count; ++i) {
        auto* creator = static_cast<IPluginCreatorV3One*>(creators[i]);
        if (std::string(creator->getPluginName()) == name) return creator;
    }
    std::printf("no creator of %s\n", name);
    std::exit(1);
}

PluginField field(const char* name, const float& value) {
    return {name, &value, PluginFieldType::kFLOAT32, 1};
}

bool refused(IPluginCreatorV3One* creator, std::vector<PluginField> fields) {
    const PluginFieldCollection all{static_cast<int32_t>(fields.size()), fields.data()};
    return creator->createPlugin("n", &all, TensorRTPhase::kBUILD) == nullptr;
}

const float kOne = 1.0f, kZero = 0.0f, kOdd = 0.5f, kVariance = 0.05f;
const int K = 4;

void try_warp_occlude() {
    IPluginCreatorV3One* creator = find("WarpOcclude");
    for (const float* half_pixel : {&kOne, &kZero}) {
        Trial trial(creator, {field("half_pixel", *half_pixel)},
                    {{1, 5, 12, 14}, {1, 6, 7, 2}, {1, 1, 3, 4}}, {1, 5, 12, 14});
        std::vector<float> wanted = noise(trial.result);
        CHECK(sonomime_warp_occlude(trial.values[0].data(), trial.values[1].data(),
                                    trial.values[2].data(), wanted.data(), 5, 12, 14, 6, 7, 3, 4,
                                    half_pixel == &kOne, SONOMIME_FLOAT32, SONOMIME_LINEAR,
                                    nullptr) == 0);
        trial.check_output(wanted);
        trial.check_types(true);
        CHECK(trial.refuses(0, {2, 5, 12, 14}) && trial.refuses(1, {1, 6, 7, 3}));
        CHECK(trial.refuses(2, {1, 2, 3, 4}) && trial.refuses(2, {1, 1, 0, 4}));
    }
}

void try_warp_occlude_eight() {
    IPluginCreatorV3One* creator = find("WarpOcclude");
    Trial trial(creator, {field("half_pixel", kOne)}, {{1, 9, 4, 6}, {1, 4, 6, 2}, {1, 1, 4, 6}},
                {1, 9, 4, 6});
    CHECK(trial.supports(kHalf, kEight, kFull, kHalf, kEight));
    // 9 channels are stored as 16: any bits but those of NaN and infinity will do.
    struct alignas(16) Pixels {
        unsigned short lanes[4 * 6 * 16];
    } feature, found, wanted;
    for (int i = 0; i < 4 * 6 * 16; ++i) feature.lanes[i] = static_cast<unsigned short>(i * 79);
    std::memset(&found, 1, sizeof found);
    std::memset(&wanted, 2, sizeof wanted);
    const auto in = trial.inputs();
    const void* pointers[] = {&feature, trial.values[1].data(), trial.values[2].data()};
    void* outputs[] = {&found};
    CHECK(trial.runtime->enqueue(in.data(), &trial.tensors[3].desc, pointers, outputs, nullptr,
                                 nullptr) == 0);
    CHECK(sonomime_warp_occlude(&feature, trial.values[1].data(), trial.values[2].data(), &wanted,
                                9, 4, 6, 4, 6, 4, 6, 1, SONOMIME_FLOAT16, SONOMIME_HWC8,
                                nullptr) == 0);
    CHECK(std::memcmp(&found, &wanted, sizeof found) == 0);
    pointers[0] = feature.lanes + 1;  // not where 16 bytes can be read at once
    CHECK(trial.runtime->enqueue(in.data(), &trial.tensors[3].desc, pointers, outputs, nullptr,
                                 nullptr) != 0);
}

void try_sparse_motion() {
    IPluginCreatorV3One* creator = find("SparseMotion");
    Trial trial(creator, {field("half_pixel", kOne), field("variance", kVariance)},
                {{1, 3, 5, 7}, {1, K, 2}, {1, K, 2, 2}, {1, K, 2}, {1, K, 2, 2}},
                {1, (K + 1) * 4, 5, 7});
    std::vector<float> wanted = noise(trial.result);
    const auto& v = trial.values;
    CHECK(sonomime_sparse_motion(v[0].data(), v[1].data(), v[2].data(), v[3].data(), v[4].data(),
                                 wanted.data(), 3, 5, 7, K, kVariance, 1, nullptr) == 0);
    trial.check_output(wanted);
    trial.check_types(false);
    CHECK(trial.refuses(1, {1, K, 3}) && trial.refuses(3, {1, K + 1, 2}));
    CHECK(trial.refuses(4, {1, K, 4}) && trial.refuses(0, {3, 5, 7}));
    CHECK(refused(creator, {field("half_pixel", kOne)}));
    for (const float variance : {0.0f, -0.01f, INFINITY, NAN})
        CHECK(refused(creator, {field("half_pixel", kOne), field("variance", variance)}));
}

void try_compose_motion() {
    Trial trial(find("ComposeMotion"), {field("half_pixel", kZero)},
                {{1, K + 1, 5, 7}, {1, K, 2}, {1, K, 2, 2}, {1, K, 2}, {1, K, 2, 2}}, {1, 5, 7, 2});
    std::vector<float> wanted = noise(trial.result);
    const auto& v = trial.values;
    CHECK(sonomime_compose_motion(v[0].data(), v[1].data(), v[2].data(), v[3].data(), v[4].data(),
                                  wanted.data(), 5, 7, K, 0, nullptr) == 0);
    trial.check_output(wanted);
    trial.check_types(false);
    CHECK(trial.refuses(0, {1, K, 5, 7}));
}

void try_attributes() {
    for (const char* name : {"WarpOcclude", "SparseMotion", "ComposeMotion"}) {
        IPluginCreatorV3One* creator = find(name);
        CHECK(creator->createPlugin("n", nullptr, TensorRTPhase::kBUILD) == nullptr);
        CHECK(refused(creator, {}));
        CHECK(refused(creator, {field("half_pixel", kOdd), field("variance", kVariance)}));
        CHECK(refused(creator, {{"half_pixel", &kOne, PluginFieldType::kINT32, 1}}));
        CHECK(refused(creator, {{"half_pixel", &kOne, PluginFieldType::kFLOAT32, 2}}));
        CHECK(refused(creator, {{"half_pixel", nullptr, PluginFieldType::kFLOAT32, 1}}));
    }
}

}  // namespace

int main() {
    setLoggerFinder(nullptr);
    try_warp_occlude();
    try_warp_occlude_eight();
    try_sparse_motion();
    try_compose_motion();
    try_attributes();
    std::printf("all checks hold\n");
    return 0;
}
