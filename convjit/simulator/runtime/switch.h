// A stack each, and a switch that saves what a call must preserve.
#pragma once

namespace {

extern "C" void switch_fiber(void** save_stack, void* to_stack) __asm__("simulator_switch_fiber");
#if defined(__x86_64__)
__asm__(
    ".text\n"
    ".globl simulator_switch_fiber\n"
    "simulator_switch_fiber:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");

// Six registers, the address to start at, and a return address that is never used.
void* first_frame(char* top, void (*start)()) {
  void** stack = (void**)top - 8;
  memset(stack, 0, 8 * sizeof(void*));
  stack[6] = (void*)start;
  return stack;
}
#elif defined(__aarch64__)
__asm__(
    ".text\n"
    ".balign 4\n"
    ".globl simulator_switch_fiber\n"
    "simulator_switch_fiber:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n"
    "  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n");

void* first_frame(char* top, void (*start)()) {
  void** stack = (void**)top - 20;
  memset(stack, 0, 20 * sizeof(void*));
  stack[11] = (void*)start;
  return stack;
}
#else
#error "the simulator switches fibers on x86-64 and arm64 only"
#endif

}  // namespace
