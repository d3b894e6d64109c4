// A fault of the kernel, and the words to report it in.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "calls.hpp"

namespace tilesmith::emulate {

/// Thrown in the thread that is at fault, caught where its fiber began; the run then ends.
struct Fault {
    std::string report;
};

__attribute__((format(printf, 1, 2))) inline std::string text(const char* format, ...) {
    char line[1024];
    va_list values;
    va_start(values, format);
    std::vsnprintf(line, sizeof line, format, values);
    va_end(values);
    return line;
}

inline bool same(const Site& a, const Site& b) {
    return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

/// "resident.cuh:120"
inline std::string describe(const Site& site) {
    const char* slash = std::strrchr(site.file_name(), '/');
    return text("%s:%u", slash ? slash + 1 : site.file_name(), static_cast<unsigned>(site.line()));
}

/// "0-31, 40" of an ascending list.
inline std::string ranges(const std::vector<unsigned>& numbers) {
    std::string out;
    for (std::size_t first = 0; first < numbers.size();) {
        std::size_t last = first;
        while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
        out += text(first == 0 ? "%u" : ", %u", numbers[first]);
        if (last > first) out += text("-%u", numbers[last]);
        first = last + 1;
    }
    return out;
}

/// "thread 7" or "threads 0-31, 40"
inline std::string threads_text(const std::vector<unsigned>& numbers) {
    return (numbers.size() == 1 ? "thread " : "threads ") + ranges(numbers);
}

}  // namespace tilesmith::emulate
