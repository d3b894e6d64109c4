#include "diagram.hpp"

#include <algorithm>
#include <unordered_map>

namespace constrint {

namespace {

constexpr uint32_t SPLIT_ABOVE = 64;  // as in diagram.py
// Stands in a constraint's first slot once it holds whatever follows.
constexpr int64_t HELD = INT64_MIN + 1;

uint64_t mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0xff51afd7ed558ccdu;
    return hash ^ (hash >> 32);
}

Total times(Total a, Total b) {
    Total result;
    if (__builtin_mul_overflow(a, b, &result)) throw DiagramOverflow{};
    return result;
}

Total plus(Total a, Total b) {
    Total result;
    if (__builtin_add_overflow(a, b, &result)) throw DiagramOverflow{};
    return result;
}

}  // namespace

Watch::Watch(double seconds, std::function<void()> interrupt) : interrupt_(std::move(interrupt)), limited_(seconds >= 0) {
    if (limited_)
        deadline_ = std::chrono::steady_clock::now() +
                    std::chrono::microseconds(static_cast<int64_t>(std::min(seconds, 1e9) * 1e6));
    look();
}

void Watch::look() {
    if ((limited_ && std::chrono::steady_clock::now() > deadline_) || race_over()) throw DiagramTimeLimit{};
    if (ticks_ % 65536 == 0) interrupt_();
}

uint32_t Choices::find(int64_t value) const {
    if (values.empty()) {
        __int128 distance = static_cast<__int128>(value) - low;
        return distance < 0 || distance % step || distance / step >= count ? count : static_cast<uint32_t>(distance / step);
    }
    auto place = std::lower_bound(values.begin(), values.end(), value);
    return place == values.end() || *place != value ? count : static_cast<uint32_t>(place - values.begin());
}

// The states before one depth: slots of all constraints, each state once, in order of discovery.
struct Diagram::States {
    explicit States(size_t slots) : width(slots), table(64, -1) {}

    int32_t find(const int64_t* key) {
        uint64_t hash = 0x9e3779b97f4a7c15u;
        for (size_t i = 0; i < width; ++i) hash = mix(hash, static_cast<uint64_t>(key[i]));
        size_t place = hash & (table.size() - 1);
        while (table[place] >= 0) {
            if (hashes[table[place]] == hash && std::equal(key, key + width, slots.data() + table[place] * width))
                return table[place];
            place = (place + 1) & (table.size() - 1);
        }
        if (count == INT32_MAX) throw TooLarge{};
        table[place] = static_cast<int32_t>(count++);
        hashes.push_back(hash);
        slots.insert(slots.end(), key, key + width);
        if (count * 2 > table.size()) grow();
        return static_cast<int32_t>(count) - 1;
    }

    void grow() {
        table.assign(table.size() * 4, -1);
        for (size_t i = 0; i < count; ++i) {
            size_t place = hashes[i] & (table.size() - 1);
            while (table[place] >= 0) place = (place + 1) & (table.size() - 1);
            table[place] = static_cast<int32_t>(i);
        }
    }

    size_t width, count = 0;
    std::vector<int32_t> table;
    std::vector<uint64_t> hashes;
    std::vector<int64_t> slots;
};

Diagram::Diagram(std::vector<Layers> constraints, std::vector<Choices> domains, uint64_t limit, Watch& watch)
    : constraints_(std::move(constraints)), domains_(std::move(domains)), limit_(limit) {
    size_t depths = domains_.size();
    for (size_t d = 0; d <= depths; ++d) {
        size_t width = 0;
        offset_.emplace_back();
        for (const Layers& constraint : constraints_) {
            offset_[d].push_back(width);
            width += constraint.width(static_cast<int>(d));
        }
        width_.push_back(width);
    }
    States states(0);
    int64_t none = 0;
    states.find(&none);
    std::vector<Layer> raw(depths);
    for (size_t d = 0; d < depths; ++d) {
        States next(width_[d + 1]);
        runs_ = &raw[d].runs;
        for (size_t n = 0; n < states.count; ++n) {
            expand(d, states.slots.data() + n * states.width, next, watch);
            raw[d].begin.push_back(raw[d].runs.size());
        }
        states = std::move(next);
    }
    reduce(raw, watch);
}

Diagram::Diagram(std::vector<Choices> domains, std::vector<Layer> layers, int32_t root, uint64_t steps)
    : domains_(std::move(domains)), layers_(std::move(layers)), root_(root), steps_(steps) {
    bool valid = layers_.size() == domains_.size();
    for (size_t d = layers_.size(); valid && d-- > 0;) {
        Layer& layer = layers_[d];
        size_t below_count = d + 1 < layers_.size() ? layers_[d + 1].size() : 1;
        valid = layer.begin.front() == 0 && layer.begin.back() == layer.runs.size() &&
                std::is_sorted(layer.begin.begin(), layer.begin.end());
        layer.counts.clear();
        for (size_t n = 0; valid && n < layer.size(); ++n) {
            Total count = 0;
            for (size_t i = layer.begin[n]; i < layer.begin[n + 1]; ++i) {
                const Run& run = layer.runs[i];
                valid = valid && run.start < run.stop && run.stop <= domains_[d].count && run.child >= 0 &&
                        static_cast<size_t>(run.child) < below_count;
                if (valid) count = plus(count, times(run.stop - run.start, below(d + 1, run.child)));
            }
            layer.counts.push_back(count);
        }
    }
    if (!valid || (root_ >= 0 && !layers_.empty() && static_cast<size_t>(root_) >= layers_.front().size()))
        throw std::invalid_argument("these are not the layers of a diagram");
}

void Diagram::expand(size_t d, const int64_t* slots, States& next, Watch& watch) {
    parent_ = slots;
    first_run_ = runs_->size();
    alive_.clear();
    inherited_.assign(width_[d + 1], 0);
    int depth = static_cast<int>(d);
    for (size_t number = 0; number < constraints_.size(); ++number) {
        Layers& constraint = constraints_[number];
        if (depth < constraint.first_depth() || depth > constraint.last_depth()) continue;
        const int64_t* own = slots + offset_[d][number];
        bool held = constraint.width(depth) && own[0] == HELD;
        if (constraint.names(depth) && !held) {
            constraint.load(depth, own);
            alive_.push_back(static_cast<int>(number));
        } else if (size_t width = constraint.width(depth + 1)) {
            int64_t* target = inherited_.data() + offset_[d + 1][number];
            if (held)
                *target = HELD;
            else
                std::copy(own, own + width, target);
        }
    }
    bool supported = false;
    for (int number : alive_)
        if (constraints_[number].support(depth, scratch_) && (!supported || scratch_.size() < values_.size())) {
            supported = true;
            values_.swap(scratch_);
        }
    if (!supported) return range(d, 0, domains_[d].count, next, watch);
    for (int64_t value : values_) {
        uint32_t position = domains_[d].find(value);
        if (position < domains_[d].count) single(d, position, next, watch);
    }
}

// Positions start .. stop - 1 of the variable of depth d.
void Diagram::range(size_t d, uint32_t start, uint32_t stop, States& next, Watch& watch) {
    const Choices& domain = domains_[d];
    int depth = static_cast<int>(d);
    if (alive_.empty() || stop - start > SPLIT_ABOVE) {
        step(watch);
        bool decided = true;
        key_ = inherited_;
        for (int number : alive_) {
            int bits = constraints_[number].over(depth, domain[start], domain[stop - 1]);
            if (!(bits & T)) return;
            decided = decided && bits == T;
            if (constraints_[number].width(depth + 1)) key_[offset_[d + 1][number]] = HELD;
        }
        if (decided) return reach(d, start, stop, next);
        uint32_t middle = start + (stop - start) / 2;
        range(d, start, middle, next, watch);
        range(d, middle, stop, next, watch);
        return;
    }
    for (uint32_t position = start; position < stop; ++position) single(d, position, next, watch);
}

// One value of the variable of depth d.
void Diagram::single(size_t d, uint32_t position, States& next, Watch& watch) {
    int depth = static_cast<int>(d);
    step(watch);
    key_ = inherited_;
    for (int number : alive_) {
        int64_t* own = key_.data() + offset_[d + 1][number];
        Layers::Outcome outcome = constraints_[number].step(depth, domains_[d][position], own);
        if (outcome == Layers::HOLDS && constraints_[number].width(depth + 1)) *own = HELD;
        if (outcome == Layers::FAILS) return;
    }
    reach(d, position, position + 1, next);
}

void Diagram::reach(size_t, uint32_t start, uint32_t stop, States& next) {
    int32_t child = next.find(key_.data());
    if (runs_->size() > first_run_ && runs_->back().stop == start && runs_->back().child == child)
        runs_->back().stop = stop;
    else
        runs_->push_back({start, stop, child});
}

void Diagram::step(Watch& watch) {
    if (++steps_ > limit_) throw TooLarge{};
    watch.tick();
}

// From the last layer up: drop dead ends, join nodes with the same runs, count.
void Diagram::reduce(std::vector<Layer>& raw, Watch& watch) {
    std::vector<int32_t> renamed{0};
    layers_.resize(raw.size());
    for (size_t d = raw.size(); d-- > 0;) {
        Layer& layer = layers_[d];
        std::vector<int32_t> names;
        std::unordered_multimap<uint64_t, int32_t> known;
        for (size_t n = 0; n < raw[d].size(); ++n) {
            watch.tick();
            size_t first = layer.runs.size();
            uint64_t hash = 0x9e3779b97f4a7c15u;
            for (size_t i = raw[d].begin[n]; i < raw[d].begin[n + 1]; ++i) {
                Run run = raw[d].runs[i];
                run.child = renamed[run.child];
                if (run.child < 0) continue;
                if (layer.runs.size() > first && layer.runs.back().stop == run.start && layer.runs.back().child == run.child)
                    layer.runs.back().stop = run.stop;
                else
                    layer.runs.push_back(run);
            }
            Total count = 0;
            for (size_t i = first; i < layer.runs.size(); ++i) {
                const Run& run = layer.runs[i];
                hash = mix(mix(hash, run.start), static_cast<uint64_t>(run.stop) << 32 | static_cast<uint32_t>(run.child));
                count = plus(count, times(run.stop - run.start, below(d + 1, run.child)));
            }
            int32_t name = layer.runs.size() == first ? -1 : static_cast<int32_t>(layer.size());
            if (name >= 0) {
                auto [low, high] = known.equal_range(hash);
                for (auto it = low; it != high; ++it) {
                    size_t begin = layer.begin[it->second], end = layer.begin[it->second + 1];
                    if (std::equal(layer.runs.begin() + first, layer.runs.end(), layer.runs.begin() + begin,
                                   layer.runs.begin() + end))
                        name = it->second;
                }
                if (name == static_cast<int32_t>(layer.size())) {
                    known.emplace(hash, name);
                    layer.begin.push_back(layer.runs.size());
                    layer.counts.push_back(count);
                } else {
                    layer.runs.resize(first);
                }
            }
            names.push_back(name);
        }
        raw[d] = {};
        layer.runs.shrink_to_fit();
        renamed = std::move(names);
    }
    root_ = renamed[0];
}

bool Diagram::trim() {
    bool changed = false;
    for (size_t d = 0; root_ >= 0 && d < layers_.size(); ++d) {
        Choices& own = domains_[d];
        std::vector<Run>& runs = layers_[d].runs;
        uint32_t first = own.count, last = 0;
        for (const Run& run : runs) first = std::min(first, run.start), last = std::max(last, run.stop);
        if (own.values.empty()) {
            if (first == 0 && last == own.count) continue;
            for (Run& run : runs) run.start -= first, run.stop -= first;
            own.low += own.step * first;
            own.count = last - first;
        } else {
            // Of each position, whether some run holds it, then how many before it are held.
            std::vector<int64_t> opened(own.count + 1, 0);
            for (const Run& run : runs) ++opened[run.start], --opened[run.stop];
            std::vector<int64_t> values;
            std::vector<uint32_t> place;
            int64_t open = 0;
            for (uint32_t i = 0; i <= own.count; ++i) {
                place.push_back(static_cast<uint32_t>(values.size()));
                open += opened[i];
                if (open) values.push_back(own.values[i]);
            }
            if (values.size() == own.count) continue;
            for (Run& run : runs) run.start = place[run.start], run.stop = place[run.stop];
            own.count = static_cast<uint32_t>(values.size());
            own.values = std::move(values);
        }
        changed = true;
    }
    return changed;
}

size_t Diagram::size() const {
    size_t total = 0;
    for (const Layer& layer : layers_) total += layer.size();
    return total;
}

}  // namespace constrint
