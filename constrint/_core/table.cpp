// Solutions out of a diagram: by index, the index of one, and all of them into columns.
#include <algorithm>

#include "diagram.hpp"

namespace constrint {

void Diagram::decode(const std::vector<Total>& indices, int64_t* rows, Watch& watch) const {
    for (Total index : indices) {
        watch.tick();
        int32_t node = root_;
        for (size_t d = 0; d < layers_.size(); ++d) {
            for (size_t i = layers_[d].begin[node];; ++i) {
                const Run& run = layers_[d].runs[i];
                Total each = below(d + 1, run.child), all = each * (run.stop - run.start);
                if (index < all) {
                    // 64-bit division is many times faster, and nearly always enough.
                    bool small = all <= UINT64_MAX;
                    Total place = small ? static_cast<uint64_t>(index) / static_cast<uint64_t>(each) : index / each;
                    *rows++ = domains_[d][run.start + static_cast<uint32_t>(place)];
                    index -= place * each;
                    node = run.child;
                    break;
                }
                index -= all;
            }
        }
    }
}

bool Diagram::index(const std::vector<int64_t>& values, Total& result) const {
    result = 0;
    int32_t node = root_;
    if (node < 0) return false;
    for (size_t d = 0; d < layers_.size(); ++d) {
        uint32_t position = domains_[d].find(values[d]);
        const Layer& layer = layers_[d];
        size_t i = layer.begin[node], end = layer.begin[node + 1];
        for (; i < end && layer.runs[i].stop <= position; ++i)
            result += below(d + 1, layer.runs[i].child) * (layer.runs[i].stop - layer.runs[i].start);
        if (i == end || layer.runs[i].start > position) return false;
        result += below(d + 1, layer.runs[i].child) * (position - layer.runs[i].start);
        node = layer.runs[i].child;
    }
    return true;
}

namespace {

// Writes the solutions below one node after another; what was written once is copied.
class Writer {
public:
    Writer(const std::vector<Layer>& layers, const std::vector<Choices>& domains, const std::vector<int64_t*>& columns,
           Watch& watch)
        : layers_(layers), domains_(domains), columns_(columns), watch_(watch), placed_(layers.size()) {
        for (size_t d = 0; d < layers.size(); ++d) placed_[d].assign(layers[d].size(), UINT64_MAX);
    }

    void write(size_t d, int32_t node, uint64_t row) {
        watch_.tick();
        const Layer& layer = layers_[d];
        uint64_t& earlier = placed_[d][node];
        if (earlier != UINT64_MAX) {
            uint64_t count = static_cast<uint64_t>(layer.counts[node]);
            for (size_t c = d; c < columns_.size(); ++c)
                std::copy_n(columns_[c] + earlier, count, columns_[c] + row);
            return;
        }
        earlier = row;
        bool last = d + 1 == layers_.size();
        for (size_t i = layer.begin[node]; i < layer.begin[node + 1]; ++i) {
            const Run& run = layer.runs[i];
            uint64_t below = last ? 1 : static_cast<uint64_t>(layers_[d + 1].counts[run.child]);
            for (uint32_t position = run.start; position < run.stop; ++position, row += below) {
                std::fill_n(columns_[d] + row, below, domains_[d][position]);
                if (!last) write(d + 1, run.child, row);
            }
        }
    }

private:
    const std::vector<Layer>& layers_;
    const std::vector<Choices>& domains_;
    const std::vector<int64_t*>& columns_;
    Watch& watch_;
    std::vector<std::vector<uint64_t>> placed_;
};

}  // namespace

void Diagram::fill(const std::vector<int64_t*>& columns, Watch& watch) const {
    if (root_ >= 0) Writer(layers_, domains_, columns, watch).write(0, root_, 0);
}

void spread(const int64_t* values, uint64_t count, uint64_t inner, int64_t* column, uint64_t length, Watch& watch) {
    int64_t* place = column;
    for (uint64_t i = 0; i < count; ++i, place += inner) {
        watch.tick();
        std::fill_n(place, inner, values[i]);
    }
    // Copies of a long stretch are fastest; the stretch doubles until it fills the column.
    for (uint64_t done = count * inner; done < length; watch.tick()) {
        uint64_t chunk = std::min(done, length - done);
        std::copy_n(column, chunk, column + done);
        done += chunk;
    }
}

}  // namespace constrint
