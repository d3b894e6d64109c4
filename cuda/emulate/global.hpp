// Global memory: each array argument, far from the next, and who wrote each part of the outputs.
//
// Addresses are numbers that no memory lies behind: every access comes through here, and a pointer used directly traps.
// An array may be larger than what exists of it, so that a kernel's arithmetic meets offsets beyond 32 bits; then
// every access must fall into the parts that exist.
//
// An input may be read and not written. An output starts as 0xFF bytes (a NaN in bfloat16, float16 and float32) and may
// be written; ptx.hpp's loads go through the read-only path, so that reading what the kernel writes is a fault.
//
// An array of mail starts as poison and is for messages alone (mailbox.hpp), between blocks that run at the same time; and so
// are counters. What blocks store for each other may be loaded in the ways that see it (stored.hpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "mailbox.hpp"
#include "stored.hpp"

namespace tilesmith::emulate {

/// What exists of an array of `extent` bytes: in every `stride` bytes of it `window` bytes, from `first` on. They lie one
/// after another in the host's memory.
struct Windows {
    std::uint64_t extent, first, window, stride;

    std::uint64_t bytes() const { return stride == 0 ? 0 : extent / stride * window; }
    bool contain(std::uint64_t offset, unsigned bytes) const {
        return offset % stride >= first && offset % stride + bytes <= first + window;
    }
    /// Where an offset that exists lies in the host's memory.
    std::uint64_t place(std::uint64_t offset) const { return offset / stride * window + offset % stride - first; }
};

class GlobalMemory {
    /// Names a word, if it comes to that.
    struct Where {
        const std::string& array;
        std::uint64_t offset;
        std::string operator()() const { return text("the word of '%s' at offset %zu", array.c_str(), std::size_t{offset}); }
    };

  public:
    enum class Kind { input, output, mail, counters, stored, begun };

    GlobalMemory() = default;
    GlobalMemory(const GlobalMemory&) = delete;
    GlobalMemory& operator=(const GlobalMemory&) = delete;

    void add(const char* name, void* host, const Windows& windows, Kind kind) {
        const bool output = kind != Kind::input;
        Array array{name, static_cast<std::byte*>(host), nullptr, next_, windows, output};
        if (kind == Kind::mail) {
            array.boxes.resize((windows.bytes() + 3) / 4);
            for (Mailbox& box : array.boxes) box.state = Mailbox::State::poisoned;
        }
        if (kind == Kind::counters) array.counters.resize((windows.bytes() + 3) / 4);
        if (kind == Kind::stored) array.stored.resize((windows.bytes() + 1) / 2);
        next_ += (windows.extent + gap - 1) / gap * gap + gap;
        if (output) {
            array.written.assign(windows.bytes(), std::byte{0xff});
            if (kind == Kind::begun) std::memcpy(array.written.data(), host, windows.bytes());
            if (kind == Kind::output || kind == Kind::begun) array.cells.resize((windows.bytes() + 1) / 2);
            array.begun = kind == Kind::begun;
        }
        arrays_.push_back(std::move(array));
        arrays_.back().content = output ? arrays_.back().written.data() : arrays_.back().host;
    }
    void add_null(const char* name) { nulls_ += (nulls_.empty() ? "" : ", ") + std::string(name); }

    void* address(const std::string& name) const {
        for (const Array& array : arrays_)
            if (array.name == name) return reinterpret_cast<void*>(array.base);
        return nullptr;
    }
    void copy_outputs_back() const {
        for (const Array& array : arrays_)
            if (array.output && !array.written.empty()) std::memcpy(array.host, array.content, array.written.size());
    }

    void read(const Thread& thread, const void* address, void* out, unsigned bytes, const Site& site,
              const char* verb = "reads") {
        const Access access{thread, verb, site};
        const Array& array = locate(access, address, bytes);
        const std::uint64_t offset = offset_in(array, address);
        refuse_special(access, array, offset);
        if (!array.stored.empty())
            throw Fault{"read of " + place_of(array, offset)() + ", which the kernel writes, by a load for memory that does "
                        "not change\n  " + describe(access)};
        if (array.output) report_output_read(access, array, offset, bytes);
        std::memcpy(out, array.content + array.windows.place(offset), bytes);
    }

    /// Read what the kernel has stored, by a load that may find it in the cache of the multiprocessor, or by way of L2.
    void read_stored(const Thread& thread, const void* address, void* out, unsigned bytes, bool cached, const Site& site) {
        const Access access{thread, "reads", site};
        Array& array = locate(access, address, bytes);
        const std::uint64_t offset = offset_in(array, address);
        if (array.begun) {
            read_begun(access, array, offset, bytes);
            std::memcpy(out, array.content + array.windows.place(offset), bytes);
            return;
        }
        for (unsigned i = 0; i < bytes / 2; ++i) {
            StoredCell& cell = stored_cell(access, array, offset + 2 * i);
            cell.check_read(access, place_of(array, offset + 2 * i));
            if (cached && cell.written.thread->block != thread.block)
                throw Fault{"read of " + place_of(array, offset)() + ", which another block writes\n  " + describe(access) +
                            "\n  it must come by way of L2: by cp_async<16> or load_sent_128"};
            cell.add_reader(access);
        }
        std::memcpy(out, array.content + offset, bytes);
    }

    /// An asynchronous copy reads.
    void begin_copy(const Thread& thread, const void* address, void* out, unsigned bytes, const Site& site) {
        const Access access{thread, "copies (cp_async)", site};
        Array& array = locate(access, address, bytes);
        if (array.stored.empty()) return read(thread, address, out, bytes, site, access.verb);
        const std::uint64_t offset = offset_in(array, address);
        if (bytes != 16)
            throw Fault{text("a copy of %u bytes from ", bytes) + place_of(array, offset)() +
                        ", which the kernel writes\n  " + describe(access) +
                        "\n  one of fewer than 16 bytes may find an older value in the cache of the multiprocessor"};
        for (unsigned i = 0; i < bytes / 2; ++i) {
            StoredCell& cell = stored_cell(access, array, offset + 2 * i);
            cell.check_read(access, place_of(array, offset + 2 * i));
            ++cell.copies;
        }
        std::memcpy(out, array.content + offset, bytes);
    }

    /// It has landed.
    void end_copy(const Thread& thread, const void* address, unsigned bytes, const Site& site) {
        const Access access{thread, "copies (cp_async)", site};
        Array& array = locate(access, address, bytes);
        if (array.stored.empty()) return;
        for (unsigned i = 0; i < bytes / 2; ++i) {
            StoredCell& cell = stored_cell(access, array, offset_in(array, address) + 2 * i);
            --cell.copies;
            cell.add_reader(access);
        }
    }

    /// A bulk copy reads, of which the thread's warp knew `fenced` when it made what is stored known to such copies.
    void begin_bulk(const Thread& thread, const void* address, std::vector<std::byte>& out, const Site& site) {
        const Access access{thread, "copies in bulk", site};
        for (unsigned at = 0; at < out.size(); at += 16) {
            const void* const from = static_cast<const std::byte*>(address) + at;
            begin_copy(thread, from, out.data() + at, 16, site);
            Array& array = locate(access, from, 16);
            const std::uint64_t offset = offset_in(array, from);
            for (unsigned i = 0; i < 8 && !array.stored.empty(); ++i)
                if (!stored_cell(access, array, offset + 2 * i).written.fenced_by(thread))
                    throw Fault{"a bulk copy of " + place_of(array, offset)() + ", which it may not see yet\n  " + describe(access) +
                                "\n  fence_global_for_copies() is missing between what tells of the store and this line"};
        }
    }

    Counter& counter(const Thread& thread, const void* address, const char* verb, const Site& site) {
        const Access access{thread, verb, site};
        Array& array = locate(access, address, 4);
        if (array.counters.empty())
            throw Fault{"'" + array.name + "' is no array of counters\n  " + describe(access)};
        check_team(access, array, offset_in(array, address));
        return array.counters[offset_in(array, address) / 4];
    }

    void write(const Thread& thread, void* address, const void* in, unsigned bytes, const Site& site) {
        const Access access{thread, "writes", site};
        Array& array = locate(access, address, bytes);
        const std::uint64_t offset = offset_in(array, address), place = array.windows.place(offset);
        if (!array.output)
            throw Fault{text("write to '%s', which is an input: %u bytes at offset %zu of %zu\n  ", array.name.c_str(),
                             bytes, std::size_t{offset}, std::size_t{array.windows.extent}) +
                        describe(access)};
        refuse_special(access, array, offset);
        if (!array.stored.empty())
            for (unsigned i = 0; i < bytes / 2; ++i)
                stored_cell(access, array, offset + 2 * i).write(access, place_of(array, offset + 2 * i));
        else
            for (unsigned i = 0; i < bytes / 2; ++i) {
                Cell& cell = array.cells[place / 2 + i];
                check_writer(access, array, cell, offset + 2 * i);
                check_readers(access, array, cell, offset + 2 * i);
                cell.team = thread.team->number;
                cell.writer = thread.rank;
                cell.written = thread.team->clocks.now(thread.rank);
                cell.written_at = site;
            }
        std::memcpy(array.content + place, in, bytes);
    }

    /// A thread sends a word: it is under way from here on.
    Message expect_message(const Thread& thread, void* address, unsigned word, const Site& site) {
        const Access access{thread, "sends", site};
        Array& array = locate_mail(access, address, 4);
        const std::uint64_t offset = offset_in(array, address);
        Mailbox& box = open(access, array, offset);
        rules(box, access, array, offset).send(word);
        box.expect(access);
        return {nullptr, &box, array.content + offset, word};
    }

    /// Read words that may wait for messages. Returns the first that does, if any.
    Awaited poll(const Thread& thread, const void* address, void* out, unsigned bytes, const Site& site) {
        const Access access{thread, "polls", site};
        Array& array = locate_mail(access, address, bytes);
        const std::uint64_t offset = offset_in(array, address);
        Awaited missing;
        end_sending(thread);
        for (std::uint64_t at = offset; at < offset + bytes; at += 4) {
            Mailbox& box = open(access, array, at);
            if (!rules(box, access, array, at).poll() && missing.box == nullptr) missing = {&box, at, &array.name};
        }
        std::memcpy(out, array.content + offset, bytes);
        return missing;
    }

    /// Make words wait for messages; who else may know of that, a fence says.
    void poison(Thread& thread, void* address, unsigned bytes, const Site& site) {
        const Access access{thread, "poisons", site};
        Array& array = locate_mail(access, address, bytes);
        const std::uint64_t offset = offset_in(array, address);
        end_sending(thread);
        for (std::uint64_t at = offset; at < offset + bytes; at += 4) {
            Mailbox& box = open(access, array, at);
            rules(box, access, array, at).overwrite();
            box.overwrite(access, Mailbox::State::poisoned);
            box.poisoned.unfence();
            thread.block->unfenced.push_back(&box);
        }
        std::memset(array.content + offset, 0xff, bytes);
    }

  private:
    static constexpr std::uint64_t gap = 16u << 20;
    static constexpr std::uint64_t lowest = std::uint64_t{1} << 44;  // no process has anything there

    struct Cell {
        unsigned team = 0, writer = no_thread;
        Clock written = 0;
        Site written_at;
        unsigned reader_team = 0, reader = no_thread;  // of what an earlier launch has left
        bool shared = false;                           // by several readers
    };
    struct Array {
        std::string name;
        std::byte* host;
        std::byte* content;
        std::uint64_t base;
        Windows windows;
        bool output;
        std::vector<std::byte> written{};
        std::vector<Cell> cells{};
        std::vector<Mailbox> boxes{};  // of each word, where it is for mail
        std::vector<Counter> counters{};
        std::vector<StoredCell> stored{};
        bool begun = false;    // by earlier launches
        unsigned team = 0;  // the first to use the counters, or what is stored,
        bool touched = false;  // if any has
    };

    static Where place_of(const Array& array, std::uint64_t offset) { return {array.name, offset}; }

    /// What blocks store for each other is theirs alone that run at the same time.
    static void check_team(const Access& access, Array& array, std::uint64_t offset) {
        const unsigned team = access.thread.team->number;
        if (std::exchange(array.touched, true) && array.team != team)
            throw Fault{place_of(array, offset)() + " is that of blocks which do not run at the same time\n  " +
                        describe(access) + "\n  the launch must be cooperative"};
        array.team = team;
    }

    static StoredCell& stored_cell(const Access& access, Array& array, std::uint64_t offset) {
        if (array.stored.empty())
            throw Fault{"'" + array.name + "' is not what blocks store for each other\n  " + describe(access)};
        check_team(access, array, offset);
        return array.stored[offset / 2];
    }

    static MailRules<Where> rules(Mailbox& box, const Access& access, const Array& array, std::uint64_t offset) {
        return {box, access, Where{array.name, offset}};
    }

    Array& locate_mail(const Access& access, const void* address, unsigned bytes) {
        Array& array = locate(access, address, bytes);
        if (array.boxes.empty())
            throw Fault{"'" + array.name + "' is no place for messages: it does not start as poison\n  " + describe(access)};
        return array;
    }

    static Mailbox& open(const Access& access, Array& array, std::uint64_t offset) {
        Mailbox& box = array.boxes[offset / 4];
        const unsigned team = access.thread.team->number;
        if (std::exchange(box.team, team) != team && box.touched)
            throw Fault{Where{array.name, offset}() + " is that of blocks which do not run at the same time\n  " +
                        describe(access) + "\n  the launch must be cooperative, or the places apart"};
        box.touched = true;
        return box;
    }

    /// What an earlier launch has left is read by the thread that will write it, or by any where nobody does.
    static void read_begun(const Access& access, Array& array, std::uint64_t offset, unsigned bytes) {
        const unsigned reader = access.thread.rank, team = access.thread.team->number;
        for (unsigned i = 0; i < bytes / 2; ++i) {
            Cell& cell = array.cells[array.windows.place(offset) / 2 + i];
            if (cell.written != 0 && (cell.team != team || cell.writer != reader))
                throw Fault{"race on " + place_of(array, offset)() + "\n  first:  another thread writes at " +
                            describe(cell.written_at) + "\n  second: " + describe(access)};
            if (cell.reader == no_thread) cell.reader = reader, cell.reader_team = team;
            cell.shared |= cell.reader != reader || cell.reader_team != team;
        }
    }

    static void refuse_special(const Access& access, const Array& array, std::uint64_t offset) {
        if (!array.counters.empty())
            throw Fault{place_of(array, offset)() + " is a counter: it may be signalled and polled\n  " + describe(access)};
        if (!array.boxes.empty())
            throw Fault{place_of(array, offset)() + " is for messages: it may be polled, sent to and poisoned\n  " +
                        describe(access)};
    }

    static std::uint64_t offset_in(const Array& array, const void* address) {
        return reinterpret_cast<std::uint64_t>(address) - array.base;
    }

    Array& locate(const Access& access, const void* address, unsigned bytes) {
        const auto at = reinterpret_cast<std::uint64_t>(address);
        for (Array& array : arrays_) {
            const std::uint64_t size = array.windows.extent;
            if (at + bytes <= array.base - gap / 2 || at >= array.base + size + gap / 2) continue;
            const auto offset = static_cast<long long>(at - array.base);
            if (offset < 0 || offset + bytes > static_cast<long long>(size))
                throw Fault{text("out of bounds of '%s': %u bytes at offset %lld, but it has %lld bytes\n  ",
                                 array.name.c_str(), bytes, offset, static_cast<long long>(size)) +
                            describe(access)};
            if (offset % bytes != 0)
                throw Fault{text("misaligned access to '%s': %u bytes at offset %lld, which is no multiple of %u\n  ",
                                 array.name.c_str(), bytes, offset, bytes) +
                            describe(access)};
            if (!array.windows.contain(at - array.base, bytes))
                throw Fault{text("access to a part of '%s' that is not these blocks': %u bytes at offset %lld of %lld; "
                                 "an index that wrapped, or an element of another block\n  ",
                                 array.name.c_str(), bytes, offset, static_cast<long long>(size)) +
                            describe(access)};
            return array;
        }
        if (reinterpret_cast<std::uintptr_t>(address) < gap)
            throw Fault{text("access through a null pointer (address %p; given as null: %s)\n  ", address,
                             nulls_.empty() ? "none" : nulls_.c_str()) +
                        describe(access)};
        throw Fault{text("access to %p, which is in none of the arrays\n  ", address) + describe(access)};
    }

    [[noreturn]] static void report_output_read(const Access& access, const Array& array, std::uint64_t offset,
                                                unsigned bytes) {
        const Cell& cell = array.cells[array.windows.place(offset) / 2];
        throw Fault{text("read of output '%s': %u bytes at offset %zu of %zu, ", array.name.c_str(), bytes,
                         std::size_t{offset}, std::size_t{array.windows.extent}) +
                    (cell.written == 0 ? std::string("which nobody has written")
                                       : "written at " + describe(cell.written_at) +
                                             "; this load needs memory that does not change while the kernel runs") +
                    "\n  " + describe(access)};
    }

    static void check_writer(const Access& access, const Array& array, const Cell& cell, std::uint64_t offset) {
        if (cell.written == 0) return;
        Team& team = *access.thread.team;
        if (cell.team == team.number && team.clocks.ordered(cell.writer, cell.written, access.thread.rank)) return;
        const std::string place = text("'%s': 2 bytes at offset %zu of %zu", array.name.c_str(), std::size_t{offset},
                                       std::size_t{array.windows.extent});
        if (cell.team == team.number)
            report_race(place, {team.thread(cell.writer), "writes", cell.written_at}, access);
        throw Fault{"race on " + place + "\n  first:  another block writes at " + describe(cell.written_at) +
                    "\n  second: " + describe(access) +
                    "\n  nothing orders these blocks: let one alone write it"};
    }

    static void check_readers(const Access& access, const Array& array, const Cell& cell, std::uint64_t offset) {
        const bool own = cell.reader == access.thread.rank && cell.reader_team == access.thread.team->number;
        if (cell.reader == no_thread || (own && !cell.shared)) return;
        throw Fault{"race on " + place_of(array, offset)() + ", which another thread has read\n  " + describe(access)};
    }

    std::vector<Array> arrays_;
    std::string nulls_;
    std::uint64_t next_ = lowest;
};

inline GlobalMemory* global_memory = nullptr;

}  // namespace tilesmith::emulate
