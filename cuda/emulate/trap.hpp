// Traps: what the host processor refuses while a fiber runs becomes a report, and Python goes on. Ctrl-C stops the run,
// and Python hears of it too.
//
// Kernels reach memory through checked functions, so a trap means an overflowing stack, a pointer used directly, or an
// integer division by zero.
#pragma once

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#include <array>
#include <cstddef>
#include <memory>

#include "scheduler.hpp"

namespace tilesmith::emulate {

class Traps {
  public:
    Traps() : stack_(new std::byte[stack_size]), owner_(pthread_self()) {
        current() = this;
        stack_t alternate{};
        alternate.ss_sp = stack_.get();
        alternate.ss_size = stack_size;
        sigaltstack(&alternate, &old_stack_);
        struct sigaction action {};
        action.sa_sigaction = &Traps::handle;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        for (std::size_t i = 0; i < signals.size(); ++i) sigaction(signals[i], &action, &old_actions_[i]);
    }
    ~Traps() {
        for (std::size_t i = 0; i < signals.size(); ++i) sigaction(signals[i], &old_actions_[i], nullptr);
        sigaltstack(&old_stack_, nullptr);
        current() = nullptr;
    }
    Traps(const Traps&) = delete;
    Traps& operator=(const Traps&) = delete;

    sigjmp_buf resume;  // set by the one who runs the fibers
    int signal = 0;     // what was trapped, and the address at fault
    void* address = nullptr;

  private:
    static constexpr std::size_t stack_size = 64 * 1024;
    static constexpr std::array signals{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGINT};

    static Traps*& current() {
        static Traps* traps = nullptr;
        return traps;
    }
    static void handle(int signal, siginfo_t* info, void* context) {
        Traps* self = current();
        if (signal == SIGINT) {
            if (self != nullptr) self->interrupt(info, context);
            return;
        }
        if (self == nullptr || !pthread_equal(self->owner_, pthread_self())) {
            // Some other thread of the process: put its handling back, and let it trap again.
            struct sigaction standard {};
            standard.sa_handler = SIG_DFL;
            for (std::size_t i = 0; i < signals.size(); ++i)
                if (signals[i] == signal) sigaction(signal, self ? &self->old_actions_[i] : &standard, nullptr);
            return;
        }
        self->signal = signal;
        self->address = info->si_addr;
        siglongjmp(self->resume, 1);
    }

    /// Stop the run, unless the process ignores the signal, and tell whoever handled it before.
    void interrupt(siginfo_t* info, void* context) {
        const struct sigaction& before = old_actions_.back();
        const bool plain = (before.sa_flags & SA_SIGINFO) == 0;
        if (plain && before.sa_handler == SIG_IGN) return;
        interrupted = 1;
        if (!plain)
            before.sa_sigaction(SIGINT, info, context);
        else if (before.sa_handler != SIG_DFL)
            before.sa_handler(SIGINT);
    }

    std::unique_ptr<std::byte[]> stack_;
    pthread_t owner_;
    stack_t old_stack_{};
    std::array<struct sigaction, signals.size()> old_actions_{};
};

}  // namespace tilesmith::emulate
