#include "state.hpp"

#include <algorithm>

namespace constrint {

namespace {
void set(uint64_t* words, size_t bit) { words[bit / 64] |= uint64_t{1} << (bit % 64); }

constexpr int REVISIONS_PER_CONSTRAINT = 50;  // as in propagate.py
}

bool Table::contains(const int64_t* row) const {
    size_t first = 0, last = count(), n = width();
    while (first < last) {
        size_t middle = (first + last) / 2;
        const int64_t* other = rows.data() + middle * n;
        if (std::lexicographical_compare(other, other + n, row, row + n))
            first = middle + 1;
        else
            last = middle;
    }
    return first < count() && std::equal(row, row + n, rows.data() + first * n);
}

State::State(std::vector<Domain> given, std::vector<Code> given_codes, std::vector<Rule> rules)
    : domains(std::move(given)), codes(std::move(given_codes)), watch_(domains.size()), queued_(codes.size()),
      entailed_(codes.size()), rules_(std::move(rules)), ruled_(domains.size()), waits_(rules_.size()) {
    for (size_t rule = 0; rule < rules_.size(); ++rule)
        for (int v : rules_[rule].variables) ruled_[v].push_back(static_cast<int>(rule));
    size_t words = 0, nodes = 0, widest = 1;
    for (Domain& domain : domains) {
        low.push_back(domain.low);
        high.push_back(domain.high);
        domain.first_word = words;
        words += domain.words();
        for (size_t i = 0; i < domain.words(); ++i) {
            size_t left = domain.values.size() - i * 64;
            mask_.push_back(left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1);
        }
    }
    for (size_t number = 0; number < codes.size(); ++number) {
        nodes = std::max(nodes, codes[number].ops.size());
        for (int v : codes[number].variables) watch_[v].push_back(static_cast<int>(number));
        for (const Table& table : codes[number].tables) widest = std::max(widest, table.width());
    }
    spans_.resize(nodes);
    bounds_.resize(nodes);
    required_.resize(nodes);
    multiple_.resize(nodes);
    wanted_.resize(nodes);
    point_.resize(nodes);
    undefined_.resize(nodes);
    row_.resize(widest);
    active = static_cast<int>(codes.size());
}

bool State::start(int permanent) {
    undo(0);
    permanent_ = permanent;
    for (size_t number = 0; number < codes.size(); ++number) schedule(static_cast<int>(number));
    return propagate();
}

uint64_t State::size(int v) const {
    const Domain& domain = domains[v];
    if (!domain.listed()) return static_cast<uint64_t>((high[v] - low[v]) / domain.step) + 1;
    uint64_t total = 0;
    for (size_t i = 0; i < domain.words(); ++i) total += __builtin_popcountll(mask_[domain.first_word + i]);
    return total;
}

std::vector<int64_t> State::current(int v) const {
    const Domain& domain = domains[v];
    std::vector<int64_t> result;
    if (!domain.listed()) {
        for (int64_t x = low[v]; x <= high[v]; x += domain.step) result.push_back(x);
        return result;
    }
    for (size_t i = 0; i < domain.words(); ++i)
        for (uint64_t rest = mask_[domain.first_word + i]; rest; rest &= rest - 1)
            result.push_back(domain.values[i * 64 + __builtin_ctzll(rest)]);
    return result;
}

void State::save(int v) {
    const Domain& domain = domains[v];
    trail_.push_back({v, low[v], high[v], saved_.size()});
    saved_.insert(saved_.end(), mask_.begin() + domain.first_word, mask_.begin() + domain.first_word + domain.words());
    if (!width_) return;
    auto reasons = why_.begin() + v * width_;
    saved_.insert(saved_.end(), reasons, reasons + width_);
    if (reviser_ >= 0 && !explained_) {
        reason_ = explain(reviser_);
        explained_ = true;
    }
    for (size_t i = 0; i < width_; ++i) reasons[i] |= reason_[i];
}

void State::track(size_t sources, std::vector<int> source, const std::vector<std::vector<int>>& initial) {
    sources_ = sources;
    source_ = std::move(source);
    width_ = (sources + LEVELS + 63) / 64;
    why_.assign(domains.size() * width_, 0);
    for (size_t v = 0; v < initial.size(); ++v)
        for (int number : initial[v]) set(why_.data() + v * width_, number);
    reason_.assign(width_, 0);
}

Reasons State::explain(int number) const {
    Reasons result(width_, 0);
    if (static_cast<size_t>(number) < codes.size())
        set(result.data(), source_[number]);
    else
        for (int source : rules_[number - codes.size()].why) set(result.data(), source);
    for (int v : scope(number))
        for (size_t i = 0; i < width_; ++i) result[i] |= why_[v * width_ + i];
    return result;
}

Reasons State::why(int v) const { return Reasons(why_.begin() + v * width_, why_.begin() + (v + 1) * width_); }

bool State::decide(int v, int64_t least, int64_t most, int level) {
    reviser_ = -1;
    std::fill(reason_.begin(), reason_.end(), 0);
    if (level >= 0) set(reason_.data(), level_bit(level));
    return restrict(v, least, most);
}

void State::changed(int v) {
    for (int number : watch_[v]) schedule(number);
    for (int rule : ruled_[v])
        if (!waits_[rule]) {
            waits_[rule] = 1;
            waiting_.push_back(rule);
        }
}

void State::schedule(int number) {
    if (!queued_[number] && !entailed_[number]) {
        queued_[number] = 1;
        queue_.push_back(number);
    }
}

void State::undo(size_t mark) {
    while (trail_.size() > mark) {
        Change change = trail_.back();
        trail_.pop_back();
        if (change.v < 0) {
            entailed_[-change.v - 1] = 0;
            ++active;
            continue;
        }
        low[change.v] = change.low;
        high[change.v] = change.high;
        auto from = saved_.begin() + change.words, reasons = from + domains[change.v].words();
        std::copy(from, reasons, mask_.begin() + domains[change.v].first_word);
        std::copy(reasons, saved_.end(), why_.begin() + change.v * width_);
        saved_.resize(change.words);
    }
    for (int number : queue_) queued_[number] = 0;
    queue_.clear();
    for (int rule : waiting_) waits_[rule] = 0;
    waiting_.clear();
}

void State::refresh(int v) {
    const Domain& domain = domains[v];
    const uint64_t* words = mask_.data() + domain.first_word;
    size_t i = 0, j = domain.words() - 1;
    while (!words[i]) ++i;
    while (!words[j]) --j;
    low[v] = domain.values[i * 64 + __builtin_ctzll(words[i])];
    high[v] = domain.values[j * 64 + 63 - __builtin_clzll(words[j])];
}

bool State::restrict(int v, int64_t least, int64_t most) {
    if (least <= low[v] && most >= high[v]) return true;
    const Domain& domain = domains[v];
    if (!domain.listed()) {
        int64_t first = low[v];
        int64_t new_low = first + ceil_div(std::max(least, first) - first, domain.step) * domain.step;
        int64_t new_high = first + floor_div(std::min(high[v], most) - first, domain.step) * domain.step;
        if (new_low > new_high) return false;
        save(v);
        low[v] = new_low;
        high[v] = new_high;
        changed(v);
        return true;
    }
    size_t start = std::lower_bound(domain.values.begin(), domain.values.end(), least) - domain.values.begin();
    size_t stop = std::upper_bound(domain.values.begin(), domain.values.end(), most) - domain.values.begin();
    if (start >= stop) return false;
    scratch_.assign(domain.words(), 0);
    bool any = false;
    for (size_t i = start / 64; i <= (stop - 1) / 64; ++i) {
        uint64_t word = mask_[domain.first_word + i];
        if (i == start / 64) word &= ~uint64_t{0} << (start % 64);
        if (i == (stop - 1) / 64 && stop % 64) word &= (uint64_t{1} << (stop % 64)) - 1;
        scratch_[i] = word;
        any |= word != 0;
    }
    return any && keep(v, scratch_);
}

// Replace the mask of a listed variable by a subset of it; false where it is empty.
bool State::keep(int v, const std::vector<uint64_t>& mask) {
    const Domain& domain = domains[v];
    auto begin = mask_.begin() + domain.first_word;
    if (std::none_of(mask.begin(), mask.end(), [](uint64_t word) { return word != 0; })) return false;
    if (std::equal(mask.begin(), mask.end(), begin)) return true;
    save(v);
    std::copy(mask.begin(), mask.end(), begin);
    refresh(v);
    changed(v);
    return true;
}

bool State::all_decided(int number) const {
    const auto& scope = codes[number].variables;
    return std::all_of(scope.begin(), scope.end(), [&](int v) { return decided(v); });
}

bool State::propagate() {
    while (revise_all()) {
        if (waiting_.empty()) return true;
        int rule = waiting_.back();
        waiting_.pop_back();
        waits_[rule] = 0;
        if (!apply(rule)) return false;
    }
    return false;
}

// As propagate, without the rules.
bool State::revise_all() {
    int64_t budget = REVISIONS_PER_CONSTRAINT * (static_cast<int64_t>(codes.size()) + 1);
    for (size_t position = 0; position < queue_.size(); ++position) {
        int number = queue_[position];
        queued_[number] = 0;
        if (entailed_[number]) continue;
        if (clock_) clock_->work();
        if (!revise(number)) return false;
        if (--budget < 0) {
            // Only constraints with something left to decide may be put off: a decided one must be tested.
            std::vector<int> rest(queue_.begin() + position + 1, queue_.end());
            for (int other : rest) queued_[other] = 0;
            queue_.clear();
            for (int other : rest)
                if (!entailed_[other] && all_decided(other) && !revise(other)) return false;
            return true;
        }
    }
    queue_.clear();
    return true;
}

void State::entail(int number) {
    if (number == permanent_) return;
    entailed_[number] = 1;
    --active;
    trail_.push_back({-number - 1, 0, 0, saved_.size()});
}

}  // namespace constrint
