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

// Writes the solutions first .. last - 1 below one node after another; what was written once is copied.
template <class T>
class Writer {
public:
    Writer(const std::vector<Layer>& layers, const std::vector<Choices>& domains, const Columns& table, Watch& watch)
        : layers_(layers), domains_(domains), table_(table), watch_(watch), placed_(layers.size()) {
        for (void* column : table.places) columns_.push_back(static_cast<T*>(column));
        for (size_t d = 0; d < layers.size(); ++d) placed_[d].assign(layers[d].size(), UINT64_MAX);
    }

    // row: the index of the first solution below the node.
    void write(size_t d, int32_t node, uint64_t row) {
        watch_.tick();
        const Layer& layer = layers_[d];
        uint64_t first = table_.first, last = table_.first + table_.count;
        uint64_t count = static_cast<uint64_t>(layer.counts[node]);
        if (row >= first && row + count <= last) {
            uint64_t& earlier = placed_[d][node];
            if (earlier != UINT64_MAX) {
                for (size_t c = d; c < columns_.size(); ++c)
                    std::copy_n(columns_[c] + earlier, count, columns_[c] + (row - first));
                return;
            }
            earlier = row - first;
        }
        bool lowest = d + 1 == layers_.size();
        const std::vector<int64_t>& values = table_.values[d];
        for (size_t i = layer.begin[node]; i < layer.begin[node + 1]; ++i) {
            const Run& run = layer.runs[i];
            uint64_t below = lowest ? 1 : static_cast<uint64_t>(layers_[d + 1].counts[run.child]);
            uint64_t skipped = row < first ? std::min<uint64_t>((first - row) / below, run.stop - run.start) : 0;
            row += skipped * below;
            for (uint32_t p = run.start + static_cast<uint32_t>(skipped); p < run.stop; ++p, row += below) {
                if (row >= last) return;
                uint64_t from = std::max(row, first), to = std::min(row + below, last);
                T value = static_cast<T>(values.empty() ? domains_[d][p] : values[p]);
                std::fill_n(columns_[d] + (from - first), to - from, value);
                if (!lowest) write(d + 1, run.child, row);
            }
        }
    }

private:
    const std::vector<Layer>& layers_;
    const std::vector<Choices>& domains_;
    const Columns& table_;
    Watch& watch_;
    std::vector<T*> columns_;
    std::vector<std::vector<uint64_t>> placed_;
};

template <class T>
void spread_as(const T* values, uint64_t count, uint64_t inner, T* column, uint64_t length, Watch& watch) {
    T* place = column;
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

// Calls with a number of the width of a column's: function(int16_t{}) where it has two bytes.
template <class Function>
void of_width(size_t bytes, Function function) {
    if (bytes == 1) return function(int8_t{});
    if (bytes == 2) return function(int16_t{});
    if (bytes == 4) return function(int32_t{});
    function(int64_t{});
}

}  // namespace

void Diagram::fill(const Columns& table, Watch& watch) const {
    if (root_ < 0 || !table.count) return;
    of_width(table.bytes, [&](auto number) { Writer<decltype(number)>(layers_, domains_, table, watch).write(0, root_, 0); });
}

void spread(const void* values, uint64_t count, uint64_t inner, void* column, uint64_t length, size_t bytes,
            Watch& watch) {
    of_width(bytes, [&](auto number) {
        using T = decltype(number);
        spread_as(static_cast<const T*>(values), count, inner, static_cast<T*>(column), length, watch);
    });
}

}  // namespace constrint
