// A block's shared memory: bytes, and for every two of them who wrote and read them last.
//
// Two bytes are the smallest access that ptx.hpp has; accesses are aligned, so no access covers half a cell.
// The check is FastTrack's (Flanagan and Freund, PLDI 2009): a cell keeps its last writer, and its readers since then,
// one where they are ordered and one count for each thread where they are not.
#pragma once

#include <cstring>
#include <vector>

#include "race.hpp"

namespace tilesmith::emulate {

class SharedMemory {
  public:
    explicit SharedMemory(unsigned bytes) : bytes_(bytes, std::byte{0xff}), cells_((bytes + 1) / 2) {}

    void read(const Thread& thread, unsigned address, void* out, unsigned bytes, const Site& site) {
        const Access access{thread, "reads", site};
        const unsigned offset = locate(access, address, bytes);
        for (unsigned i = offset / 2; i < (offset + bytes) / 2; ++i) check_read(access, i);
        std::memcpy(out, bytes_.data() + offset, bytes);
    }

    void write(const Thread& thread, unsigned address, const void* in, unsigned bytes, const Site& site) {
        const Access access{thread, "writes", site};
        const unsigned offset = locate(access, address, bytes);
        for (unsigned i = offset / 2; i < (offset + bytes) / 2; ++i) {
            check_write(access, i);
            set_writer(access, i);
        }
        std::memcpy(bytes_.data() + offset, in, bytes);
    }

    /// A copy is issued: from here to land() nobody may touch the destination.
    void expect_copy(const Thread& thread, unsigned address, unsigned bytes, const Site& site) {
        const Access access{thread, "starts a cp_async to it", site};
        const unsigned offset = locate(access, address, bytes);
        for (unsigned i = offset / 2; i < (offset + bytes) / 2; ++i) {
            check_write(access, i);
            cells_[i].copier = thread.rank;
            cells_[i].copied_at = site;
        }
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
        int readers = -1;  // a Readers, once two reads were not ordered
    };
    struct Readers {
        std::vector<Clock> clocks;
        std::vector<Site> sites;
    };

    std::string place(unsigned offset, unsigned bytes) const {
        return text("shared memory: %u bytes at offset %u of %zu", bytes, offset, bytes_.size());
    }

    unsigned locate(const Access& access, unsigned address, unsigned bytes) const {
        const unsigned offset = address - shared_base;
        if (address < shared_base || offset > bytes_.size() || bytes > bytes_.size() - offset)
            throw Fault{text("out of bounds of shared memory: %u bytes at offset %lld, but the launch gives the block "
                             "%zu bytes\n  ",
                             bytes, static_cast<long long>(address) - shared_base, bytes_.size()) +
                        describe(access)};
        if (address % bytes != 0)
            throw Fault{text("misaligned access to shared memory: %u bytes at offset %u, which is no multiple of "
                             "%u\n  ",
                             bytes, offset, bytes) +
                        describe(access)};
        return offset;
    }

    void check_copier(const Access& access, unsigned i) const {
        const Cell& cell = cells_[i];
        if (cell.copier == no_thread) return;
        const Thread& copier = access.thread.team->thread(cell.copier);
        const bool own = &copier == &access.thread;
        throw Fault{"race on " + place(2 * i, 2) + ": a cp_async to it may still be under way\n  first:  " +
                    describe(Access{copier, "starts a cp_async to it", cell.copied_at}) + "\n  second: " +
                    describe(access) + "\n  " +
                    (own ? "a cp_async_wait that covers the copy is missing between the two lines"
                         : "a cp_async_wait by the first thread and then a barrier of both are missing between the "
                           "two lines")};
    }

    void check_read(const Access& access, unsigned i) {
        Cell& cell = cells_[i];
        const Team& team = *access.thread.team;
        const unsigned self = access.thread.rank;
        check_copier(access, i);
        if (cell.written == 0)
            throw Fault{"read of " + place(2 * i, 2) + ", which nobody has written\n  " + describe(access) +
                        "\n  if another thread is to write it, the two lack a barrier; if none is, it must be cleared"};
        check_writer(access, i);
        if (cell.readers >= 0) {
            Readers& readers = pool_[static_cast<std::size_t>(cell.readers)];
            readers.clocks[self] = team.clocks.now(self);
            readers.sites[self] = access.site;
        } else if (cell.read == 0 || cell.reader == self || team.clocks.ordered(cell.reader, cell.read, self)) {
            cell.reader = self;
            cell.read = team.clocks.now(self);
            cell.read_at = access.site;
        } else {
            cell.readers = allocate(team.clocks.threads());
            Readers& readers = pool_[static_cast<std::size_t>(cell.readers)];
            readers.clocks[cell.reader] = cell.read;
            readers.sites[cell.reader] = cell.read_at;
            readers.clocks[self] = team.clocks.now(self);
            readers.sites[self] = access.site;
        }
    }

    void check_writer(const Access& access, unsigned i) const {
        const Cell& cell = cells_[i];
        Team& team = *access.thread.team;
        if (cell.written == 0 || team.clocks.ordered(cell.writer, cell.written, access.thread.rank)) return;
        report_race(place(2 * i, 2), {team.thread(cell.writer), "writes", cell.written_at}, access);
    }

    void check_write(const Access& access, unsigned i) const {
        const Cell& cell = cells_[i];
        Team& team = *access.thread.team;
        const unsigned self = access.thread.rank;
        check_copier(access, i);
        check_writer(access, i);
        if (cell.readers >= 0) {
            const Readers& readers = pool_[static_cast<std::size_t>(cell.readers)];
            const Clock* seen = team.clocks.seen_by(self);
            for (unsigned other = 0; other < readers.clocks.size(); ++other)
                if (readers.clocks[other] > seen[other] && other != self)
                    report_race(place(2 * i, 2), {team.thread(other), "reads", readers.sites[other]}, access);
        } else if (cell.read != 0 && !team.clocks.ordered(cell.reader, cell.read, self)) {
            report_race(place(2 * i, 2), {team.thread(cell.reader), "reads", cell.read_at}, access);
        }
    }

    void set_writer(const Access& access, unsigned i) {
        Cell& cell = cells_[i];
        cell.writer = access.thread.rank;
        cell.written = access.thread.team->clocks.now(access.thread.rank);
        cell.written_at = access.site;
        cell.read = 0;
        if (cell.readers >= 0) free_.push_back(cell.readers);
        cell.readers = -1;
    }

    int allocate(std::size_t threads) {
        if (free_.empty()) {
            pool_.push_back({std::vector<Clock>(threads), std::vector<Site>(threads)});
            return static_cast<int>(pool_.size()) - 1;
        }
        const int index = free_.back();
        free_.pop_back();
        std::fill(pool_[static_cast<std::size_t>(index)].clocks.begin(),
                  pool_[static_cast<std::size_t>(index)].clocks.end(), 0);
        return index;
    }

    std::vector<std::byte> bytes_;
    std::vector<Cell> cells_;
    std::vector<Readers> pool_;
    std::vector<int> free_;
};

}  // namespace tilesmith::emulate
