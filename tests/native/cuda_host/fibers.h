// Changing from one stack to another: a few instructions on Linux (x86-64, AArch64), ucontext elsewhere.
#pragma once
#include <cstddef>
#include <cstdint>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__linux__) || (!defined(__x86_64__) && !defined(__aarch64__))
#include <ucontext.h>
#define SPLAT_HOST_UCONTEXT 1
#endif

namespace splat_host {

struct Fiber {
  void* stack_pointer = nullptr;  // where its registers lie while it does not run
  void* asan_stack = nullptr;
  void* bottom = nullptr;  // lowest address of its stack; NULL: the thread that launched the kernel
  size_t bytes = 0;
#if SPLAT_HOST_UCONTEXT
  ucontext_t context;
#endif
};

#if !SPLAT_HOST_UCONTEXT
extern "C" void splat_host_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.text
.type splat_host_switch, @function
.local splat_host_switch
splat_host_switch:
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
.size splat_host_switch, .-splat_host_switch
)");
constexpr int saved_words = 8;  // six registers, the return address, one to keep the stack aligned at entry
constexpr int return_word = 6;
#else
asm(R"(
.text
.type splat_host_switch, %function
.local splat_host_switch
splat_host_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size splat_host_switch, .-splat_host_switch
)");
constexpr int saved_words = 20;
constexpr int return_word = 11;
#endif
#endif

// Ready to run `entry`, which must never return, on the fiber's stack.
inline void prepare(Fiber& fiber, void (*entry)()) {
#if SPLAT_HOST_UCONTEXT
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.bottom;
  fiber.context.uc_stack.ss_size = fiber.bytes;
  makecontext(&fiber.context, entry, 0);
#else
  const uintptr_t top = (reinterpret_cast<uintptr_t>(fiber.bottom) + fiber.bytes) & ~uintptr_t(15);
  void** words = reinterpret_cast<void**>(top) - saved_words;
  for (int i = 0; i < saved_words; ++i) words[i] = nullptr;
  words[return_word] = reinterpret_cast<void*>(entry);
  fiber.stack_pointer = words;
#endif
  fiber.asan_stack = nullptr;
}

// First thing on a fiber's stack after a change to it.
inline void arrived(Fiber& self, Fiber& launcher) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(self.asan_stack, &bottom, &bytes);
  if (!launcher.bottom) launcher.bottom = const_cast<void*>(bottom), launcher.bytes = bytes;
#else
  (void)self, (void)launcher;
#endif
}

__attribute__((no_sanitize("address"))) inline void change(Fiber& from, Fiber& to, bool for_ever) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &from.asan_stack, to.bottom, to.bytes);
#endif
  (void)for_ever;
#if SPLAT_HOST_UCONTEXT
  swapcontext(&from.context, &to.context);
#else
  splat_host_switch(&from.stack_pointer, to.stack_pointer);
#endif
}

}  // namespace splat_host
