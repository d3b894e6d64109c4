// Words of memory that say by themselves whether they are there: poison until a message has come.
//
// Who may touch such a word when is known through messages alone, so warps have clocks of their own for it, which barriers
// carry too: a message brings what its sender knew when it was sent, to the whole warp once its lanes have met. These
// clocks order words of mailboxes and nothing else, as a relaxed store orders nothing else.
#pragma once

#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "race.hpp"

namespace tilesmith::emulate {

/// The lanes of a warp meet: what each has heard, all know, and what any did comes before what any does next.
inline void share_heard(Warp& warp) {
    MessageClocks& clocks = warp.block->threads.front().team->message_clocks;
    clocks.acquire(warp.rank, warp.heard);
    clocks.advance(warp.rank);
    warp.heard.clear();
    warp.last_heard = nullptr;
    warp.snapshot = nullptr;
}

/// What a warp does after it has sent a message is no part of what the message says.
inline void end_sending(const Thread& thread) {
    Warp& warp = *thread.warp;
    if (warp.snapshot == nullptr) return;
    thread.team->message_clocks.advance(warp.rank);
    warp.snapshot = nullptr;
}

/// What a message carries: shared by those that a warp sends one after another.
inline const std::shared_ptr<const std::vector<Clock>>& knowledge(const Thread& thread) {
    Warp& warp = *thread.warp;
    if (warp.snapshot == nullptr) {
        const MessageClocks& clocks = thread.team->message_clocks;
        const Clock* known = clocks.seen_by(warp.rank);
        warp.snapshot = std::make_shared<const std::vector<Clock>>(known, known + clocks.threads());
    }
    return warp.snapshot;
}

/// Something that a thread did to a word, by the clock of its warp.
struct Deed {
    const Thread* thread = nullptr;
    Clock clock = 0;
    Clock made = 0;  // its own clock, where it counts for others only from a fence on
    Site site;

    Deed() = default;
    explicit Deed(const Access& access)
        : thread(&access.thread), clock(access.thread.team->message_clocks.now(access.thread.warp->rank)),
          site(access.site) {}

    static constexpr Clock never = std::numeric_limits<Clock>::max();
    /// It counts for others only from a fence on, of its thread or of one of the block that knows of it.
    void unfence() { made = std::exchange(clock, never); }
    bool unfenced() const { return clock == never; }
    /// A fence of `fencer` at its warp's count `now`, if it knows of this. Says whether it does.
    bool fenced(const Thread& fencer, Clock now) {
        if (thread != &fencer) {
            const MessageClocks& clocks = fencer.team->message_clocks;
            if (thread->warp == fencer.warp || !clocks.ordered(thread->warp->rank, made, fencer.warp->rank)) return false;
        }
        thread = &fencer, clock = now;
        return true;
    }

    /// Whether it came before `other` last fenced global memory for bulk copies.
    bool fenced_by(const Thread& other) const {
        return thread != nullptr && thread->warp->rank < other.fenced_for_copies.size() &&
               other.fenced_for_copies[thread->warp->rank] >= clock;
    }

    /// Whether it comes before what `other` does now.
    bool known_to(const Thread& other) const {
        if (thread == nullptr || thread == &other) return true;
        const MessageClocks& clocks = other.team->message_clocks;
        if (thread->warp == other.warp) return clock < clocks.now(other.warp->rank);
        return clocks.ordered(thread->warp->rank, clock, other.warp->rank);
    }
};

/// One word. plain: stored to as any other memory.
struct Mailbox {
    enum class State { plain, poisoned, under_way, arrived };

    State state = State::plain;
    Deed written;   // who poisoned it, or sent what has come
    Deed poisoned;  // who did so last
    Deed sent;     // the message that is under way
    std::shared_ptr<const std::vector<Clock>> carried;
    std::vector<Deed> readers;  // since it was written, one of each warp
    std::vector<Thread*> waiting;
    unsigned team = 0;     // in global memory: who used it last,
    bool touched = false;  // if anybody has

    void add_reader(const Access& access) {
        const Deed reading(access);
        for (Deed& reader : readers)
            if (reader.thread->warp == access.thread.warp) {
                reader = reading;
                return;
            }
        readers.push_back(reading);
    }

    bool waits() const { return state == State::poisoned || state == State::under_way; }

    void overwrite(const Access& access, State now) {
        state = now;
        written = poisoned = Deed(access);
        readers.clear();
    }

    void expect(const Access& access) {
        state = State::under_way;
        sent = Deed(access);
        carried = knowledge(access.thread);
    }

    /// The message has come to `place`. Returns who waits for it.
    std::vector<Thread*> arrive(std::byte* place, unsigned word) {
        state = State::arrived;
        written = sent;
        readers.clear();
        std::memcpy(place, &word, sizeof word);
        return std::exchange(waiting, {});
    }
};

inline std::string describe(const Deed& deed, const char* verb) { return describe(Access{*deed.thread, verb, deed.site}); }

/// The rules of a mailbox; where() names it.
template <class Where>
class MailRules {
  public:
    MailRules(Mailbox& box, const Access& access, Where where) : box_(box), access_(access), where_(where) {}

    /// A poll looks. Says whether there is something.
    bool poll() const {
        if (!box_.poisoned.known_to(access_.thread))
            fail("may be poisoned only after it has been polled", "poisoned", box_.poisoned,
                 "what was there before may be taken for the message: the reader must have heard of a message, or met a "
                 "barrier, that comes after the poison (and, in global memory, after a fence)");
        if (box_.waits()) return false;
        if (box_.state == Mailbox::State::arrived) hear();
        box_.add_reader(access_);
        return true;
    }

    /// An ordinary load: the message must be known to have come.
    void read() const {
        if (box_.waits())
            fail("is poison, for a message that has not come", "poisoned", box_.written,
                 "it must be polled for before it is read");
        if (box_.state == Mailbox::State::arrived && !box_.written.known_to(access_.thread))
            fail("is read without having been polled for", "sent", box_.written,
                 "the lanes of a warp must poll for it, and meet in any_lane, before it is read");
        box_.add_reader(access_);
    }

    /// The word is poisoned, or stored to as ordinary memory.
    void overwrite() const {
        if (box_.state == Mailbox::State::under_way)
            fail("has a message under way to it", "sent", box_.sent, "it would be lost");
        if (box_.state == Mailbox::State::arrived && box_.readers.empty())
            fail("has a message that nobody has read", "sent", box_.written, "it would be lost");
        if (!box_.written.known_to(access_.thread))
            fail("is overwritten by a thread that does not know of what lies there", "written", box_.written,
                 "nothing that the thread has heard of comes after that");
        for (const Deed& reader : box_.readers)
            if (!reader.known_to(access_.thread))
                fail("may not have been read by then", "read", reader,
                     "no message that the thread has heard of comes after that, so the reader may still be waiting");
    }

    void send(unsigned word) const {
        if (word == poison)
            throw Fault{"a message that looks like poison is sent to " + where_() + "\n  " + describe(access_)};
        if (box_.state == Mailbox::State::under_way)
            fail("is sent two messages", "sent", box_.sent, "a word takes one, and must then be poisoned again");
        if (box_.state == Mailbox::State::arrived)
            fail("is sent a second message before the first has been poisoned", "sent", box_.written,
                 "the slot must be poisoned before it is used again");
        if (box_.state == Mailbox::State::plain)
            throw Fault{where_() + " is sent a message, but has not been poisoned before\n  " + describe(access_) +
                        "\n  who polls for it cannot tell whether it has come"};
        if (!box_.written.known_to(access_.thread) || !box_.poisoned.known_to(access_.thread))
            fail("may be poisoned only after the message has come", "poisoned", box_.poisoned,
                 "the sender must have heard of a message, or met a barrier, that comes after the poison (and, in global "
                 "memory, after a fence)");
    }

  private:
    void hear() const {
        Warp& warp = *access_.thread.warp;
        if (box_.carried.get() == warp.last_heard) return;
        const std::vector<Clock>& carried = *box_.carried;
        warp.heard.resize(carried.size());
        for (std::size_t i = 0; i < carried.size(); ++i) warp.heard[i] = std::max(warp.heard[i], carried[i]);
        warp.last_heard = box_.carried.get();
    }

    [[noreturn]] void fail(const char* what, const char* verb, const Deed& earlier, const char* advice) const {
        throw Fault{where_() + " " + what + "\n  first:  " + (earlier.thread ? describe(earlier, verb) : "at the start") +
                    "\n  second: " + describe(access_) + "\n  " + advice};
    }

    Mailbox& box_;
    const Access& access_;
    Where where_;
};

}  // namespace tilesmith::emulate
