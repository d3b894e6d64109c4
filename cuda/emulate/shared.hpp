// A block's shared memory: bytes, and for every two of them who wrote and read them last.
//
// Two bytes are the smallest access that ptx.hpp has; accesses are aligned, so no access covers half a cell.
// The check is FastTrack's (Flanagan and Freund, PLDI 2009): a cell keeps its last writer, and its readers since then,
// one where they are ordered and a list where they are not.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "mailbox.hpp"

namespace tilesmith::emulate {

class SharedMemory {
    /// Names a word, if it comes to that.
    struct Where {
        const SharedMemory& memory;
        unsigned offset;
        std::string operator()() const { return "a word of " + memory.place(offset / 4 * 4, 4); }
    };

  public:
    SharedMemory(const Block& owner, unsigned bytes)
        : owner_(owner), bytes_(bytes, std::byte{0xff}), cells_((bytes + 1) / 2) {}

    /// `thread` may be of another block of the cluster.
    void read(const Thread& thread, unsigned address, void* out, unsigned bytes, const Site& site) {
        const Access access{thread, "reads", site};
        const unsigned offset = locate(access, address, bytes);
        for (unsigned i = offset / 2; i < (offset + bytes) / 2; ++i)
            if (Mailbox* box = find(i)) [[unlikely]]
                read_mail(access, *box, i);
            else
                check_read(access, i);
        std::memcpy(out, bytes_.data() + offset, bytes);
    }

    void write(const Thread& thread, unsigned address, const void* in, unsigned bytes, const Site& site) {
        const Access access{thread, "writes", site};
        const unsigned offset = locate(access, address, bytes);
        for (unsigned i = offset / 2; i < (offset + bytes) / 2; ++i) {
            if (Mailbox* box = find(i)) [[unlikely]]
                set_mail(access, *box, i, Mailbox::State::plain);
            else
                check_write(access, i);
            set_writer(access, i);
        }
        std::memcpy(bytes_.data() + offset, in, bytes);
    }

    /// Who wrote these bytes must have made that known to warpgroup products.
    void check_fenced(const Thread& thread, unsigned address, unsigned bytes, const Site& site,
                      const char* verb = "multiplies by") const {
        const Access access{thread, verb, site};
        const unsigned offset = locate(access, address, bytes);
        for (unsigned i = offset / 2; i < (offset + bytes) / 2; ++i) {
            const Cell& cell = cells_[i];
            if (cell.written == 0 || cell.by_copy) continue;
            const Thread& writer = thread.team->thread(cell.writer);
            if (cell.written > writer.shared_fenced)
                throw Fault{"a product or bulk copy meets " + place(2 * i, 2) + ", which it may not see yet\n  first:  " +
                            describe(Access{writer, "writes", cell.written_at}) + "\n  second: " + describe(access) +
                            "\n  fence_shared_for_wgmma() by the first thread is missing between the two lines"};
        }
    }

    /// Read words that may wait for messages. Returns the first that does, if any.
    Awaited poll(const Thread& thread, unsigned address, void* out, unsigned bytes, const Site& site) {
        const Access access{thread, "polls", site};
        const unsigned offset = locate(access, address, bytes);
        Awaited missing;
        end_sending(thread);
        for (unsigned at = offset; at < offset + bytes; at += 4) {
            Mailbox& box = open(access, at, &SharedMemory::check_read);
            if (box.state == Mailbox::State::plain)
                for (unsigned i = at / 2; i < at / 2 + 2; ++i) check_writer(access, i);
            if (!MailRules<Where>(box, access, Where{*this, at}).poll() && missing.box == nullptr) missing = {&box, at};
        }
        std::memcpy(out, bytes_.data() + offset, bytes);
        return missing;
    }

    /// Make words wait for messages.
    void poison(const Thread& thread, unsigned address, unsigned bytes, const Site& site) {
        const Access access{thread, "poisons", site};
        const unsigned offset = locate(access, address, bytes);
        for (unsigned at = offset; at < offset + bytes; at += 4) {
            set_mail(access, open(access, at, &SharedMemory::check_write), at / 2, Mailbox::State::poisoned);
            for (unsigned i = at / 2; i < at / 2 + 2; ++i) set_writer(access, i);
        }
        std::memset(bytes_.data() + offset, 0xff, bytes);
    }

    /// A thread of the cluster sends a word to this block: it is under way from here on. Returns its mailbox and its offset.
    std::pair<Mailbox*, unsigned> expect_message(const Thread& thread, unsigned address, unsigned word, const Site& site) {
        const Access access{thread, "sends", site};
        const unsigned offset = locate(access, address, 4);
        Mailbox* box = find(offset / 2);
        Mailbox none;
        MailRules<Where>(box ? *box : none, access, Where{*this, offset}).send(word);
        box->expect(access);
        return {box, offset};
    }

    std::byte* place_of(unsigned offset) { return bytes_.data() + offset; }

    bool arrived(unsigned offset) { return find(offset / 2)->state == Mailbox::State::arrived; }

    /// A copy is issued: from here to land() nobody may touch the destination.
    void expect_copy(const Thread& thread, unsigned address, unsigned bytes, const Site& site,
                     const char* verb = "starts a cp_async to it") {
        const Access access{thread, verb, site};
        const unsigned offset = locate(access, address, bytes);
        for (unsigned i = offset / 2; i < (offset + bytes) / 2; ++i) {
            if (find(i))
                throw Fault{Where{*this, 2 * i}() + " waits for messages, and is no place for a copy\n  " + describe(access)};
            check_write(access, i);
            cells_[i].copier = thread.rank;
            cells_[i].copied_at = site;
        }
    }

    /// A bulk copy is asked for: likewise. Stores to the destination must have been made known to such copies.
    void expect_bulk(const Thread& thread, unsigned address, unsigned bytes, const Site& site) {
        const Access access{thread, "starts a bulk copy to it", site};
        for (unsigned at = 0; at < bytes; at += 16) {
            expect_copy(thread, address + at, 16, site, access.verb);
            check_fenced(thread, address + at, 16, site, access.verb);
        }
    }

    /// It has landed: its bytes are there for who waits for them, as from the thread that asked for them, at that time.
    void land(const BulkCopy& copy) {
        const unsigned offset = copy.destination - shared_base;
        const Access access{*copy.thread, "copies", copy.site};
        for (unsigned i = offset / 2; i < (offset + copy.data.size()) / 2; ++i) {
            set_writer(access, i);
            cells_[i].written = copy.clock;
            cells_[i].by_copy = true;
        }
        std::memcpy(bytes_.data() + offset, copy.data.data(), copy.data.size());
    }
    /// Somebody has waited for it.
    void release(const BulkCopy& copy) {
        const unsigned offset = copy.destination - shared_base;
        for (unsigned i = offset / 2; i < (offset + copy.data.size()) / 2; ++i) cells_[i].copier = no_thread;
    }

    /// Whether the thread knows of the bytes, which nobody may write meanwhile.
    void check_known(const Thread& thread, unsigned address, unsigned bytes, const char* verb, const Site& site) const {
        const Access access{thread, verb, site};
        const unsigned offset = locate(access, address, bytes);
        for (unsigned i = offset / 2; i < (offset + bytes) / 2; ++i) check_writer(access, i);
    }

    /// The issuing thread has waited: the copy counts as its own write, made now.
    void land(const Thread& thread, const Copy& copy) {
        const Access access{thread, "writes (cp_async)", copy.site};
        const unsigned offset = copy.destination - shared_base;
        for (unsigned i = offset / 2; i < (offset + copy.bytes) / 2; ++i) {
            cells_[i].copier = no_thread;
            set_writer(access, i);
        }
        std::memcpy(bytes_.data() + offset, copy.data.data(), copy.bytes);
    }

  private:
    struct Cell {
        Site written_at, read_at, copied_at;
        Clock written = 0;  // 0: never
        Clock read = 0;     // 0: not since it was written
        unsigned writer = no_thread, reader = no_thread, copier = no_thread;
        int readers = -1;  // which list of readings, once two were not ordered
        bool by_copy = false;  // written by a bulk copy, as products read
    };
    /// The last read of a cell by one thread of the team.
    struct Reading {
        unsigned reader;
        Clock clock;
        Site site;
    };

    using Check = void (SharedMemory::*)(const Access&, unsigned);

    /// The mailbox that a cell belongs to, if it is one.
    Mailbox* find(unsigned cell) {
        if (boxes_.empty()) [[likely]]
            return nullptr;
        const int box = box_of_[cell / 2];
        return box < 0 ? nullptr : &boxes_[static_cast<std::size_t>(box)];
    }

    /// The mailbox of a word; ordinary memory, once `check` allows the access, becomes one.
    Mailbox& open(const Access& access, unsigned offset, Check check) {
        if (Mailbox* box = find(offset / 2)) return *box;
        for (unsigned i = offset / 2; i < offset / 2 + 2; ++i) (this->*check)(access, i);
        box_of_.resize(cells_.size() / 2 + 1, -1);
        box_of_[offset / 4] = static_cast<int>(boxes_.size());
        return boxes_.emplace_back();
    }

    void read_mail(const Access& access, Mailbox& box, unsigned i) {
        end_sending(access.thread);
        if (box.state == Mailbox::State::plain) check_writer(access, i);
        MailRules<Where>(box, access, Where{*this, 2 * i}).read();
    }

    void set_mail(const Access& access, Mailbox& box, unsigned i, Mailbox::State state) {
        end_sending(access.thread);
        MailRules<Where>(box, access, Where{*this, 2 * i}).overwrite();
        box.overwrite(access, state);
    }

    std::string name() const {
        return owner_.cluster->size == 1 ? "shared memory" : "shared memory of " + describe(owner_);
    }
    std::string place(unsigned offset, unsigned bytes) const {
        return name() + text(": %u bytes at offset %u of %zu", bytes, offset, bytes_.size());
    }

    unsigned locate(const Access& access, unsigned address, unsigned bytes) const {
        const unsigned offset = address - shared_base;
        if (address < shared_base || offset > bytes_.size() || bytes > bytes_.size() - offset)
            throw Fault{"out of bounds of " + name() +
                        text(": %u bytes at offset %lld, but the launch gives the block %zu bytes\n  ", bytes,
                             static_cast<long long>(address) - shared_base, bytes_.size()) +
                        describe(access)};
        if (address % bytes != 0)
            throw Fault{"misaligned access to " + name() +
                        text(": %u bytes at offset %u, which is no multiple of %u\n  ", bytes, offset, bytes) +
                        describe(access)};
        return offset;
    }

    void check_copier(const Access& access, unsigned i) const {
        const Cell& cell = cells_[i];
        if (cell.copier == no_thread) return;
        const Thread& copier = access.thread.team->thread(cell.copier);
        const char* missing =
            &copier == &access.thread ? "a cp_async_wait that covers the copy is missing between the two lines"
            : copier.block == access.thread.block
                ? "a cp_async_wait by the first thread and then a barrier of both are missing between the two lines"
                : "a cp_async_wait by the first thread and then a sync_cluster() are missing between the two lines";
        throw Fault{"race on " + place(2 * i, 2) + ": a cp_async to it may still be under way\n  first:  " +
                    describe(Access{copier, "starts a cp_async to it", cell.copied_at}) + "\n  second: " +
                    describe(access) + "\n  " + missing};
    }

    void check_read(const Access& access, unsigned i) {
        Cell& cell = cells_[i];
        const Team& team = *access.thread.team;
        const unsigned self = access.thread.rank;
        check_copier(access, i);
        if (cell.written == 0)
            throw Fault{"read of " + place(2 * i, 2) + ", which nobody has written\n  " + describe(access) +
                        (access.thread.block == &owner_
                             ? "\n  if another thread is to write it, the two lack a barrier"
                             : "\n  if that block is to write it, a sync_cluster() is missing before this line") +
                        "; if none is, it must be cleared"};
        check_writer(access, i);
        const Reading reading{self, team.clocks.now(self), access.site};
        if (cell.readers >= 0) {
            add_reading(lists_[static_cast<std::size_t>(cell.readers)], reading);
        } else if (cell.read == 0 || cell.reader == self || team.clocks.ordered(cell.reader, cell.read, self)) {
            cell.reader = self;
            cell.read = reading.clock;
            cell.read_at = access.site;
        } else {
            auto& list = new_list(cell);
            list.push_back({cell.reader, cell.read, cell.read_at});
            list.push_back(reading);
        }
    }

    /// Few threads read a cell between two writes, as a rule.
    static void add_reading(std::vector<Reading>& list, const Reading& reading) {
        for (Reading& known : list)
            if (known.reader == reading.reader) {
                known = reading;
                return;
            }
        list.push_back(reading);
    }

    std::vector<Reading>& new_list(Cell& cell) {
        if (free_.empty()) {
            free_.push_back(static_cast<int>(lists_.size()));
            lists_.emplace_back();
        }
        cell.readers = free_.back();
        free_.pop_back();
        return lists_[static_cast<std::size_t>(cell.readers)];
    }

    void check_writer(const Access& access, unsigned i) const {
        const Cell& cell = cells_[i];
        Team& team = *access.thread.team;
        if (cell.written == 0 || team.clocks.ordered(cell.writer, cell.written, access.thread.rank)) return;
        report_race(place(2 * i, 2), {team.thread(cell.writer), "writes", cell.written_at}, access);
    }

    void check_write(const Access& access, unsigned i) {
        const Cell& cell = cells_[i];
        check_copier(access, i);
        check_writer(access, i);
        if (cell.readers >= 0) {
            for (const Reading& reading : lists_[static_cast<std::size_t>(cell.readers)])
                check_reading(access, i, reading);
        } else if (cell.read != 0) {
            check_reading(access, i, {cell.reader, cell.read, cell.read_at});
        }
    }

    void check_reading(const Access& access, unsigned i, const Reading& reading) const {
        Team& team = *access.thread.team;
        if (!team.clocks.ordered(reading.reader, reading.clock, access.thread.rank))
            report_race(place(2 * i, 2), {team.thread(reading.reader), "reads", reading.site}, access);
    }

    void set_writer(const Access& access, unsigned i) {
        Cell& cell = cells_[i];
        cell.writer = access.thread.rank;
        cell.written = access.thread.team->clocks.now(access.thread.rank);
        cell.written_at = access.site;
        cell.read = 0;
        cell.by_copy = false;
        if (cell.readers < 0) return;
        lists_[static_cast<std::size_t>(cell.readers)].clear();
        free_.push_back(std::exchange(cell.readers, -1));
    }

    const Block& owner_;
    std::vector<std::byte> bytes_;
    std::vector<Cell> cells_;
    std::vector<std::vector<Reading>> lists_;
    std::vector<int> free_;
    std::vector<int> box_of_;  // of each word, empty until there is a mailbox
    std::deque<Mailbox> boxes_;
};

}  // namespace tilesmith::emulate
