// Fibers: a stack each, and a switch between it and the scheduler's stack.
//
// On x86-64 (ELF) the switch saves the six registers that the System V ABI lets a callee rely on (AMD64 ABI, 3.2.1) and
// costs a few nanoseconds; elsewhere, and where TILESMITH_UCONTEXT is defined, ucontext does the same.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if defined(__x86_64__) && defined(__ELF__) && !defined(TILESMITH_UCONTEXT)
#define TILESMITH_SWITCH_X86_64
#else
#include <ucontext.h>
#endif

namespace tilesmith::emulate {

/// The stacks of all fibers, in one mapping; below each lies a page that must not be touched.
class Stacks {
  public:
    static constexpr std::size_t size = 128 * 1024;

    explicit Stacks(std::size_t count) : guard_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))), count_(count) {
        void* memory = mmap(nullptr, count * stride(), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        base_ = static_cast<std::byte*>(memory);
        for (std::size_t i = 0; i < count; ++i)
            if (mprotect(base_ + i * stride(), guard_, PROT_NONE) != 0) throw std::bad_alloc();
    }
    ~Stacks() { munmap(base_, count_ * stride()); }
    Stacks(const Stacks&) = delete;
    Stacks& operator=(const Stacks&) = delete;

    std::byte* operator[](std::size_t i) { return base_ + i * stride() + guard_; }

    /// Whether an address lies in a guard page: the mark of a stack that overflowed.
    bool guards(const void* address) const {
        const auto offset = reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(base_);
        return offset < count_ * stride() && offset % stride() < guard_;
    }

  private:
    std::size_t stride() const { return size + guard_; }
    std::size_t guard_, count_;
    std::byte* base_ = nullptr;
};

#if defined(TILESMITH_SWITCH_X86_64)

extern "C" __attribute__((visibility("hidden"))) void tilesmith_switch_stack(void** saved, void* wanted);
asm(R"(
    .text
    .p2align 4
    .globl tilesmith_switch_stack
    .hidden tilesmith_switch_stack
    .type tilesmith_switch_stack, @function
tilesmith_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size tilesmith_switch_stack, .-tilesmith_switch_stack
)");

class Fiber {
  public:
    /// Make the next enter() call `body` on the given stack. `body` must never return.
    void prepare(std::byte* stack, void (*body)()) {
        auto* top = reinterpret_cast<void**>(stack + Stacks::size);
        top[-1] = nullptr;                        // the return address of body: the end of every backtrace
        top[-2] = reinterpret_cast<void*>(body);  // where the switch returns to
        for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
        inside_ = top - 8;
    }
    void enter() { tilesmith_switch_stack(&outside_, inside_); }
    void leave() { tilesmith_switch_stack(&inside_, outside_); }

  private:
    void* inside_ = nullptr;
    void* outside_ = nullptr;
};

#else

class Fiber {
  public:
    void prepare(std::byte* stack, void (*body)()) {
        getcontext(&inside_);
        inside_.uc_stack.ss_sp = stack;
        inside_.uc_stack.ss_size = Stacks::size;
        inside_.uc_link = nullptr;
        makecontext(&inside_, body, 0);
    }
    void enter() { swapcontext(&outside_, &inside_); }
    void leave() { swapcontext(&inside_, &outside_); }

  private:
    ucontext_t inside_, outside_;
};

#endif

}  // namespace tilesmith::emulate
