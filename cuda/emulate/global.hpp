// Global memory: a copy of each array argument, far from the next, and who wrote each part of the outputs.
//
// An input may be read and not written. An output starts as 0xFF bytes (a NaN in bfloat16, float16 and float32) and may
// be written; ptx.hpp's loads go through the read-only path, so that reading what the kernel writes is a fault.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "race.hpp"

namespace tilesmith::emulate {

class GlobalMemory {
  public:
    GlobalMemory() = default;
    ~GlobalMemory() {
        if (arena_ != nullptr) munmap(arena_, arena_size_);
    }
    GlobalMemory(const GlobalMemory&) = delete;
    GlobalMemory& operator=(const GlobalMemory&) = delete;

    void add(const char* name, void* host, std::size_t bytes, bool output) {
        arrays_.push_back({name, host, nullptr, bytes, output, {}});
    }
    void add_null(const char* name) { nulls_ += (nulls_.empty() ? "" : ", ") + std::string(name); }

    /// Give every array its place and its content. Between arrays lies memory that cannot be touched.
    void place() {
        const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        const auto whole = [page](std::size_t bytes) { return (bytes + page - 1) / page * page; };
        arena_size_ = gap;
        for (const Array& array : arrays_) arena_size_ += whole(array.bytes) + gap;
        void* memory = mmap(nullptr, arena_size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        arena_ = static_cast<std::byte*>(memory);
        std::byte* next = arena_ + gap;
        for (Array& array : arrays_) {
            array.base = next;
            next += whole(array.bytes) + gap;
            if (array.bytes == 0) continue;
            if (mprotect(array.base, whole(array.bytes), PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
            if (array.output) {
                std::memset(array.base, 0xff, array.bytes);
                array.cells.resize((array.bytes + 1) / 2);
            } else {
                std::memcpy(array.base, array.host, array.bytes);
            }
        }
    }
    void* address(const std::string& name) const {
        for (const Array& array : arrays_)
            if (array.name == name) return array.base;
        return nullptr;
    }
    void copy_outputs_back() const {
        for (const Array& array : arrays_)
            if (array.output && array.bytes != 0) std::memcpy(array.host, array.base, array.bytes);
    }

    void read(const Thread& thread, const void* address, void* out, unsigned bytes, const Site& site,
              const char* verb = "reads") {
        const Access access{thread, verb, site};
        const Array& array = locate(access, address, bytes);
        if (array.output) report_output_read(access, array, address, bytes);
        std::memcpy(out, address, bytes);
    }

    void write(const Thread& thread, void* address, const void* in, unsigned bytes, const Site& site) {
        const Access access{thread, "writes", site};
        Array& array = locate(access, address, bytes);
        const auto offset = static_cast<std::size_t>(static_cast<std::byte*>(address) - array.base);
        if (!array.output)
            throw Fault{text("write to '%s', which is an input: %u bytes at offset %zu of %zu\n  ", array.name.c_str(),
                             bytes, offset, array.bytes) +
                        describe(access)};
        for (std::size_t i = offset / 2; i < (offset + bytes) / 2; ++i) {
            Cell& cell = array.cells[i];
            check_writer(access, array, cell, 2 * i);
            cell = {thread.team->number, thread.rank, thread.team->clocks.now(thread.rank), site};
        }
        std::memcpy(address, in, bytes);
    }

  private:
    static constexpr std::size_t gap = 16u << 20;

    struct Cell {
        unsigned team = 0, writer = no_thread;
        Clock written = 0;
        Site written_at;
    };
    struct Array {
        std::string name;
        void* host;
        std::byte* base;
        std::size_t bytes;
        bool output;
        std::vector<Cell> cells;
    };

    Array& locate(const Access& access, const void* address, unsigned bytes) {
        const auto* at = static_cast<const std::byte*>(address);
        for (Array& array : arrays_) {
            if (at + bytes <= array.base - gap / 2 || at >= array.base + array.bytes + gap / 2) continue;
            const auto offset = static_cast<long long>(at - array.base);
            const auto size = static_cast<long long>(array.bytes);
            if (offset < 0 || offset + bytes > size)
                throw Fault{text("out of bounds of '%s': %u bytes at offset %lld, but it has %lld bytes\n  ",
                                 array.name.c_str(), bytes, offset, size) +
                            describe(access)};
            if (offset % bytes != 0)
                throw Fault{text("misaligned access to '%s': %u bytes at offset %lld, which is no multiple of %u\n  ",
                                 array.name.c_str(), bytes, offset, bytes) +
                            describe(access)};
            return array;
        }
        if (reinterpret_cast<std::uintptr_t>(address) < gap)
            throw Fault{text("access through a null pointer (address %p; given as null: %s)\n  ", address,
                             nulls_.empty() ? "none" : nulls_.c_str()) +
                        describe(access)};
        throw Fault{text("access to %p, which is in none of the arrays\n  ", address) + describe(access)};
    }

    [[noreturn]] static void report_output_read(const Access& access, const Array& array, const void* address,
                                                unsigned bytes) {
        const auto offset = static_cast<std::size_t>(static_cast<const std::byte*>(address) - array.base);
        const Cell& cell = array.cells[offset / 2];
        throw Fault{text("read of output '%s': %u bytes at offset %zu of %zu, ", array.name.c_str(), bytes, offset,
                         array.bytes) +
                    (cell.written == 0 ? std::string("which nobody has written")
                                       : "written at " + describe(cell.written_at) +
                                             "; this load needs memory that does not change while the kernel runs") +
                    "\n  " + describe(access)};
    }

    static void check_writer(const Access& access, const Array& array, const Cell& cell, std::size_t offset) {
        if (cell.written == 0) return;
        Team& team = *access.thread.team;
        if (cell.team == team.number && team.clocks.ordered(cell.writer, cell.written, access.thread.rank)) return;
        const std::string place = text("'%s': 2 bytes at offset %zu of %zu", array.name.c_str(), offset, array.bytes);
        if (cell.team == team.number)
            report_race(place, {team.thread(cell.writer), "writes", cell.written_at}, access);
        throw Fault{"race on " + place + "\n  first:  another block writes at " + describe(cell.written_at) +
                    "\n  second: " + describe(access) +
                    "\n  nothing orders these blocks: let one alone write it"};
    }

    std::vector<Array> arrays_;
    std::string nulls_;
    std::byte* arena_ = nullptr;
    std::size_t arena_size_ = 0;
};

inline GlobalMemory* global_memory = nullptr;

}  // namespace tilesmith::emulate
