// The least costly solution of a diagram, where the cost is a sum over its variables: the twin of Diagram.best.
#include <algorithm>

#include "diagram.hpp"

namespace constrint {

namespace {

constexpr int64_t NEVER_REACHED = INT64_MAX;

// Shortest paths from the root to each node (reach) and from each node to the end (rest).
class Paths {
public:
    Paths(const std::vector<Layer>& layers, int32_t root, const std::vector<std::vector<int64_t>>& costs, Watch& watch)
        : layers_(layers), costs_(costs), watch_(watch) {
        for (const Layer& layer : layers) {
            reach_.emplace_back(layer.size(), NEVER_REACHED);
            rest_.emplace_back(layer.size(), NEVER_REACHED);
        }
        reach_.emplace_back(1, NEVER_REACHED);
        rest_.emplace_back(1, 0);
        reach_[0][root] = 0;
        root_ = root;
        first_.assign(layers.size(), 0);
        last_.assign(layers.size(), UINT32_MAX);
        for (size_t d = layers.size(); d-- > 0;) lower(d);
        for (size_t d = 0; d < layers.size(); ++d) raise(d);
    }

    int64_t optimum() const { return rest_[0][root_]; }

    // The first (or last) position of layer d on a path of least cost; from now on the only one.
    uint32_t fix_position(size_t d, bool last) {
        uint32_t best = 0;
        bool any = false;
        each(d, [&](size_t node, const Run& run, uint32_t position, int64_t cost) {
            if (reach_[d][node] == NEVER_REACHED || rest_[d + 1][run.child] == NEVER_REACHED) return;
            if (reach_[d][node] + cost + rest_[d + 1][run.child] != optimum()) return;
            if (!any || (last ? position > best : position < best)) best = position;
            any = true;
        }, last);
        first_[d] = best;
        last_[d] = best + 1;
        for (size_t i = d + 1; i-- > 0;) lower(i);
        for (size_t i = d; i < layers_.size(); ++i) raise(i);
        return best;
    }

private:
    // Calls visit(node, run, position, cost) for every position that is left; for one of each run where all cost 0.
    template <class Visit>
    void each(size_t d, Visit visit, bool last = false) {
        const Layer& layer = layers_[d];
        for (size_t node = 0; node < layer.size(); ++node)
            for (size_t i = layer.begin[node]; i < layer.begin[node + 1]; ++i) {
                watch_.tick();
                const Run& run = layer.runs[i];
                uint32_t start = std::max(run.start, first_[d]), stop = std::min(run.stop, last_[d]);
                if (start >= stop) continue;
                if (costs_[d].empty()) {
                    visit(node, run, last ? stop - 1 : start, 0);
                    continue;
                }
                for (uint32_t position = start; position < stop; ++position) visit(node, run, position, costs_[d][position]);
            }
    }

    void lower(size_t d) {
        std::fill(rest_[d].begin(), rest_[d].end(), NEVER_REACHED);
        each(d, [&](size_t node, const Run& run, uint32_t, int64_t cost) {
            int64_t below = rest_[d + 1][run.child];
            if (below != NEVER_REACHED) rest_[d][node] = std::min(rest_[d][node], below + cost);
        });
    }

    void raise(size_t d) {
        std::fill(reach_[d + 1].begin(), reach_[d + 1].end(), NEVER_REACHED);
        each(d, [&](size_t node, const Run& run, uint32_t, int64_t cost) {
            int64_t above = reach_[d][node];
            if (above != NEVER_REACHED) reach_[d + 1][run.child] = std::min(reach_[d + 1][run.child], above + cost);
        });
    }

    const std::vector<Layer>& layers_;
    const std::vector<std::vector<int64_t>>& costs_;
    Watch& watch_;
    std::vector<std::vector<int64_t>> reach_, rest_;
    std::vector<uint32_t> first_, last_;  // positions that are left of each layer
    int32_t root_;
};

}  // namespace

int64_t Diagram::best(const std::vector<std::vector<int64_t>>& costs, const std::vector<size_t>& order,
                      const std::vector<int>& descending, std::vector<int64_t>& values, Watch& watch) const {
    Paths paths(layers_, root_, costs, watch);
    values.assign(domains_.size(), 0);
    for (size_t i = 0; i < order.size(); ++i)
        values[order[i]] = domains_[order[i]][paths.fix_position(order[i], descending[i])];
    return paths.optimum();
}

}  // namespace constrint
