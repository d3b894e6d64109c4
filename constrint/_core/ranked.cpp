#include "ranked.hpp"

#include <algorithm>
#include <numeric>

namespace constrint {

namespace {

constexpr int64_t FREE = -1;

// A diagram of which some layers are held at one position.
class Held {
public:
    explicit Held(const Diagram& diagram) : layers_(diagram.layers()), held_(layers_.size(), FREE) {
        for (const Layer& layer : layers_) reach_.emplace_back(layer.size());
        reach_.emplace_back(1);
        rest_ = reach_;
        if (!layers_.empty()) reach_[0][diagram.root()] = 1;
    }
    void hold(size_t d, int64_t position) { held_[d] = position; }

    // How many solutions are left with each position of a layer that is not held.
    void count(size_t d, std::vector<uint64_t>& counts, Watch& watch) {
        counts.assign(counts.size(), 0);
        size_t last = layers_.size();
        while (last > d + 1 && held_[last - 1] == FREE) --last;
        for (size_t l = 0; l + 1 < last; ++l) forward(l, watch);
        for (size_t l = last; l-- > d + 1;) backward(l, l + 1 == last, watch);
        const Layer& layer = layers_[d];
        for (size_t n = 0; n < layer.size(); ++n) {
            if (!reach_[d][n]) continue;
            for (size_t i = layer.begin[n]; i < layer.begin[n + 1]; ++i) {
                const Run& run = layer.runs[i];
                uint64_t each = reach_[d][n] * below(d + 1, run.child, d + 1 == last);
                for (uint32_t p = run.start; p < run.stop; ++p) counts[p] += each;
            }
        }
    }

private:
    // How many of a run's positions are left.
    uint64_t left(size_t d, const Run& run) const {
        if (held_[d] == FREE) return run.stop - run.start;
        return held_[d] >= run.start && held_[d] < run.stop;
    }
    // free: whether nothing is held from this layer on.
    uint64_t below(size_t d, int32_t node, bool free) const {
        if (!free) return rest_[d][node];
        return d < layers_.size() ? static_cast<uint64_t>(layers_[d].counts[node]) : 1;
    }
    // In how many ways the nodes of the next layer are reached.
    void forward(size_t d, Watch& watch) {
        const Layer& layer = layers_[d];
        reach_[d + 1].assign(reach_[d + 1].size(), 0);
        for (size_t n = 0; n < layer.size(); ++n) {
            if (!reach_[d][n]) continue;
            watch.tick();
            for (size_t i = layer.begin[n]; i < layer.begin[n + 1]; ++i)
                reach_[d + 1][layer.runs[i].child] += reach_[d][n] * left(d, layer.runs[i]);
        }
    }
    // In how many ways the nodes of a layer go on, of those that are reached.
    void backward(size_t d, bool free, Watch& watch) {
        const Layer& layer = layers_[d];
        for (size_t n = 0; n < layer.size(); ++n) {
            if (!reach_[d][n]) continue;
            watch.tick();
            uint64_t total = 0;
            for (size_t i = layer.begin[n]; i < layer.begin[n + 1]; ++i)
                if (uint64_t positions = left(d, layer.runs[i]))
                    total += positions * below(d + 1, layer.runs[i].child, free);
            rest_[d][n] = total;
        }
    }

    const std::vector<Layer>& layers_;
    std::vector<int64_t> held_;
    std::vector<std::vector<uint64_t>> reach_, rest_;
};

// Goes down the tree of all solutions, one turn a level, to where ranks are.
class Descent {
public:
    Descent(const std::vector<const Diagram*>& factors, const std::vector<Turn>& turns,
            const std::vector<uint64_t>& ranks, Watch& watch)
        : turns_(turns), ranks_(ranks), watch_(watch), places_(sorted(ranks.size(), [&](size_t a, size_t b) {
              return ranks[a] < ranks[b];
          })) {
        for (const Diagram* diagram : factors) {
            held_.emplace_back(*diagram);
            totals_.push_back(static_cast<uint64_t>(diagram->total()));
            whole_ *= totals_.back();
        }
        for (const Turn& turn : turns) {
            orders_.push_back(sorted(turn.numbers.size(), [&](size_t a, size_t b) {
                return turn.numbers[a] > turn.numbers[b];
            }));
            counts_.emplace_back(turn.numbers.size());
        }
    }
    std::vector<int64_t> columns() {
        columns_.resize(ranks_.size() * turns_.size());
        down(0, 0, ranks_.size(), 0, whole_);
        return std::move(columns_);
    }

private:
    template <class Before>
    static std::vector<size_t> sorted(size_t count, Before before) {
        std::vector<size_t> places(count);
        std::iota(places.begin(), places.end(), size_t{0});
        std::sort(places.begin(), places.end(), before);
        return places;
    }

    // The ranks first .. last - 1, in ascending order, lie below; the first solution there has rank ``start``, and there
    // are ``whole``.
    void down(size_t k, size_t first, size_t last, uint64_t start, uint64_t whole) {
        if (k == turns_.size() || first == last) return;
        const Turn& turn = turns_[k];
        uint64_t total = totals_[turn.factor], others = whole / total;
        if (turn.numbers.size() == 1)
            counts_[k][0] = total;
        else
            held_[turn.factor].count(turn.layer, counts_[k], watch_);
        for (size_t position : orders_[k]) {
            uint64_t below = counts_[k][position] * others;
            size_t stop = first;
            for (; stop < last && ranks_[places_[stop]] - start < below; ++stop)
                columns_[k * ranks_.size() + places_[stop]] = turn.numbers[position];
            if (stop > first) {
                held_[turn.factor].hold(turn.layer, static_cast<int64_t>(position));
                totals_[turn.factor] = counts_[k][position];
                down(k + 1, first, stop, start, below);
            }
            start += below;
            first = stop;
            if (first == last) break;
        }
        held_[turn.factor].hold(turn.layer, FREE);
        totals_[turn.factor] = total;
    }

    const std::vector<Turn>& turns_;
    const std::vector<uint64_t>& ranks_;
    Watch& watch_;
    std::vector<size_t> places_;
    std::vector<std::vector<size_t>> orders_;
    std::vector<Held> held_;
    std::vector<uint64_t> totals_;  // of each diagram, what is left
    uint64_t whole_ = 1;
    std::vector<std::vector<uint64_t>> counts_;
    std::vector<int64_t> columns_;
};

}  // namespace

std::vector<int64_t> ranked(const std::vector<const Diagram*>& factors, const std::vector<Turn>& turns,
                            const std::vector<uint64_t>& ranks, Watch& watch) {
    return Descent(factors, turns, ranks, watch).columns();
}

}  // namespace constrint
