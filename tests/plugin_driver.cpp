// Plays TensorRT to the plugin, on the CPU, with the kernels compiled for it. Exits with 0 if every check
// holds, else says which one does not.
#include <NvInferRuntime.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../runtime/csrc/sonomime_kernels.h"

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) noexcept;
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept;

using namespace nvinfer1;

#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition)) {                                                   \
            std::printf("line %d does not hold: %s\n", __LINE__, #condition); \
            std::exit(1);                                                     \
        }                                                                     \
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
using Values = std::vector<float>;

constexpr DataType kFull = DataType::kFLOAT, kHalf = DataType::kHALF, kByte = DataType::kINT8;
constexpr TensorFormat kLinear = TensorFormat::kLINEAR, kEight = TensorFormat::kHWC8;

Dims dims_of(const Shape& shape) {
    Dims dims{static_cast<int32_t>(shape.size()), {}};
    for (std::size_t i = 0; i < shape.size(); ++i) dims.d[i] = shape[i];
    return dims;
}

Values noise(const Shape& shape) {
    static unsigned state = 1;
    Values values(1);
    for (const int64_t size : shape) values.resize(values.size() * static_cast<std::size_t>(size));
    for (float& value : values) {
        state = state * 1664525u + 1013904223u;
        value = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
    }
    return values;
}

template <class Part>
Part* part_of(IPluginV3* plugin, PluginCapabilityType type) {
    return static_cast<Part*>(plugin->getCapabilityInterface(type));
}

IPluginV3* create(IPluginCreatorV3One* creator, const std::vector<PluginField>& fields) {
    const PluginFieldCollection all{static_cast<int32_t>(fields.size()), fields.data()};
    return creator->createPlugin("n", &all, TensorRTPhase::kBUILD);
}

// An operator with inputs of given shapes, what the C function makes of them, and shapes of an input
// that it refuses.
struct Case {
    std::string name;
    std::vector<PluginField> fields;
    std::vector<Shape> shapes;
    Shape result;
    std::function<int(const std::vector<Values>&, float*)> compute;
    std::vector<std::pair<std::size_t, Shape>> refused;
};

// An operator as an engine has it: serialised, created again, attached to a context.
struct Trial {
    explicit Trial(const Case& given) : given(given), count(static_cast<int32_t>(given.shapes.size())) {
        int32_t creators = 0;
        auto* const* all = getCreators(creators);
        CHECK(creators == 3);
        for (int32_t i = 0; i < creators; ++i) {
            auto* each = static_cast<IPluginCreatorV3One*>(all[i]);
            if (each->getPluginName() == given.name) creator = each;
        }
        CHECK(creator != nullptr);
        IPluginV3* first = create(creator, given.fields);
        CHECK(first != nullptr);
        auto* serial = part_of<IPluginV3OneRuntime>(first, PluginCapabilityType::kRUNTIME);
        IPluginV3* second =
            creator->createPlugin("n", serial->getFieldsToSerialize(), TensorRTPhase::kRUNTIME);
        CHECK(second != nullptr);
        auto* unattached = part_of<IPluginV3OneRuntime>(second, PluginCapabilityType::kRUNTIME);
        plugin.reset(unattached->attachToContext(nullptr));
        CHECK(plugin != nullptr);
        delete first;
        delete second;
        auto* core = part_of<IPluginV3OneCore>(plugin.get(), PluginCapabilityType::kCORE);
        CHECK(core->getPluginName() == given.name && std::string(core->getPluginVersion()) == "2");
        CHECK(std::string(core->getPluginNamespace()) == "sonomime");
        build = part_of<IPluginV3OneBuild>(plugin.get(), PluginCapabilityType::kBUILD);
        runtime = part_of<IPluginV3OneRuntime>(plugin.get(), PluginCapabilityType::kRUNTIME);
        CHECK(build->getNbOutputs() == 1);
        for (const Shape& shape : given.shapes) values.push_back(noise(shape));
    }

    // Is this combination of the first input's, the others' and the output's kinds supported?
    bool supports(DataType first, TensorFormat format, DataType others, DataType out,
                  TensorFormat out_format) {
        tensors.clear();
        in.clear();
        for (int32_t i = 0; i <= count; ++i) {
            const Dims dims = dims_of(i < count ? given.shapes[i] : given.result);
            const PluginTensorDesc kind = {dims, i == 0 ? first : i < count ? others : out,
                                           i == 0 ? format : i < count ? kLinear : out_format, -1.0f};
            in.push_back(kind);
            tensors.push_back({kind, dims, dims, dims});
        }
        bool all = true;
        for (int32_t i = 0; i <= count; ++i)
            all = all && build->supportsFormatCombination(i, tensors.data(), count, 1);
        return all;
    }

    bool enqueue(std::vector<const void*> inputs, void* output) {
        return runtime->onShapeChange(in.data(), count, &in.back(), 1) == 0 &&
               runtime->enqueue(in.data(), &in.back(), inputs.data(), &output, nullptr, nullptr) == 0;
    }

    const Case given;
    const int32_t count;
    IPluginCreatorV3One* creator = nullptr;
    std::unique_ptr<IPluginV3> plugin;
    IPluginV3OneBuild* build = nullptr;
    IPluginV3OneRuntime* runtime = nullptr;
    std::vector<Values> values;
    std::vector<DynamicPluginTensorDesc> tensors;  // with the output as the last
    std::vector<PluginTensorDesc> in;
};

void check_shape(const Trial& trial) {
    Builder builder;
    std::vector<DimsExprs> in;
    for (const Shape& shape : trial.given.shapes) {
        in.push_back({static_cast<int32_t>(shape.size()), {}});
        for (std::size_t d = 0; d < shape.size(); ++d) in.back().d[d] = builder.constant(shape[d]);
    }
    DimsExprs out{};
    CHECK(trial.build->getOutputShapes(in.data(), trial.count, nullptr, 0, &out, 1, builder) == 0);
    Shape found;
    for (int32_t d = 0; d < out.nbDims; ++d) found.push_back(out.d[d]->getConstantValue());
    CHECK(found == trial.given.result);
}

void check_types(Trial& trial, bool takes_half) {
    std::vector<DataType> types(trial.given.shapes.size(), kFull);
    DataType out = kByte;
    const auto known = [&] {
        return trial.build->getOutputDataTypes(&out, 1, types.data(), trial.count) == 0;
    };
    CHECK(known() && out == kFull);
    types[0] = kHalf;
    CHECK(known() == takes_half && (!takes_half || out == kHalf));
    types[1] = kHalf;  // coordinates stay float32
    CHECK(!known());
    CHECK(trial.supports(kHalf, kLinear, kFull, kHalf, kLinear) == takes_half);
    CHECK(trial.supports(kHalf, kEight, kFull, kHalf, kEight) == takes_half);
    CHECK(!trial.supports(kHalf, kEight, kFull, kHalf, kLinear));
    CHECK(!trial.supports(kHalf, kLinear, kFull, kFull, kLinear));
    CHECK(!trial.supports(kHalf, kLinear, kHalf, kHalf, kLinear));
    CHECK(!trial.supports(kByte, kLinear, kFull, kByte, kLinear));
    CHECK(!trial.supports(kFull, kEight, kFull, kFull, kEight));
}

// The output for float32 inputs is that of the C function, to the last bit.
void check_output(Trial& trial) {
    const int32_t count = trial.count;
    Values found = noise(trial.given.result), wanted = noise(trial.given.result);
    CHECK(trial.given.compute(trial.values, wanted.data()) == 0);
    CHECK(trial.supports(kFull, kLinear, kFull, kFull, kLinear));
    auto *tensors = trial.tensors.data(), *output = &trial.tensors.back();
    CHECK(trial.build->configurePlugin(tensors, count, output, 1) == 0);
    CHECK(trial.build->getWorkspaceSize(tensors, count, output, 1) == 0);
    std::vector<const void*> pointers;
    for (const Values& each : trial.values) pointers.push_back(each.data());
    CHECK(trial.enqueue(pointers, found.data()) && found == wanted);
    for (const auto& [input, shape] : trial.given.refused) {
        CHECK(trial.supports(kFull, kLinear, kFull, kFull, kLinear));
        trial.tensors[input].desc.dims = trial.in[input].dims = dims_of(shape);
        CHECK(trial.build->configurePlugin(trial.tensors.data(), count, output, 1) != 0);
        CHECK(trial.runtime->onShapeChange(trial.in.data(), count, &trial.in.back(), 1) != 0);
    }
}

PluginField field(const char* name, const float& value) {
    return {name, &value, PluginFieldType::kFLOAT32, 1};
}

const float kOne = 1.0f, kZero = 0.0f, kOdd = 0.5f, kVariance = 0.05f;
const float kBad[] = {0.0f, -0.01f, INFINITY, NAN};
constexpr int K = 4;

Case warp(const float& half_pixel, const float& align_corners) {
    return {"WarpOcclude",
            {field("half_pixel", half_pixel), field("align_corners", align_corners)},
            {{1, 5, 12, 14}, {1, 6, 7, 2}, {1, 1, 3, 4}}, {1, 5, 12, 14},
            [&](const std::vector<Values>& v, float* out) {
                return sonomime_warp_occlude(v[0].data(), v[1].data(), v[2].data(), out, 5, 12, 14, 6,
                                             7, 3, 4, half_pixel == 1.0f, align_corners == 1.0f,
                                             SONOMIME_FLOAT32, SONOMIME_LINEAR, nullptr);
            },
            {{0, {2, 5, 12, 14}}, {1, {1, 6, 7, 3}}, {2, {1, 2, 3, 4}}, {2, {1, 1, 0, 4}}}};
}

Case sparse(const float& half_pixel, const float& align_corners) {
    return {"SparseMotion",
            {field("variance", kVariance), field("align_corners", align_corners),
             field("half_pixel", half_pixel)},
            {{1, 3, 5, 7}, {1, K, 2}, {1, K, 2, 2}, {1, K, 2}, {1, K, 2, 2}},
            {1, (K + 1) * 4, 5, 7},
            [&](const std::vector<Values>& v, float* out) {
                return sonomime_sparse_motion(v[0].data(), v[1].data(), v[2].data(), v[3].data(),
                                              v[4].data(), out, 3, 5, 7, K, kVariance,
                                              half_pixel == 1.0f, align_corners == 1.0f, nullptr);
            },
            {{1, {1, K, 3}}, {3, {1, K + 1, 2}}, {4, {1, K, 4}}, {0, {3, 5, 7}}}};
}

const Case kCompose = {
    "ComposeMotion", {field("half_pixel", kZero)},
    {{1, K + 1, 5, 7}, {1, K, 2}, {1, K, 2, 2}, {1, K, 2}, {1, K, 2, 2}}, {1, 5, 7, 2},
    [](const std::vector<Values>& v, float* out) {
        return sonomime_compose_motion(v[0].data(), v[1].data(), v[2].data(), v[3].data(),
                                       v[4].data(), out, 5, 7, K, 0, nullptr);
    },
    {{0, {1, K, 5, 7}}}};

// Half the precision, eight channels side by side: 9 channels are stored as 16.
void try_eights() {
    Case given = warp(kZero, kOne);
    given.shapes = {{1, 9, 4, 6}, {1, 4, 6, 2}, {1, 1, 4, 6}};
    given.result = given.shapes[0];
    Trial trial(given);
    CHECK(trial.supports(kHalf, kEight, kFull, kHalf, kEight));
    struct alignas(16) Pixels {
        unsigned short lanes[4 * 6 * 16];
    } feature, found, wanted;
    // Any bits but those of NaN and infinity will do.
    for (int i = 0; i < 4 * 6 * 16; ++i) feature.lanes[i] = static_cast<unsigned short>(i * 79);
    std::memset(&found, 1, sizeof found);
    std::memset(&wanted, 2, sizeof wanted);
    const void *where = trial.values[1].data(), *seen = trial.values[2].data();
    CHECK(trial.enqueue({&feature, where, seen}, &found));
    CHECK(sonomime_warp_occlude(&feature, trial.values[1].data(), trial.values[2].data(), &wanted,
                                9, 4, 6, 4, 6, 4, 6, 0, 1, SONOMIME_FLOAT16, SONOMIME_HWC8,
                                nullptr) == 0);
    CHECK(std::memcmp(&found, &wanted, sizeof found) == 0);
    // Not where 16 bytes can be read at once.
    CHECK(!trial.enqueue({feature.lanes + 1, where, seen}, &found));
}

}  // namespace

int main() {
    setLoggerFinder(nullptr);
    for (const Case& each : {warp(kOne, kZero), warp(kZero, kOne), warp(kZero, kZero),
                             sparse(kOne, kZero), sparse(kZero, kOne), kCompose}) {
        Trial trial(each);
        check_shape(trial);
        check_types(trial, each.name == "WarpOcclude");
        check_output(trial);
        IPluginCreatorV3One* creator = trial.creator;
        CHECK(creator->createPlugin("n", nullptr, TensorRTPhase::kBUILD) == nullptr);
        const PluginField variance = field("variance", kVariance);
        for (const char* flag : {"half_pixel", "align_corners"}) {
            const char* other = *flag == 'h' ? "align_corners" : "half_pixel";
            const PluginField sound = field(other, kOne);
            for (const PluginField& bad : {field(flag, kOdd), field(flag, kBad[3]),
                                           PluginField(flag, &kOne, PluginFieldType::kINT32, 1),
                                           PluginField(flag, &kOne, PluginFieldType::kFLOAT32, 2),
                                           PluginField(flag, nullptr, PluginFieldType::kFLOAT32, 1)})
                CHECK(create(creator, {bad, sound, variance}) == nullptr);
            // ComposeMotion alone samples nothing, and needs no align_corners.
            const bool enough = each.name == "ComposeMotion" && *flag == 'a';
            std::unique_ptr<IPluginV3> made(create(creator, {sound, variance}));
            CHECK((made != nullptr) == enough);
        }
        const PluginField half_pixel = field("half_pixel", kOne);
        const PluginField align_corners = field("align_corners", kZero);
        CHECK(each.name != "SparseMotion" || !create(creator, {half_pixel, align_corners}));
        for (const float& bad : kBad)
            CHECK(!create(creator, {half_pixel, align_corners, field("variance", bad)}));
    }
    try_eights();
    std::printf("all checks hold\n");
    return 0;
}
